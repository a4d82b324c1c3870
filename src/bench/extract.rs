//! Features of random images that are already in memory.

use super::{BenchError, Measurement, machine::gemm_peak_gflops, measurement::Steps, train::random_images};
use crate::{
    model::{
        backbone::{Backbone, BackboneConfig},
        simsiam::SimSiamError,
    },
    sys,
};

/// The network and the size of its work.
#[derive(Clone, Copy, Debug)]
pub struct ExtractBench {
    /// The network.
    pub backbone: BackboneConfig,
    /// Width and height of an image.
    pub image_size: u32,
    /// Images in one step.
    pub batch_size: u32,
    /// Timed steps, after one that is not timed.
    pub steps: u32,
}

impl ExtractBench {
    /// Forward passes with running statistics, as extraction, the kNN monitor and prediction make them.
    /// `on_step` hears the number of the step, from 1, and its seconds.
    ///
    /// # Errors
    /// Where the network cannot take such images.
    pub fn run(&self, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measurement, BenchError> {
        let backbone = Backbone::build(&self.backbone, 0).map_err(SimSiamError::from)?;
        let (n, image_size) = (self.batch_size as usize, self.image_size as usize);
        let multiply_adds = backbone.multiply_adds(image_size).map_err(SimSiamError::from)?;
        let images = random_images(n, image_size, 0);
        let mut steps = Steps::default();
        for step in 0..=self.steps {
            let features = steps.take(step, on_step, || backbone.forward_eval(&images, n, image_size));
            features.map_err(SimSiamError::from)?;
        }
        let peak_rss = sys::peak_rss_bytes();
        drop(backbone);
        let flop = 2.0 * n as f64 * multiply_adds as f64;
        Ok(steps.measurement(n as u64, peak_rss).with_arithmetic(flop, gemm_peak_gflops()))
    }
}
