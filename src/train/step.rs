//! One step of pretraining. The loop and the benchmark call this same function, so what is measured is what trains.

use super::{optimizer::Sgd, train_config::SgdConfig};
use crate::{
    model::simsiam::{SimSiam, SimSiamError, Views},
    profile::{Work, enter_layer, span},
};

/// SGD for each part of the network: the predictor may have a rate of its own.
pub struct SimSiamSgd {
    /// Over the backbone's values.
    pub backbone: Sgd,
    /// Over the projector's.
    pub projector: Sgd,
    /// Over the predictor's.
    pub predictor: Sgd,
}

impl SimSiamSgd {
    /// No velocity yet.
    pub fn new(config: SgdConfig, model: &SimSiam) -> Self {
        Self {
            backbone: Sgd::new(config, model.backbone.num_parameters()),
            projector: Sgd::new(config, model.projector.parameters.values().len()),
            predictor: Sgd::new(config, model.predictor.parameters.values().len()),
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

/// Forward, backward and update. The batch is computed in `parts` equal parts whose gradients are averaged. Where the
/// loss is not finite nothing is updated; that is for the caller to see.
///
/// # Errors
/// As [`SimSiam::forward_backward`], and where the batch cannot be cut into equal parts.
pub fn take_step(
    model: &mut SimSiam,
    sgd: &mut SimSiamSgd,
    views: &Views<'_>,
    parts: usize,
    rates: StepRates,
) -> Result<StepMetrics, SimSiamError> {
    let share = 1.0 / parts as f64;
    let mut metrics = StepMetrics { loss: 0.0, embedding_std: 0.0 };
    model.zero_gradients();
    for part in 0..parts {
        let output = model.forward_backward(&views.part(part, parts)?, share as f32)?;
        metrics.loss += f64::from(output.loss) * share;
        metrics.embedding_std += output.embedding_std * share;
        if !metrics.loss.is_finite() {
            return Ok(metrics);
        }
    }
    enter_layer("update");
    span(Work::Update, 0.0, || {
        let (values, gradients) = model.backbone.values_and_gradients_mut();
        sgd.backbone.step(values, gradients, rates.encoder);
        model.projector.parameters.update(|values, gradients| sgd.projector.step(values, gradients, rates.encoder));
        model.predictor.parameters.update(|values, gradients| sgd.predictor.step(values, gradients, rates.predictor));
    });
    Ok(metrics)
}

#[cfg(test)]
mod tests {
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
        let views = Views { x: vec![&x1, &x2], n: 4, image_size: 16 };
        let metrics = take_step(model, &mut sgd, &views, 1, StepRates { encoder: 0.1, predictor: 0.1 }).unwrap();
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
        let (_, _, last) = model.projector.tensors().pop().unwrap();
        model.projector.parameters.get_mut(last).fill(f32::NAN);
        let (metrics, moved, _) = step(&mut model);
        assert!(metrics.loss.is_nan() && moved.is_empty(), "{moved:?}");
    }

    /// Plain gradient descent from the same weights, on parts whose batch norms see the same images.
    #[test]
    fn equal_parts_move_the_weights_like_the_whole() {
        let after = |copies: usize, parts: usize| {
            let mut model = model();
            let config = SgdConfig { base_lr: 0.1, momentum: 0.0, weight_decay: 0.0 };
            let mut sgd = SimSiamSgd::new(config, &model);
            let x: Vec<f32> = (0..4 * 16 * 16 * 3).map(|idx| (idx * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
            let (x1, x2) = (x.repeat(copies), x.iter().rev().copied().collect::<Vec<f32>>().repeat(copies));
            let views = Views { x: vec![&x1, &x2], n: 4 * copies, image_size: 16 };
            let rates = StepRates { encoder: 0.1, predictor: 0.1 };
            let metrics = take_step(&mut model, &mut sgd, &views, parts, rates).unwrap();
            (metrics, model.backbone.values().to_vec())
        };
        let ((whole, whole_values), (parts, values)) = (after(1, 1), after(3, 3));
        assert!((whole.loss - parts.loss).abs() < 1e-6);
        let off = whole_values.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{off}");
    }

    #[test]
    fn a_batch_that_cannot_be_cut_is_refused() {
        let mut model = model();
        let mut sgd = SimSiamSgd::new(SgdConfig::default(), &model);
        let x = vec![0.0; 4 * 16 * 16 * 3];
        let views = Views { x: vec![&x, &x], n: 4, image_size: 16 };
        let rates = StepRates { encoder: 0.1, predictor: 0.1 };
        assert!(take_step(&mut model, &mut sgd, &views, 3, rates).is_err());
    }
}
