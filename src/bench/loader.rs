//! From the images of a dataset artifact to batches of views, as pretraining draws them.

use std::{path::Path, sync::Arc};

use super::{BenchError, Measurement, augment::paper_policy, machine::timed};
use crate::{
    augment::{AugmentConfig, Policy},
    data::{Dataset, loader::BatchLoader},
    sys,
};

/// Which images, and which views of them.
#[derive(Clone, Copy, Debug)]
pub struct LoaderBench<'a> {
    /// The folder of the dataset.
    pub dataset: &'a Path,
    /// Width and height of a view.
    pub image_size: u32,
    /// Views of each image.
    pub views: u32,
    /// Images in a batch.
    pub batch_size: u32,
    /// Timed epochs.
    pub steps: u32,
}

/// What was measured.
#[derive(Debug)]
pub struct LoaderMeasurement {
    /// Seconds until the dataset was open.
    pub open_seconds: f64,
    /// The epochs.
    pub epochs: Measurement,
}

impl LoaderBench<'_> {
    /// Opens the dataset and draws all batches of an epoch by the paper's policy, handing each back at once, as often as
    /// there are steps. One batch before is not timed. `on_step` hears the number of the step, from 1, and its seconds.
    ///
    /// # Errors
    /// Where there is no such dataset or it does not fill a batch.
    pub fn run(&self, on_step: &mut dyn FnMut(u32, f64)) -> Result<LoaderMeasurement, BenchError> {
        let (dataset, open_seconds) = timed(|| Dataset::open(self.dataset));
        let policy = AugmentConfig { views: self.views, ..paper_policy(self.image_size) };
        let policy = Arc::new(Policy::build(&policy)?);
        let batch_size = self.batch_size as usize;
        let loader = BatchLoader::new(Arc::new(dataset?), policy, 0, batch_size)?;
        let draw = |epoch: u32, limit: usize| {
            loader.epoch(epoch).take(limit).for_each(|batch| loader.recycle(batch));
        };
        draw(0, 1);
        let mut seconds = vec![];
        for step in 1..=self.steps {
            let ((), elapsed) = timed(|| draw(step, usize::MAX));
            seconds.push(elapsed);
            on_step(step, elapsed);
        }
        let num_images = loader.num_batches() * batch_size;
        Ok(LoaderMeasurement {
            open_seconds,
            epochs: Measurement::new(seconds, num_images as u64, sys::peak_rss_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{augment::ImageRef, data::store_writer::StoreWriter};

    #[test]
    fn whole_batches_of_a_dataset_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = StoreWriter::create(dir.path(), vec![]).unwrap();
        for look in 0..7 {
            let rgb = vec![look * 30; 3 * 20 * 12];
            writer.push(&look.to_string(), ImageRef::new(20, 12, &rgb).unwrap(), None).unwrap();
        }
        writer.finish(vec![]).unwrap();
        let bench = LoaderBench { dataset: dir.path(), image_size: 8, views: 2, batch_size: 3, steps: 2 };
        let mut heard = vec![];
        let LoaderMeasurement { open_seconds, epochs } = bench.run(&mut |step, _| heard.push(step)).unwrap();
        assert_eq!((epochs.images_per_step, &heard[..]), (6, &[1, 2][..]));
        assert!(open_seconds > 0.0 && epochs.images_per_second > 0.0);

        let error = LoaderBench { batch_size: 8, ..bench }.run(&mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("a batch of 8 cannot be filled from 7 images"), "{error}");
        assert!(LoaderBench { dataset: &dir.path().join("none"), ..bench }.run(&mut |_, _| {}).is_err());
    }
}
