//! From pixels to network input: (pixel / 255 − mean) / std, channels last.

use super::{augment_config::ChannelStats, planes::Planes};

/// The normalisation of each channel, as a table for bytes and as a line for floats.
#[derive(Clone, Debug)]
pub struct PixelNormalizer {
    table: [[f32; 256]; 3],
    slope: [f32; 3],
    offset: [f32; 3],
}

impl PixelNormalizer {
    /// Tables for these statistics.
    pub fn new(stats: &ChannelStats) -> Self {
        let value = |channel: usize, level: f64| ((level / 255.0 - stats.mean[channel]) / stats.std[channel]) as f32;
        Self {
            table: std::array::from_fn(|channel| std::array::from_fn(|level| value(channel, level as f64))),
            slope: std::array::from_fn(|channel| (1.0 / (255.0 * stats.std[channel])) as f32),
            offset: std::array::from_fn(|channel| value(channel, 0.0)),
        }
    }

    /// Writes `[height, width, 3]`.
    pub fn normalize_bytes(&self, image: &Planes<u8>, out: &mut [f32]) {
        let [red, green, blue] = image.split();
        let [red_table, green_table, blue_table] = &self.table;
        for (((pixel, &r), &g), &b) in out.as_chunks_mut::<3>().0.iter_mut().zip(red).zip(green).zip(blue) {
            *pixel = [red_table[r as usize], green_table[g as usize], blue_table[b as usize]];
        }
    }

    /// Writes `[height, width, 3]`; values outside 0…255 stay outside the usual range.
    pub fn normalize_floats(&self, image: &Planes<f32>, out: &mut [f32]) {
        let [red, green, blue] = image.split();
        for (((pixel, &r), &g), &b) in out.as_chunks_mut::<3>().0.iter_mut().zip(red).zip(green).zip(blue) {
            let levels = [r, g, b];
            *pixel = std::array::from_fn(|channel| levels[channel] * self.slope[channel] + self.offset[channel]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalised_to_the_last_bit() {
        // Not slope · pixel + offset, which rounds otherwise: pretraining with the same seed would end elsewhere.
        let stats = ChannelStats { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
        let levels: Vec<u8> = (0..=255).collect();
        let image = Planes { width: 256, height: 1, data: levels.repeat(3) };
        let mut out = vec![0.0; 3 * 256];
        PixelNormalizer::new(&stats).normalize_bytes(&image, &mut out);
        for (level, pixel) in out.chunks_exact(3).enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                let exact = (level as f64 / 255.0 - stats.mean[channel]) / stats.std[channel];
                assert_eq!(value.to_bits(), (exact as f32).to_bits());
            }
        }
    }
    use crate::augment::augment_config::NormalizeConfig;

    #[test]
    fn bytes_and_floats_agree_and_are_channels_last() {
        let stats = NormalizeConfig::Imagenet.channel_stats();
        let normalizer = PixelNormalizer::new(&stats);
        let bytes = Planes { width: 2, height: 1, data: vec![0_u8, 255, 10, 20, 30, 40] };
        let mut floats = Planes::default();
        bytes.to_float(&mut floats);
        let (mut from_bytes, mut from_floats) = ([0.0; 6], [0.0; 6]);
        normalizer.normalize_bytes(&bytes, &mut from_bytes);
        normalizer.normalize_floats(&floats, &mut from_floats);
        let expected = [[0, 10, 30], [255, 20, 40]];
        for (idx, (&a, &b)) in from_bytes.iter().zip(&from_floats).enumerate() {
            let channel = idx % 3;
            let exact = (f64::from(expected[idx / 3][channel]) / 255.0 - stats.mean[channel]) / stats.std[channel];
            assert!((f64::from(a) - exact).abs() < 1e-6 && (f64::from(b) - exact).abs() < 1e-6);
        }
    }
}
