//! From the files of a folder to a dataset.

use std::path::Path;

use super::{BenchError, Measurement, machine::timed};
use crate::{
    data::{IngestConfig, NoProgress, SourceConfig, ingest::ingest, ingest_config::ResizeConfig},
    sys,
};

/// Which images, and how they are stored.
#[derive(Clone, Copy, Debug)]
pub struct IngestBench<'a> {
    /// What the stage is told.
    pub config: &'a IngestConfig,
    /// Where its paths start.
    pub root: &'a Path,
    /// Timed passes over the source.
    pub steps: u32,
}

/// How a stage stores a folder of images with this shorter side: the folder itself is the root, whatever its name.
pub fn folder_config(shorter_side: u32) -> IngestConfig {
    IngestConfig {
        resize: ResizeConfig::ShorterSide(shorter_side),
        ..IngestConfig::all_of(SourceConfig::ImageFolder(String::new()))
    }
}

impl IngestBench<'_> {
    /// Reads, decodes, resizes and stores every file, as an `ingest` stage does, into a temporary folder; a step is
    /// one pass. `on_step` hears the number of the step, from 1, and its seconds.
    ///
    /// # Errors
    /// Where the folder holds no images or a broken one, or there is no room for temporary files.
    pub fn run(&self, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measurement, BenchError> {
        let (mut seconds, mut num_images) = (vec![], 0);
        for step in 1..=self.steps {
            let out = tempfile::tempdir().map_err(BenchError::Temporary)?;
            let (card, elapsed) = timed(|| ingest(self.config, self.root, out.path(), None, &NoProgress));
            num_images = card?.num_images;
            seconds.push(elapsed);
            on_step(step, elapsed);
        }
        Ok(Measurement::new(seconds, num_images, sys::peak_rss_bytes()))
    }
}
