//! One step of pretraining. The loop and the benchmark call this same function, so what is measured is what trains.

use super::{
    optimizer::{FlatSgd, HeadSgd},
    train_config::SgdConfig,
};
use crate::model::simsiam::{SimSiam, SimSiamError, Views};

/// SGD for each part of the network: the predictor may have a rate of its own.
pub struct SimSiamSgd {
    /// Over the backbone's flat buffer.
    pub backbone: FlatSgd,
    /// Over the projector's matrices.
    pub projector: HeadSgd,
    /// Over the predictor's matrices.
    pub predictor: HeadSgd,
}

impl SimSiamSgd {
    /// No velocity yet.
    pub fn new(config: SgdConfig, model: &SimSiam) -> Self {
        Self {
            backbone: FlatSgd::new(config, model.backbone.num_parameters()),
            projector: HeadSgd::new(config),
            predictor: HeadSgd::new(config),
        }
    }
}

/// Learning rates of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRates {
    /// Of backbone and projector.
    pub encoder: f64,
    /// Of the predictor.
    pub predictor: f64,
}

/// What one step says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// The symmetrised loss before the update, in [−1, 1].
    pub loss: f64,
    /// See [`crate::model::simsiam::StepOutput`].
    pub embedding_std: f64,
}

/// Forward, backward and update. Where the loss is not finite nothing is updated; that is for the caller to see.
///
/// # Errors
/// As [`SimSiam::forward_backward`].
pub fn take_step(
    model: &mut SimSiam,
    sgd: &mut SimSiamSgd,
    views: Views<'_>,
    rates: StepRates,
) -> Result<StepMetrics, SimSiamError> {
    model.backbone.zero_gradients();
    let mut output = model.forward_backward(views)?;
    let metrics = StepMetrics { loss: f64::from(output.loss), embedding_std: output.embedding_std };
    if !metrics.loss.is_finite() {
        return Ok(metrics);
    }
    let (values, gradients) = model.backbone.values_and_gradients_mut();
    sgd.backbone.step(values, gradients, rates.encoder);
    sgd.projector.step(&mut model.projector, &mut output.gradients, rates.encoder)?;
    sgd.predictor.step(&mut model.predictor, &mut output.gradients, rates.predictor)?;
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::HasShape as _;

    use super::*;
    use crate::model::{
        backbone::{BackboneConfig, backbone_config::DarknetTinyConfig},
        predictor::PredictorConfig,
        projector::ProjectorConfig,
    };

    fn model() -> SimSiam {
        let backbone = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
        let projector = ProjectorConfig { hidden_dim: 8, output_dim: 8, ..ProjectorConfig::default() };
        SimSiam::build(&backbone, &projector, &PredictorConfig { hidden_dim: 4 }, 0).unwrap()
    }

    /// Takes a step; which weights moved and which did not.
    fn step(model: &mut SimSiam) -> (StepMetrics, Vec<String>, Vec<String>) {
        let mut sgd = SimSiamSgd::new(SgdConfig::default(), model);
        let x1: Vec<f32> = (0..4 * 16 * 16 * 3).map(|idx| (idx * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let x2: Vec<f32> = x1.iter().rev().copied().collect();
        let before = model.state_dict();
        let views = Views { x1: &x1, x2: &x2, n: 4, image_size: 16 };
        let metrics = take_step(model, &mut sgd, views, StepRates { encoder: 0.1, predictor: 0.1 }).unwrap();
        let (mut moved, mut still) = (vec![], vec![]);
        for (before, after) in before.iter().zip(model.state_dict()) {
            if before.name.ends_with("weight") {
                // As text, where NaN equals NaN.
                let same = format!("{before:?}") == format!("{after:?}");
                if same { &mut still } else { &mut moved }.push(after.name);
            }
        }
        (metrics, moved, still)
    }

    #[test]
    fn every_weight_moves() {
        let (metrics, moved, still) = step(&mut model());
        assert!(metrics.loss.abs() <= 1.0);
        assert!(moved.len() > 10 && still.is_empty(), "{still:?}");
    }

    #[test]
    fn a_loss_that_is_no_number_updates_nothing() {
        let mut model = model();
        let last = model.projector.parameters_mut().pop().unwrap();
        let (rows, columns) = *last.shape();
        last.copy_from(&vec![f32::NAN; rows * columns]);
        let (metrics, moved, _) = step(&mut model);
        assert!(metrics.loss.is_nan() && moved.is_empty(), "{moved:?}");
    }
}
