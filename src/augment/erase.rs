//! `random_erasing`: where the rectangle lies (torchvision's `RandomErasing.get_params`) and what it shows.

use rand::Rng;

use super::{
    augment_config::{ChannelStats, EraseValue, RandomErasingConfig},
    planes::Planes,
    portable_math::{cos_turns, exp, ln},
    resample::Rect,
};
use crate::seed::{below, seeded_rng, uniform, unit};

/// What the rectangle shows, on the scale of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// One colour of whole grey levels.
    Bytes([u8; 3]),
    /// One colour.
    Levels([f32; 3]),
    /// Normally distributed noise: mean and deviation of each channel, and what it is drawn from.
    Noise {
        /// Means.
        mean: [f64; 3],
        /// Deviations.
        std: [f64; 3],
        /// Seed of the noise.
        seed: u64,
    },
}

/// `random_erasing`, ready to draw from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Erasing {
    /// Probability that the operation is applied.
    pub p: f64,
    scale: [f64; 2],
    log_ratio: [f64; 2],
    value: EraseValue,
    stats: ChannelStats,
}

impl Erasing {
    /// From parameters that have been checked; `stats` say what is 0 in the network's input.
    pub fn new(config: &RandomErasingConfig, stats: ChannelStats) -> Self {
        let RandomErasingConfig { p, scale, ratio, value } = *config;
        Self { p, scale, log_ratio: ratio.map(ln), value, stats }
    }

    /// Draws a rectangle: ten tries to find one that lies inside, then none.
    pub fn sample<R: Rng>(&self, width: usize, height: usize, rng: &mut R) -> Option<(Rect, Fill)> {
        let rect = self.sample_rect(width, height, rng)?;
        let level = |channel: usize| self.stats.mean[channel] * 255.0;
        let fill = match self.value {
            EraseValue::Color(color) => Fill::Bytes(color),
            EraseValue::Mean => Fill::Levels(std::array::from_fn(|channel| level(channel) as f32)),
            EraseValue::Random => Fill::Noise {
                mean: std::array::from_fn(level),
                std: self.stats.std.map(|std| std * 255.0),
                seed: rng.next_u64(),
            },
        };
        Some((rect, fill))
    }

    fn sample_rect<R: Rng>(&self, width: usize, height: usize, rng: &mut R) -> Option<Rect> {
        let area = width as f64 * height as f64;
        for _ in 0..10 {
            let target_area = area * uniform(rng, self.scale[0], self.scale[1]);
            let ratio = exp(uniform(rng, self.log_ratio[0], self.log_ratio[1]));
            let erased_height = (target_area * ratio).sqrt().round_ties_even();
            let erased_width = (target_area / ratio).sqrt().round_ties_even();
            if erased_height < height as f64 && erased_width < width as f64 {
                let top = below(rng, (height - erased_height as usize) as u64 + 1) as u32;
                let left = below(rng, (width - erased_width as usize) as u64 + 1) as u32;
                return Some(Rect { left, top, width: erased_width as u32, height: erased_height as u32 });
            }
        }
        None
    }
}

/// Paints a rectangle that lies inside the image with one colour.
pub fn fill_rect<T: Copy + Default>(image: &mut Planes<T>, rect: Rect, color: [T; 3]) {
    for_each_row(image, rect, |channel, row| row.fill(color[channel]));
}

/// Paints a rectangle that lies inside the image with noise.
pub fn fill_noise(image: &mut Planes<f32>, rect: Rect, mean: [f64; 3], std: [f64; 3], seed: u64) {
    let mut rng = seeded_rng(seed, "erasing", &[]);
    for_each_row(image, rect, |channel, row| {
        for value in row {
            *value = (mean[channel] + std[channel] * standard_normal(&mut rng)) as f32;
        }
    });
}

fn for_each_row<T: Copy + Default>(image: &mut Planes<T>, rect: Rect, mut paint: impl FnMut(usize, &mut [T])) {
    let width = image.width;
    for (channel, plane) in image.split_mut().into_iter().enumerate() {
        for y in rect.top..rect.top + rect.height {
            let start = y as usize * width + rect.left as usize;
            paint(channel, &mut plane[start..start + rect.width as usize]);
        }
    }
}

/// Box and Muller's transformation, one of its two values.
fn standard_normal<R: Rng>(rng: &mut R) -> f64 {
    // 1 − u lies in (0, 1].
    let radius = (-2.0 * ln(1.0 - unit(rng))).sqrt();
    radius * cos_turns(unit(rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::augment_config::NormalizeConfig;

    fn erasing(value: EraseValue) -> Erasing {
        let config = RandomErasingConfig { p: 1.0, scale: [0.02, 0.33], ratio: [0.3, 3.3], value };
        Erasing::new(&config, NormalizeConfig::Imagenet.channel_stats())
    }

    #[test]
    fn rectangles_lie_inside_images_of_every_shape() {
        for (width, height) in [(1, 1), (1, 50), (50, 1), (2, 3), (40, 30)] {
            for seed in 0..200 {
                let mut rng = seeded_rng(seed, "test", &[]);
                if let Some((rect, _)) = erasing(EraseValue::Mean).sample(width, height, &mut rng) {
                    assert!((rect.left + rect.width) as usize <= width && (rect.top + rect.height) as usize <= height);
                    fill_rect(&mut Planes { width, height, data: vec![0; 3 * width * height] }, rect, [1, 2, 3]);
                }
            }
        }
    }

    #[test]
    fn only_the_rectangle_is_painted() {
        let mut image = Planes { width: 3, height: 2, data: vec![0; 18] };
        fill_rect(&mut image, Rect { left: 1, top: 1, width: 2, height: 1 }, [7, 8, 9]);
        assert_eq!(image.data, [0, 0, 0, 0, 7, 7, 0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 9, 9]);
    }

    #[test]
    fn noise_is_standard_normal_and_the_same_for_the_same_seed() {
        let noise = |seed| {
            let mut image = Planes { width: 100, height: 100, data: vec![0.0; 30_000] };
            let rect = Rect::whole(100, 100);
            fill_noise(&mut image, rect, [0.0; 3], [1.0; 3], seed);
            image.data
        };
        let values = noise(1);
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 30_000.0;
        let variance = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / 30_000.0;
        let beyond_two = values.iter().filter(|value| value.abs() > 2.0).count() as f64 / 30_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        assert!((beyond_two - 0.0455).abs() < 0.005, "{beyond_two}");
        assert_eq!(values, noise(1));
        assert_ne!(values, noise(2));
    }
}
