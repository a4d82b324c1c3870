//! Hue turns in Pillow's 8-bit HSV (`libImaging/Convert.c`), pixel for pixel as torchvision's `adjust_hue`.
//!
//! Pillow computes in single and double precision and truncates. Hue and saturation are truncated quotients of whole
//! numbers, and only where such a quotient is whole itself does rounding show: those cases are told apart here, so that
//! everything else can be whole numbers and single precision, sixteen pixels at a time.

use super::planes::Planes;
use crate::kernels::multiversion;

/// Bit q says that Pillow's hue is q − 1 where the quotient is exactly q.
const HUES_TRUNCATED_BELOW: [u32; 8] =
    [0xffff_fffe, 0, 0x1100_0000, 0x0000_0111, 0x222a_aaaa, 0x2323_2222, 0x0002_2222, 0];

/// Turns the hue by `shift` / 256 of the colour circle.
pub fn shift_hue(image: &mut Planes<u8>, shift: u8) {
    let [red, green, blue] = image.split_mut();
    shift_hue_planes(red, green, blue, shift);
}

multiversion! {
    fn shift_hue_planes(red: &mut [u8], green: &mut [u8], blue: &mut [u8], shift: u8) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let [hue, saturation, value] = rgb_to_hsv([*r, *g, *b].map(i32::from));
            [*r, *g, *b] = hsv_to_rgb((hue + i32::from(shift)) & 255, saturation, value).map(|level| level as u8);
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn rgb_to_hsv([r, g, b]: [i32; 3]) -> [i32; 3] {
    let max = r.max(g).max(b);
    let range = max - r.min(g).min(b);
    // The hue in sixths of the circle is `sixths` / `range`.
    let from_green = 2 * range + b - r;
    let from_blue = 4 * range + r - g;
    let sixths = if g == max { from_green } else { from_blue };
    let sixths = if r == max { g - b } else { sixths };
    let sixths = if sixths < 0 { sixths + 6 * range } else { sixths };
    // 255 · sixths / (6 · range); a grey pixel divides 0 by 2. All products are below 2^24.
    let (dividend, divisor) = ((85 * sixths) as f32, (2 * range.max(1)) as f32);
    let hue = truncate(dividend / divisor);
    let is_whole = hue as f32 * divisor == dividend;
    let mut word = 0;
    for (idx, &bits) in (0..).zip(&HUES_TRUNCATED_BELOW) {
        word = if hue >> 5 == idx { bits } else { word };
    }
    let is_below = i32::from(is_whole) & (word >> (hue & 31) & 1) as i32;

    // The product may be rounded up to the next whole number: 256 · share and what is subtracted from it are exact.
    let share = range as f32 / max.max(1) as f32;
    let saturation = truncate(share * 255.0);
    let is_above = share * 256.0 - (saturation as f32) < share;
    [hue - is_below, saturation - i32::from(is_above), max]
}

/// value − value · saturation · ramp, where the ramp of each channel is 0…255 and a function of the hue, rounded; no
/// result lies halfway between two levels.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn hsv_to_rgb(hue: i32, saturation: i32, value: i32) -> [i32; 3] {
    let sixths = 6 * hue;
    let ramps = [510 - (sixths - 765).abs(), (sixths - 510).abs() - 255, (sixths - 1020).abs() - 255];
    let strength = (value * saturation) as f32;
    ramps.map(|ramp| {
        // Below 2^24 until it is multiplied.
        let product = strength * ramp.clamp(0, 255) as f32 + 32512.0;
        value - truncate(product * (1.0 / 65025.0))
    })
}

/// Truncates a value that lies within 0…256.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn truncate(value: f32) -> i32 {
    debug_assert!((0.0..256.5).contains(&value));
    // SAFETY: quotients of levels, between 0 and 256.
    unsafe { value.to_int_unchecked() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula of `libImaging/Convert.c`, in its precisions.
    fn pillow_rgb_to_hsv(r: u8, g: u8, b: u8) -> [i32; 3] {
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        if max == min {
            return [0, 0, i32::from(max)];
        }
        let range = f32::from(max - min);
        let saturation = range / f32::from(max);
        let [rc, gc, bc] = [r, g, b].map(|level| f32::from(max - level) / range);
        let sector = if r == max {
            bc - gc
        } else if g == max {
            (2.0 + f64::from(rc) - f64::from(bc)) as f32
        } else {
            (4.0 + f64::from(gc) - f64::from(rc)) as f32
        };
        let hue = ((f64::from(sector) / 6.0 + 1.0) % 1.0) as f32;
        [(f64::from(hue) * 255.0) as i32, (f64::from(saturation) * 255.0) as i32, i32::from(max)]
    }

    /// The floating-point formula of `libImaging/Convert.c`.
    fn pillow_hsv_to_rgb(hue: u8, saturation: u8, value: u8) -> [i32; 3] {
        let sixth = f64::from(hue) * 6.0 / 255.0;
        let sector = (i32::from(hue) * 6) / 255;
        let fraction = f64::from((sixth - f64::from(sector)) as f32);
        let strength = f64::from((f64::from(saturation) / 255.0) as f32);
        let full = f64::from(value);
        let p = (full * (1.0 - strength) + 0.5) as i32;
        let q = (full * (1.0 - f64::from((strength * fraction) as f32)) + 0.5) as i32;
        let t = (full * (1.0 - strength * (1.0 - fraction)) + 0.5) as i32;
        let value = i32::from(value);
        match sector % 6 {
            0 => [value, t, p],
            1 => [q, value, p],
            2 => [p, value, t],
            3 => [p, q, value],
            4 => [t, p, value],
            _ => [value, p, q],
        }
    }

    #[test]
    fn every_hue_and_saturation_is_pillows() {
        // The hue depends on the differences alone, the saturation on the largest and the range.
        for range in 0..=255_u8 {
            for middle in 0..=range {
                for [r, g, b] in [
                    [range, middle, 0],
                    [middle, range, 0],
                    [0, range, middle],
                    [0, middle, range],
                    [middle, 0, range],
                    [range, 0, middle],
                ] {
                    assert_eq!(rgb_to_hsv([r, g, b].map(i32::from)), pillow_rgb_to_hsv(r, g, b), "{r} {g} {b}");
                }
            }
            for max in range..=255 {
                let min = max - range;
                assert_eq!(rgb_to_hsv([max, max, min].map(i32::from)), pillow_rgb_to_hsv(max, max, min), "{max} {min}");
            }
        }
    }

    #[test]
    fn every_colour_comes_back_as_pillows() {
        for hue in 0..=255 {
            for saturation in 0..=255 {
                for value in (0..=255).step_by(5) {
                    assert_eq!(
                        hsv_to_rgb(i32::from(hue), i32::from(saturation), i32::from(value)),
                        pillow_hsv_to_rgb(hue, saturation, value),
                        "{hue} {saturation} {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn planes_of_any_length_are_turned_as_single_pixels() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for width in (1..70).chain([1000]) {
            let data: Vec<u8> = (0..3 * width).map(|_| noise()).collect();
            let mut image = Planes { width, height: 1, data };
            let before = image.clone();
            let shift = noise();
            shift_hue(&mut image, shift);
            for x in 0..width {
                let at = |planes: &Planes<u8>| planes.split().map(|plane| plane[x]);
                let [r, g, b] = at(&before);
                let [hue, saturation, value] = pillow_rgb_to_hsv(r, g, b).map(|level| level as u8);
                let expected = pillow_hsv_to_rgb(hue.wrapping_add(shift), saturation, value);
                assert_eq!(at(&image).map(i32::from), expected, "{r} {g} {b} by {shift}");
            }
        }
    }
}
