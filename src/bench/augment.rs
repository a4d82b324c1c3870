//! From the files of a folder to views.

use std::path::Path;

use rayon::prelude::*;

use super::{BenchError, Measurement, machine::timed};
use crate::{
    augment::{AugmentConfig, Policy, Scratch, ViewKey, preset::Preset},
    data::{NoProgress, decode::DecodeOptions, image_folder::ImageFolder, image_source::ImageSource as _},
    sys,
};

/// Images whose views are in memory at once.
const BATCH: usize = 64;

/// Which images, and which views of them.
#[derive(Clone, Copy, Debug)]
pub struct AugmentBench<'a> {
    /// The folder.
    pub images: &'a Path,
    /// Width and height of a view.
    pub image_size: u32,
    /// Views of each image.
    pub views: u32,
    /// Timed passes over the folder.
    pub steps: u32,
}

impl AugmentBench<'_> {
    /// Reads and decodes every file and makes its views by the paper's policy, a batch at a time; a step is one
    /// pass over the folder. One batch before is not timed. `on_step` hears the number of the step, from 1, and
    /// its seconds.
    ///
    /// # Errors
    /// Where the folder holds no images or a broken one.
    pub fn run(&self, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measurement, BenchError> {
        let source = ImageFolder::scan(self.images, &[], &NoProgress)?;
        let policy = Policy::build(&paper_policy(self.image_size))?;
        let indices: Vec<usize> = (0..source.items().len()).collect();
        let stride = 3 * policy.image_size() * policy.image_size();
        let per_image = self.views as usize * stride;
        let mut buffer = vec![0.0; BATCH.min(indices.len()) * per_image];
        let mut pass = |epoch: u32, indices: &[usize]| {
            indices.chunks(BATCH).try_for_each(|batch| {
                buffer.par_chunks_exact_mut(per_image).zip(batch).try_for_each_init(
                    Scratch::default,
                    |scratch, (views, &idx)| {
                        let image = source
                            .decode(idx, &DecodeOptions::default())
                            .map_err(|reason| BenchError::Image { file: source.items()[idx].name.clone(), reason })?;
                        for (view, out) in (0..).zip(views.chunks_exact_mut(stride)) {
                            let key = ViewKey { seed: 0, epoch, image_idx: idx as u64, view };
                            policy.view(image.as_ref(), key, scratch, out);
                        }
                        Ok(())
                    },
                )
            })
        };
        pass(0, &indices[..BATCH.min(indices.len())])?;
        let mut seconds = vec![];
        for step in 1..=self.steps {
            let (done, elapsed) = timed(|| pass(step, &indices));
            done.map_err(|error: BenchError| error)?;
            seconds.push(elapsed);
            on_step(step, elapsed);
        }
        Ok(Measurement::new(seconds, indices.len() as u64, sys::peak_rss_bytes()))
    }
}

/// The paper's augmentation.
pub(super) fn paper_policy(image_size: u32) -> AugmentConfig {
    AugmentConfig { image_size, ..Preset::SimsiamImagenet.config() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_a_broken_file_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png", "c.png"] {
            let image = image::RgbImage::from_fn(20, 12, |x, y| image::Rgb([x as u8, y as u8, 7]));
            image.save_with_format(folder.path().join(name), image::ImageFormat::Png).unwrap();
        }
        let bench = AugmentBench { images: folder.path(), image_size: 8, views: 2, steps: 2 };
        let mut heard = vec![];
        let measurement = bench.run(&mut |step, _| heard.push(step)).unwrap();
        assert_eq!((measurement.images_per_step, measurement.step_seconds.len(), &heard[..]), (3, 2, &[1, 2][..]));
        assert!(measurement.images_per_second > 0.0 && measurement.arithmetic.is_none());

        std::fs::write(folder.path().join("b.png"), b"\x89PNG").unwrap();
        let error = bench.run(&mut |_, _| {}).unwrap_err();
        assert!(error.to_string().starts_with("`b.png` cannot be used: "), "{error}");
    }
}
