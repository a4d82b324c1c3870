//! A softmax layer on a backbone, trained on labels: `fine_tune` (from pretrained weights) and `supervised` (from
//! scratch) are the same loop.

use dfdx::prelude::{AsArray, Backward, Cpu, PutTape, SplitTape, Trace};

use super::{
    TrainError,
    early_stopping::{EarlyStopping, Progress},
    optimizer::{Adam, Sgd},
    schedule::{Schedule, linear_scaled_lr},
    train_config::{ClassifierOptimizerConfig, ClassifierTrainConfig, EarlyStoppingConfig, TunedLayers},
};
use crate::{
    model::{
        backbone::Backbone,
        head::Head,
        simsiam::SimSiamError,
        state::{StateEntry, StateMap},
    },
    ops::{Matrix, cross_entropy::cross_entropy, matrix_from_values, matrix_values},
    seed::seeded_rng,
};

/// Labelled images as network input.
pub struct LabelledBatch {
    /// [n, size, size, 3]
    pub images: Vec<f32>,
    /// `[n]`
    pub labels: Vec<u32>,
}

/// Where labelled batches come from.
pub trait LabelledSource {
    /// Images to learn from.
    fn num_images(&self) -> usize;
    /// Width and height.
    fn image_size(&self) -> usize;
    /// The full batches of an epoch (from 0), shuffled and augmented; the incomplete last one is left out.
    fn epoch(&self, epoch: u32, batch_size: usize) -> Box<dyn Iterator<Item = LabelledBatch> + '_>;
    /// Images kept apart for validation, in order and not augmented; none where there are none.
    fn validation(&self) -> Box<dyn Iterator<Item = LabelledBatch> + '_>;
}

/// Who follows the training and may stop it.
pub trait ClassifierHost {
    /// A step is done: steps so far, steps in all, the loss.
    fn step(&mut self, steps: u64, total_steps: u64, loss: f64);
    /// Something worth a line.
    fn info(&mut self, message: &str);
    /// Whether to stop after this step.
    fn is_cancelled(&self) -> bool;
}

/// One epoch of the training curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// From 1.
    pub epoch: u32,
    /// Mean cross-entropy of the training batches.
    pub train_loss: f64,
    /// Cross-entropy and accuracy on the validation images, if there are any.
    pub validation: Option<(f64, f64)>,
}

/// A backbone and a softmax layer.
pub struct Classifier {
    /// The network whose output is the features.
    pub backbone: Backbone,
    head: Head,
    device: Cpu,
    num_classes: usize,
}

/// The same rule for the backbone and for the softmax layer.
enum Optimizer {
    Sgd { backbone: Sgd, head: Sgd },
    Adam { backbone: Adam, head: Adam },
}

impl Classifier {
    /// A new softmax layer on this backbone.
    pub fn new(backbone: Backbone, num_classes: usize, seed: u64) -> Self {
        let device = Cpu::default();
        let rng = seeded_rng(seed, "classifier weights", &[]);
        let head = Head::new("classifier", rng).linear(backbone.feature_dim(), num_classes, true);
        Self { backbone, head, device, num_classes }
    }

    /// Class probabilities [n, classes] with the running statistics.
    ///
    /// # Errors
    /// Where the images do not have the length that n and `image_size` say.
    pub fn probabilities(&self, images: &[f32], n: usize, image_size: usize) -> Result<Vec<f32>, TrainError> {
        let features = self.backbone.forward_eval(images, n, image_size).map_err(SimSiamError::from)?;
        let features = matrix_from_values(&self.device, features, n, self.backbone.feature_dim());
        let logits = self.head.forward_frozen(features).map_err(SimSiamError::from)?;
        let mut probabilities = matrix_values(&logits);
        for row in probabilities.chunks_exact_mut(self.num_classes) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for x in row.iter_mut() {
                *x = (*x - largest).exp();
            }
            let sum: f32 = row.iter().sum();
            for x in row {
                *x /= sum;
            }
        }
        Ok(probabilities)
    }

    /// Weight (`classifier.0.weight` [classes, features]) and bias of the softmax layer.
    pub fn head_state(&self) -> Vec<StateEntry> {
        self.head.state_dict()
    }

    /// Takes the weights of a softmax layer, as [`Self::head_state`] gives them.
    ///
    /// # Errors
    /// Where they are not those of this layer.
    pub fn load_head_state(&mut self, entries: &[StateEntry]) -> Result<(), TrainError> {
        Ok(self.head.load_state_dict(&StateMap::new(entries)).map_err(SimSiamError::from)?)
    }

    /// Trains the softmax layer and those layers of the backbone. Where `early_stopping` is set the state of the best
    /// epoch is put back at the end.
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn train(
        &mut self,
        config: &ClassifierTrainConfig,
        layers: TunedLayers,
        source: &dyn LabelledSource,
        host: &mut dyn ClassifierHost,
    ) -> Result<Vec<CurvePoint>, TrainError> {
        let batch_size = (config.batch_size as usize).min(source.num_images());
        if batch_size < 2 {
            return Err(TrainError::TooFewImages { found: source.num_images(), batch_size: 2 });
        }
        let steps_per_epoch = (source.num_images() / batch_size) as u64;
        self.backbone.train_last_blocks(match layers {
            TunedLayers::All => usize::MAX,
            TunedLayers::LastBlocks(blocks) => blocks as usize,
            TunedLayers::Classifier => 0,
        });
        let frozen_backbone = layers == TunedLayers::Classifier;
        let (lr, mut optimizer) = self.optimizer(config, batch_size);
        let schedule = Schedule::new(config.schedule, lr, config.epochs, steps_per_epoch);
        let mut stopping = config.early_stopping.map(EarlyStopping::new);
        // Remembers the best epoch even where nothing stops early.
        let mut best = EarlyStopping::new(EarlyStoppingConfig { patience: u32::MAX, min_delta: 0.0 });
        let mut best_state = None;
        let mut curve = vec![];
        let mut steps = 0;
        for epoch in 0..config.epochs {
            let mut loss_sum = 0.0;
            for batch in source.epoch(epoch, batch_size) {
                let loss =
                    self.step(&batch, source.image_size(), frozen_backbone, schedule.lr(steps), &mut optimizer)?;
                steps += 1;
                if !loss.is_finite() {
                    return Err(TrainError::NotFinite { epoch: epoch + 1, step: steps });
                }
                loss_sum += loss;
                host.step(steps, u64::from(config.epochs) * steps_per_epoch, loss);
                if host.is_cancelled() {
                    return Err(TrainError::Cancelled);
                }
            }
            let validation = self.validate(source)?;
            let point = CurvePoint { epoch: epoch + 1, train_loss: loss_sum / steps_per_epoch as f64, validation };
            curve.push(point);
            let watched = validation.map_or(point.train_loss, |(loss, _)| loss);
            if stopping.is_some() && best.observe(watched) == Progress::Improved {
                best_state = Some((self.backbone.state_dict(), self.head.state_dict()));
            }
            if stopping.as_mut().is_some_and(|stopping| stopping.observe(watched) == Progress::Stop) {
                host.info(&format!("early stopping after epoch {}: the loss no longer falls", epoch + 1));
                break;
            }
        }
        if let Some((backbone, head)) = best_state {
            self.backbone.load_state_dict(&backbone).map_err(SimSiamError::from)?;
            self.load_head_state(&head)?;
        }
        Ok(curve)
    }

    fn optimizer(&self, config: &ClassifierTrainConfig, batch_size: usize) -> (f64, Optimizer) {
        let backbone = self.backbone.num_parameters() - self.backbone.first_trained_value();
        let head = self.head.parameters.values().len();
        match config.optimizer {
            ClassifierOptimizerConfig::Sgd(sgd) => (
                linear_scaled_lr(sgd.base_lr, batch_size as u32),
                Optimizer::Sgd { backbone: Sgd::new(sgd, backbone), head: Sgd::new(sgd, head) },
            ),
            ClassifierOptimizerConfig::Adam(adam) => {
                let optimizer = Optimizer::Adam { backbone: Adam::new(adam, backbone), head: Adam::new(adam, head) };
                (adam.lr, optimizer)
            }
            ClassifierOptimizerConfig::Adamw(adamw) => {
                let (backbone, head) = (Adam::decoupled(adamw, backbone), Adam::decoupled(adamw, head));
                (adamw.lr, Optimizer::Adam { backbone, head })
            }
        }
    }

    fn step(
        &mut self,
        batch: &LabelledBatch,
        image_size: usize,
        frozen_backbone: bool,
        lr: f64,
        optimizer: &mut Optimizer,
    ) -> Result<f64, TrainError> {
        let n = batch.labels.len();
        let features = if frozen_backbone {
            self.backbone.forward_eval(&batch.images, n, image_size)
        } else {
            self.backbone.forward_train(&[&batch.images], n, image_size)
        };
        let features = features.map_err(SimSiamError::from)?;
        let features: Matrix = matrix_from_values(&self.device, features, n, self.backbone.feature_dim());
        self.head.parameters.zero_gradients();
        let logits = self.head.forward(features.leaky_trace(), 1).map_err(SimSiamError::from)?;
        let (loss, tape) = cross_entropy(logits, &batch.labels).map_err(SimSiamError::from)?.split_tape();
        let value = f64::from(loss.array());
        let gradients = loss.put_tape(tape).try_backward().map_err(SimSiamError::from)?;
        if !frozen_backbone {
            self.backbone.zero_gradients();
            let grad_features = matrix_values(&gradients.get(&features));
            self.backbone.backward(&grad_features).map_err(SimSiamError::from)?;
            let first = self.backbone.first_trained_value();
            let (values, backbone_gradients) = self.backbone.values_and_gradients_mut();
            let (values, backbone_gradients) = (&mut values[first..], &backbone_gradients[first..]);
            match optimizer {
                Optimizer::Sgd { backbone, .. } => backbone.step(values, backbone_gradients, lr),
                Optimizer::Adam { backbone, .. } => backbone.step(values, backbone_gradients, lr),
            }
        }
        self.head.parameters.update(|values, gradients| match optimizer {
            Optimizer::Sgd { head, .. } => head.step(values, gradients, lr),
            Optimizer::Adam { head, .. } => head.step(values, gradients, lr),
        });
        Ok(value)
    }

    /// Cross-entropy and accuracy on the validation images.
    fn validate(&self, source: &dyn LabelledSource) -> Result<Option<(f64, f64)>, TrainError> {
        let (mut loss, mut hits, mut n) = (0.0, 0_u64, 0_u64);
        for batch in source.validation() {
            let probabilities = self.probabilities(&batch.images, batch.labels.len(), source.image_size())?;
            for (row, label) in probabilities.chunks_exact(self.num_classes).zip(&batch.labels) {
                let label = *label as usize;
                loss -= f64::from(row[label].max(f32::MIN_POSITIVE)).ln();
                hits += u64::from(row.iter().enumerate().all(|(idx, p)| idx == label || *p < row[label]));
                n += 1;
            }
        }
        Ok((n > 0).then(|| (loss / n as f64, hits as f64 / n as f64)))
    }
}
