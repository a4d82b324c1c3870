//! How the images of a dataset are divided among files of pixels: runs of neighbours, cut where an image's own pixels say
//! so. An image that is added or removed changes the run that it is in; all others hold the same bytes as before,
//! wherever they stand, and can be shared between artifacts.

use std::ops::Range;

use super::pixel_sums::PixelSums;

/// Folder of the files with pixels in a dataset artifact.
pub const PIXELS_DIR: &str = "pixels";

/// There are not more runs than this on average.
const MAX_RUNS: usize = 2048;
/// Fewer images on average are not worth a file.
const MIN_MEAN: usize = 16;

/// Name of a file with pixels.
pub(super) fn run_file(idx: usize) -> String {
    format!("{PIXELS_DIR}/{idx:05}.bin")
}

/// Where to cut.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    /// Images of a run on average, a power of two.
    mean: usize,
    /// Images of the run at hand.
    len: usize,
}

impl Cuts {
    /// For about this many images. The length of runs changes only where their number doubles.
    pub(super) fn for_images(num_images: usize) -> Self {
        Self { mean: num_images.div_ceil(MAX_RUNS).next_power_of_two().max(MIN_MEAN), len: 0 }
    }

    /// Whether a run ends with this image, the next after the last that was asked for.
    pub(super) fn ends(&mut self, size: [u32; 2], sums: &PixelSums) -> bool {
        self.len += 1;
        // Equal images would otherwise all end a run, or none.
        let range: Range<usize> = self.mean / 4..self.mean * 8;
        let ends =
            self.len >= range.end || (self.len >= range.start && hash(size, sums).is_multiple_of(self.mean as u64));
        if ends {
            self.len = 0;
        }
        ends
    }
}

fn hash(size: [u32; 2], sums: &PixelSums) -> u64 {
    let values = size.map(u64::from).into_iter().chain(sums.values).chain(sums.squares);
    values.fold(0x9E37_79B9_7F4A_7C15, |hash, value| {
        let mixed = (hash ^ value).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        mixed ^ (mixed >> 33)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(num_images: usize, image: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut cuts = Cuts::for_images(num_images);
        let mut lengths = vec![0];
        for idx in 0..num_images {
            let sums = PixelSums { values: [image(idx); 3], squares: [image(idx) * 7; 3] };
            *lengths.last_mut().unwrap() += 1;
            if cuts.ends([8, 8], &sums) {
                lengths.push(0);
            }
        }
        lengths
    }

    #[test]
    fn runs_are_neither_too_many_nor_too_long() {
        for num_images in [10, 2_400, 17_000, 100_000] {
            let mean = Cuts::for_images(num_images).mean;
            let found = lengths(num_images, |idx| idx as u64);
            assert!(found.len() <= 1 + MAX_RUNS * 5 / 4, "{num_images}: {}", found.len());
            let expected = num_images as f64 / mean as f64;
            assert!((found.len() as f64) < 1.3 * expected + 3.0 && (found.len() as f64) > 0.6 * expected);
            assert!(found.iter().all(|&len| len <= 8 * mean));
            for same in 0..40 {
                assert!(lengths(num_images, |_| same).len() <= 1 + num_images.div_ceil(mean / 4));
            }
        }
    }

    #[test]
    fn an_image_more_changes_one_run_or_two() {
        let before = lengths(5_000, |idx| idx as u64);
        let after = lengths(5_000, |idx| match idx {
            0..1_000 => idx as u64,
            1_000 => 1 << 40,
            _ => idx as u64 - 1,
        });
        let same_front = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let same_back = before[..before.len() - 1]
            .iter()
            .rev()
            .zip(after[..after.len() - 1].iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        assert!(before.len() - same_front - same_back <= 4, "{same_front} and {same_back} of {}", before.len());
    }
}
