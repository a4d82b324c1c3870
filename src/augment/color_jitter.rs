//! Brightness, contrast, saturation and hue in Pillow's blend arithmetic (`ImageEnhance`, `libImaging/Blend.c`),
//! as torchvision's `ColorJitter` applies them to a PIL image.

use rand::Rng;

use super::{augment_config::ColorJitterConfig, hsv::shift_hue, planes::Planes};
use crate::{
    kernels::multiversion,
    seed::{below, uniform},
};

/// One change of colour with its factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ColorChange {
    /// Blend with black.
    Brightness(f64),
    /// Blend with the mean grey of the image.
    Contrast(f64),
    /// Blend with the grey of each pixel.
    Saturation(f64),
    /// Turn of the hue as a share of the colour circle, −0.5…0.5.
    Hue(f64),
}

/// Draws the factors and their order; a strength of 0 leaves its change out.
pub fn sample_color_jitter<R: Rng>(config: &ColorJitterConfig, rng: &mut R) -> [Option<ColorChange>; 4] {
    fn factor<R: Rng>(strength: f64, rng: &mut R) -> Option<f64> {
        (strength > 0.0).then(|| uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength))
    }
    let mut changes = [
        factor(config.brightness, rng).map(ColorChange::Brightness),
        factor(config.contrast, rng).map(ColorChange::Contrast),
        factor(config.saturation, rng).map(ColorChange::Saturation),
        (config.hue > 0.0).then(|| ColorChange::Hue(uniform(rng, -config.hue, config.hue))),
    ];
    for last in (1..changes.len()).rev() {
        changes.swap(last, below(rng, last as u64 + 1) as usize);
    }
    changes
}

/// Applies one change; `grey` is a buffer.
pub fn apply_color_change(image: &mut Planes<u8>, change: ColorChange, grey: &mut Vec<u8>) {
    match change {
        ColorChange::Brightness(factor) => blend_level(&mut image.data, 0, factor as f32),
        ColorChange::Contrast(factor) => {
            let mean = mean_grey(image, grey);
            blend_level(&mut image.data, mean, factor as f32);
        }
        ColorChange::Saturation(factor) => {
            grey_plane(image, grey);
            for plane in image.split_mut() {
                blend_plane(plane, grey, factor as f32);
            }
        }
        // torchvision truncates towards 0 and lets the sum wrap.
        ColorChange::Hue(turn) => shift_hue(image, (turn * 255.0) as i32 as u8),
    }
}

/// Sets all three channels to the grey of each pixel.
pub fn to_grayscale(image: &mut Planes<u8>, grey: &mut Vec<u8>) {
    grey_plane(image, grey);
    for plane in image.split_mut() {
        plane.copy_from_slice(grey);
    }
}

/// Pillow's mode `L`: ITU-R 601 weights in units of 2^−16.
fn grey_plane(image: &Planes<u8>, grey: &mut Vec<u8>) {
    grey.resize(image.area(), 0);
    let [red, green, blue] = image.split();
    fill_grey(red, green, blue, grey);
}

/// The mean grey level, rounded.
fn mean_grey(image: &Planes<u8>, grey: &mut Vec<u8>) -> u8 {
    grey_plane(image, grey);
    let mut sum = 0;
    sum_levels(grey, &mut sum);
    (sum as f64 / grey.len().max(1) as f64 + 0.5) as u8
}

multiversion! {
    fn fill_grey(red: &[u8], green: &[u8], blue: &[u8], grey: &mut [u8]) {
        for (((to, &r), &g), &b) in grey.iter_mut().zip(red).zip(green).zip(blue) {
            *to = ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8;
        }
    }
}

multiversion! {
    fn sum_levels(values: &[u8], sum: &mut u64) {
        // Short enough for 32 bits, which vectorise better.
        for chunk in values.chunks(1 << 16) {
            *sum += u64::from(chunk.iter().map(|&value| u32::from(value)).sum::<u32>());
        }
    }
}

multiversion! {
    fn blend_level(values: &mut [u8], level: u8, factor: f32) {
        let from = f32::from(level);
        for value in values {
            *value = clip(from + factor * (f32::from(*value) - from));
        }
    }
}

multiversion! {
    fn blend_plane(values: &mut [u8], from: &[u8], factor: f32) {
        for (value, &from) in values.iter_mut().zip(from) {
            let from = f32::from(from);
            *value = clip(from + factor * (f32::from(*value) - from));
        }
    }
}

/// Truncates, as Pillow does.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn clip(value: f32) -> u8 {
    let clamped = value.clamp(0.0, 255.0);
    // SAFETY: the value lies within 0…255; factors are finite, as `Policy::build` has checked.
    (unsafe { clamped.to_int_unchecked::<i32>() }) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::ViewKey;

    const CONFIG: ColorJitterConfig =
        ColorJitterConfig { p: 1.0, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 };

    #[test]
    fn factor_one_changes_nothing() {
        let data: Vec<u8> = (0..3 * 64).map(|i| (i * 37 % 256) as u8).collect();
        let image = Planes { width: 8, height: 8, data };
        for change in [ColorChange::Brightness(1.0), ColorChange::Contrast(1.0), ColorChange::Saturation(1.0)] {
            let mut changed = image.clone();
            apply_color_change(&mut changed, change, &mut vec![]);
            assert_eq!(changed, image, "{change:?}");
        }
    }

    /// Pillow's `ImageEnhance`: a pixel between what it is blended with and itself, or beyond, cut to a byte.
    fn blend_slowly(from: u8, value: u8, factor: f32) -> u8 {
        let blended = f32::from(from) + factor * (f32::from(value) - f32::from(from));
        (0..=255).rev().find(|&level| f32::from(level) <= blended).unwrap_or(0)
    }

    #[test]
    fn vectors_give_what_single_pixels_give() {
        for (width, height) in [(1, 1), (5, 3), (33, 7), (64, 64)] {
            let mut state = 7_u32;
            let mut draw = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let image = Planes { width, height, data: (0..3 * width * height).map(|_| draw()).collect() };
            let [red, green, blue] = image.split();
            let grey = |i: usize| {
                let [r, g, b] = [red[i], green[i], blue[i]].map(u64::from);
                ((19595 * r + 38470 * g + 7471 * b + (1 << 15)) / (1 << 16)) as u8
            };
            let area = width * height;
            let mean = (0..area).map(|i| f64::from(grey(i))).sum::<f64>() / area as f64;
            let mean = (mean + 0.5).floor() as u8;
            let mut to_grey = image.clone();
            to_grayscale(&mut to_grey, &mut vec![]);
            assert_eq!(to_grey.data, (0..3 * area).map(|at| grey(at % area)).collect::<Vec<_>>());
            for factor in [0.0, 0.2, 0.6, 0.93, 1.0, 1.4, 1.8, 5.0] {
                for change in
                    [ColorChange::Brightness(factor), ColorChange::Contrast(factor), ColorChange::Saturation(factor)]
                {
                    let mut changed = image.clone();
                    apply_color_change(&mut changed, change, &mut vec![]);
                    for (at, (&ours, &value)) in changed.data.iter().zip(&image.data).enumerate() {
                        let from = match change {
                            ColorChange::Contrast(_) => mean,
                            ColorChange::Saturation(_) => grey(at % area),
                            _ => 0,
                        };
                        assert_eq!(ours, blend_slowly(from, value, factor as f32), "{change:?} {from} {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn factors_are_uniform_and_orders_equally_likely() {
        let mut first = [0_u32; 4];
        let mut brightness = vec![];
        for image_idx in 0..4000 {
            let changes = sample_color_jitter(&CONFIG, &mut ViewKey { seed: 9, epoch: 0, image_idx, view: 1 }.rng());
            first[match changes[0].unwrap() {
                ColorChange::Brightness(_) => 0,
                ColorChange::Contrast(_) => 1,
                ColorChange::Saturation(_) => 2,
                ColorChange::Hue(_) => 3,
            }] += 1;
            brightness.extend(changes.iter().flatten().filter_map(|change| match change {
                ColorChange::Brightness(factor) => Some(*factor),
                _ => None,
            }));
        }
        assert!(first.iter().all(|&count| (880..1120).contains(&count)), "{first:?}");
        brightness.sort_by(f64::total_cmp);
        for (idx, factor) in brightness.iter().enumerate() {
            let expected = 0.6 + 0.8 * (idx as f64 + 0.5) / 4000.0;
            assert!((factor - expected).abs() < 0.8 * 1.63 / 4000_f64.sqrt(), "{idx}: {factor} not {expected}");
        }
    }

    #[test]
    fn zero_strength_draws_nothing() {
        let config = ColorJitterConfig { hue: 0.0, contrast: 0.0, ..CONFIG };
        let changes = sample_color_jitter(&config, &mut ViewKey { seed: 9, epoch: 0, image_idx: 0, view: 1 }.rng());
        assert_eq!(changes.iter().flatten().count(), 2);
    }
}
