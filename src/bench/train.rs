//! Training steps, on random images that are already in memory or on those of a dataset.

use super::{BenchError, Measurement, machine::gemm_peak_gflops, measurement::Steps};
use crate::{
    model::{
        backbone::BackboneConfig,
        predictor::PredictorConfig,
        projector::ProjectorConfig,
        simsiam::{SimSiam, Views},
    },
    seed::{seeded_rng, uniform},
    sys,
    train::{
        pretrain::Batch,
        schedule::linear_scaled_lr,
        step::{SimSiamSgd, StepRates, take_step},
        train_config::SgdConfig,
    },
};

/// The network and the size of its work.
#[derive(Clone, Copy, Debug)]
pub struct TrainBench {
    /// The backbone.
    pub backbone: BackboneConfig,
    /// The projector.
    pub projector: ProjectorConfig,
    /// The predictor.
    pub predictor: PredictorConfig,
    /// The update rule.
    pub sgd: SgdConfig,
    /// Views of each image.
    pub views: usize,
    /// Parts that a step is computed in.
    pub parts: u32,
    /// Width and height of a view.
    pub image_size: u32,
    /// Images in one step.
    pub batch_size: u32,
    /// Timed steps, after one that is not timed.
    pub steps: u32,
}

/// Lends the next batch to the work of a step, if there is one.
pub type NextBatch<'a> = dyn FnMut(&mut dyn FnMut(&Batch)) + 'a;

impl TrainBench {
    /// The paper's projector and predictor on a backbone, and the update rule of its CIFAR recipe.
    pub fn of(backbone: BackboneConfig, image_size: u32, batch_size: u32, steps: u32) -> Self {
        Self {
            backbone,
            projector: ProjectorConfig::default(),
            predictor: PredictorConfig::default(),
            sgd: SgdConfig { base_lr: 0.05, momentum: 0.9, weight_decay: 5e-4 },
            views: 2,
            parts: 1,
            image_size,
            batch_size,
            steps,
        }
    }

    /// Forward, backward and update of two views a step, by the function that pretraining calls.
    /// `on_step` hears the number of the step, from 1, and its seconds.
    ///
    /// # Errors
    /// Where the network cannot take such images.
    pub fn run(&self, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measurement, BenchError> {
        let (n, image_size) = (self.batch_size as usize, self.image_size as usize);
        let views = (0..self.views as u64).map(|view| random_images(n, image_size, view));
        let batch = Batch { x: views.collect::<Vec<_>>().concat() };
        self.run_on(&mut |work| work(&batch), on_step)
    }

    /// The same on batches that `next` lends, as an epoch of training gets them. The time until it does belongs to the
    /// step.
    ///
    /// # Errors
    /// Where the network cannot take such images.
    pub fn run_on(
        &self,
        next: &mut NextBatch<'_>,
        on_step: &mut dyn FnMut(u32, f64),
    ) -> Result<Measurement, BenchError> {
        let mut model = SimSiam::build(&self.backbone, &self.projector, &self.predictor, 0)?;
        let (backbone, heads) = model.multiply_adds(self.image_size as usize)?;
        let mut sgd = SimSiamSgd::new(self.sgd, &model);
        let (n, image_size) = (self.batch_size as usize, self.image_size as usize);
        let lr = linear_scaled_lr(self.sgd.base_lr, self.batch_size);
        let rates = StepRates { encoder: lr, predictor: lr };
        let mut steps = Steps::default();
        for step in 0..=self.steps {
            let metrics = steps.take(step, on_step, || {
                let mut result = None;
                next(&mut |batch| {
                    let x = batch.x.chunks_exact(n * image_size * image_size * 3).collect();
                    let views = Views { x, n, image_size };
                    result = Some(take_step(&mut model, &mut sgd, &views, self.parts as usize, rates));
                });
                result.transpose()
            })?;
            let Some(metrics) = metrics else { break };
            if !metrics.loss.is_finite() {
                return Err(BenchError::NotFinite { steps: step + 1 });
            }
        }
        let peak_rss = sys::peak_rss_bytes();
        drop((model, sgd));
        // Two operations a multiply-add, and backward costs twice what forward does.
        let flop = 2.0 * self.views as f64 * 3.0 * n as f64 * (backbone + heads) as f64;
        Ok(steps.measurement(n as u64, peak_rss).with_arithmetic(flop, gemm_peak_gflops()))
    }
}

/// Noise [n, `image_size`, `image_size`, 3] with the mean and deviation of normalised pixels.
pub(super) fn random_images(n: usize, image_size: usize, view: u64) -> Vec<f32> {
    let mut rng = seeded_rng(0, "bench images", &[view]);
    let half_width = 3.0_f64.sqrt();
    (0..n * image_size * image_size * 3).map(|_| uniform(&mut rng, -half_width, half_width) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backbone::backbone_config::DarknetTinyConfig;

    #[test]
    fn noise_has_the_moments_of_pixels() {
        let images = random_images(4, 32, 0);
        let mean = images.iter().sum::<f32>() / images.len() as f32;
        let square = images.iter().map(|x| x * x).sum::<f32>() / images.len() as f32;
        assert!(mean.abs() < 0.05 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        assert_ne!(images, random_images(4, 32, 1));
    }

    #[test]
    fn images_that_are_too_small_are_refused() {
        let backbone = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
        let bench = TrainBench::of(backbone, 4, 2, 1);
        assert!(matches!(bench.run(&mut |_, _| {}), Err(BenchError::Model(_))));
    }
}
