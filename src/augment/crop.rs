//! Where a crop lies: torchvision's `RandomResizedCrop` and `RandomCrop`, and the evaluation windows.

use rand::Rng;

use super::{
    augment_config::EvaluationViewConfig,
    portable_math::{exp, ln},
    resample::Rect,
};
use crate::seed::{below, uniform};

/// The ranges of `random_resized_crop`, ready to draw from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropRanges {
    scale: [f64; 2],
    ratio: [f64; 2],
    log_ratio: [f64; 2],
}

impl CropRanges {
    /// Area as a share of the image, and width / height.
    pub fn new(scale: [f64; 2], ratio: [f64; 2]) -> Self {
        Self { scale, ratio, log_ratio: ratio.map(ln) }
    }

    /// Draws a crop as `RandomResizedCrop.get_params` does: ten tries, then the largest central crop whose
    /// ratio is allowed.
    pub fn sample<R: Rng>(&self, width: u32, height: u32, rng: &mut R) -> Rect {
        let area = f64::from(width) * f64::from(height);
        for _ in 0..10 {
            let target_area = area * uniform(rng, self.scale[0], self.scale[1]);
            let ratio = exp(uniform(rng, self.log_ratio[0], self.log_ratio[1]));
            let crop_width = (target_area * ratio).sqrt().round_ties_even();
            let crop_height = (target_area / ratio).sqrt().round_ties_even();
            if crop_width >= 1.0
                && crop_width <= f64::from(width)
                && crop_height >= 1.0
                && crop_height <= f64::from(height)
            {
                let (crop_width, crop_height) = (crop_width as u32, crop_height as u32);
                let top = below(rng, u64::from(height - crop_height) + 1) as u32;
                let left = below(rng, u64::from(width - crop_width) + 1) as u32;
                return Rect { left, top, width: crop_width, height: crop_height };
            }
        }
        self.fallback(width, height)
    }

    fn fallback(&self, width: u32, height: u32) -> Rect {
        let (w, h) = (f64::from(width), f64::from(height));
        let ratio = w / h;
        let (crop_width, crop_height) = if ratio < self.ratio[0] {
            (width, (w / self.ratio[0]).round_ties_even().clamp(1.0, h) as u32)
        } else if ratio > self.ratio[1] {
            ((h * self.ratio[1]).round_ties_even().clamp(1.0, w) as u32, height)
        } else {
            (width, height)
        };
        Rect { left: (width - crop_width) / 2, top: (height - crop_height) / 2, width: crop_width, height: crop_height }
    }
}

/// Draws the upper left corner of a square of `size` in an image with `padding` black pixels on each side,
/// relative to the image (so that it may be negative). An image that is still too small is padded further, as
/// `RandomCrop(pad_if_needed=True)` does.
pub fn sample_pad_crop<R: Rng>(width: usize, height: usize, size: usize, padding: usize, rng: &mut R) -> (i64, i64) {
    let top = sample_offset(height, size, padding, rng);
    let left = sample_offset(width, size, padding, rng);
    (left, top)
}

fn sample_offset<R: Rng>(len: usize, size: usize, padding: usize, rng: &mut R) -> i64 {
    let padded = len + 2 * padding;
    let extra = size.saturating_sub(padded);
    let room = padded + 2 * extra - size;
    below(rng, room as u64 + 1) as i64 - (padding + extra) as i64
}

/// Where the central `size` pixels of a line of `len` begin, as in torchvision's `CenterCrop`, which pads what is too
/// short.
pub fn center_offset(len: usize, size: usize) -> i64 {
    if size > len {
        return -(((size - len) / 2) as i64);
    }
    // int(round((len − size) / 2.0)), where Python rounds ties to even.
    ((len - size) as f64 / 2.0).round_ties_even() as i64
}

/// The size to which the whole image is resized for an evaluation view, and the window that is kept.
pub fn evaluation_window(width: u32, height: u32, size: u32, kind: EvaluationViewConfig) -> ((u32, u32), Rect) {
    let shorter = match kind {
        EvaluationViewConfig::Squash => return ((size, size), Rect::whole(size, size)),
        EvaluationViewConfig::CenterCrop => size,
        // 8/7 to the nearest pixel: 224 → 256, 64 → 73.
        EvaluationViewConfig::ResizeAndCenterCrop => (size * 8 + 3) / 7,
    };
    let (full_width, full_height) = scale_shorter_side(width, height, shorter);
    let offset = |length: u32| center_offset(length as usize, size as usize) as u32;
    let window = Rect { left: offset(full_width), top: offset(full_height), width: size, height: size };
    ((full_width, full_height), window)
}

/// The size whose shorter side is `shorter` with the same ratio, the longer side rounded down as in
/// torchvision's `Resize(int)`.
pub fn scale_shorter_side(width: u32, height: u32, shorter: u32) -> (u32, u32) {
    let longer = |long: u32, short: u32| {
        let scaled = u64::from(shorter) * u64::from(long) / u64::from(short.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    if width <= height { (shorter, longer(height, width)) } else { (longer(width, height), shorter) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::ViewKey;

    fn rng(image_idx: u64) -> rand_chacha::ChaCha8Rng {
        ViewKey { seed: 0, epoch: 0, image_idx, view: 0 }.rng()
    }

    #[test]
    fn crops_lie_inside_and_have_the_asked_area_and_ratio() {
        let ranges = CropRanges::new([0.2, 1.0], [0.75, 4.0 / 3.0]);
        let (mut areas, mut log_ratios) = (vec![], vec![]);
        for idx in 0..4000 {
            let rect = ranges.sample(400, 400, &mut rng(idx));
            assert!(rect.left + rect.width <= 400 && rect.top + rect.height <= 400);
            areas.push(f64::from(rect.width * rect.height) / 160_000.0);
            log_ratios.push((f64::from(rect.width) / f64::from(rect.height)).ln());
        }
        areas.retain(|&area| area < 0.5);
        // Below half the area every draw fits, so that the areas there are uniform: the largest distance
        // between the empirical and the uniform distribution (Kolmogorov–Smirnov).
        areas.sort_by(f64::total_cmp);
        let count = areas.len() as f64;
        let distance = areas
            .iter()
            .enumerate()
            .map(|(idx, area)| ((area - 0.2) / 0.3 - (idx as f64 + 0.5) / count).abs())
            .fold(0.0, f64::max);
        assert!(distance < 1.63 / count.sqrt(), "{distance} of {count}");
        let limit = (4.0_f64 / 3.0).ln() + 0.01;
        assert!(log_ratios.iter().all(|ratio| ratio.abs() < limit));
        assert!((log_ratios.iter().sum::<f64>() / 4000.0).abs() < 0.02);
    }

    #[test]
    fn extreme_images_fall_back_to_the_centre() {
        let ranges = CropRanges::new([0.2, 1.0], [0.75, 4.0 / 3.0]);
        for (width, height) in [(1, 1), (1, 1000), (1000, 1), (2, 3)] {
            let rect = ranges.sample(width, height, &mut rng(0));
            assert!(rect.width >= 1 && rect.height >= 1);
            assert!(rect.left + rect.width <= width && rect.top + rect.height <= height);
        }
        assert_eq!(ranges.fallback(1000, 300), Rect { left: 300, top: 0, width: 400, height: 300 });
        assert_eq!(ranges.fallback(300, 1000), Rect { left: 0, top: 300, width: 300, height: 400 });
    }

    #[test]
    fn pad_crop_reaches_every_shift() {
        let mut seen = std::collections::BTreeSet::new();
        for idx in 0..2000 {
            seen.insert(sample_pad_crop(32, 32, 32, 2, &mut rng(idx)));
        }
        assert_eq!(seen.len(), 25);
        assert_eq!(seen.first(), Some(&(-2, -2)));
        assert_eq!(seen.last(), Some(&(2, 2)));
        let (left, top) = sample_pad_crop(3, 100, 8, 1, &mut rng(0));
        assert!((-8..=3).contains(&left) && (-1..=93).contains(&top));
    }

    #[test]
    fn evaluation_windows_are_torchvisions() {
        use EvaluationViewConfig::{CenterCrop, ResizeAndCenterCrop, Squash};
        let window = |left, top| Rect { left, top, width: 224, height: 224 };
        assert_eq!(evaluation_window(640, 480, 224, ResizeAndCenterCrop), ((341, 256), window(58, 16)));
        assert_eq!(evaluation_window(480, 640, 224, CenterCrop), ((224, 298), window(0, 37)));
        assert_eq!(evaluation_window(480, 640, 224, Squash), ((224, 224), window(0, 0)));
        assert_eq!(evaluation_window(1, 1, 64, ResizeAndCenterCrop).0, (73, 73));
    }
}
