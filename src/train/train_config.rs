//! Hyperparameters of training. Defaults are the paper's ImageNet recipe (arXiv 2011.10566, section 4.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{backbone::BackboneConfig, predictor::PredictorConfig, projector::ProjectorConfig};

/// Parameters of a `pretrain` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// The network whose output is the features.
    pub backbone: BackboneConfig,
    /// A safetensors file with weights to start from in place of random ones, relative to the project root: of
    /// torchvision's network of the same name, or an `encoder.safetensors` or `simsiam.safetensors` of this program. The
    /// heads start at random. The content of the file counts, not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// The MLP between features and z.
    #[serde(default)]
    pub projector: ProjectorConfig,
    /// The MLP between z and p.
    #[serde(default)]
    pub predictor: PredictorConfig,
    /// Passes over the dataset.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Images in one step, each as two views. The last incomplete batch of an epoch is dropped.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 2, max = 65536))]
    pub batch_size: u32,
    /// Computes a step in this many equal parts, one after the other, and adds their gradients: the memory of a part
    /// instead of that of a batch. The learning rate stays that of the batch. Batch norm sees a part at a time, so this
    /// is not the same training.
    #[serde(default = "default_accumulate")]
    #[schemars(range(min = 1, max = 4096))]
    pub accumulate: u32,
    /// The update rule.
    #[serde(default)]
    pub optimizer: PretrainOptimizerConfig,
    /// How the learning rate goes over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Whether the predictor's learning rate follows the schedule.
    #[serde(default)]
    pub predictor_lr: PredictorLr,
    /// kNN accuracy while training; needs the input `monitor` and labels.
    #[serde(default)]
    pub knn_monitor: KnnMonitorConfig,
    /// How often the whole state of training is saved.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Stop when the loss no longer falls.
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingConfig>,
    /// What to do when the representation collapses.
    #[serde(default)]
    pub collapse: CollapseConfig,
}

fn default_epochs() -> u32 {
    100
}

fn default_batch_size() -> u32 {
    256
}

fn default_accumulate() -> u32 {
    1
}

/// The update rule of pretraining.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PretrainOptimizerConfig {
    /// Stochastic gradient descent with momentum and L2 weight decay on every parameter.
    Sgd(SgdConfig),
}

impl Default for PretrainOptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

/// SGD: lr = base_lr · batch_size / 256.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Learning rate at a batch size of 256.
    #[serde(default = "default_base_lr")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub base_lr: f64,
    /// Momentum.
    #[serde(default = "default_momentum")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// L2 weight decay, added to the gradient.
    #[serde(default = "default_weight_decay")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
}

fn default_base_lr() -> f64 {
    0.05
}

fn default_momentum() -> f64 {
    0.9
}

fn default_weight_decay() -> f64 {
    1e-4
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { base_lr: default_base_lr(), momentum: default_momentum(), weight_decay: default_weight_decay() }
    }
}

/// How the learning rate goes over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// Half a cosine from the full rate to 0.
    Cosine(CosineConfig),
    /// The full rate throughout.
    Constant(ConstantConfig),
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Cosine(CosineConfig::default())
    }
}

/// Half a cosine from the full rate to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CosineConfig {
    /// Epochs of linear rise before the cosine.
    #[serde(default)]
    pub warmup_epochs: u32,
    /// When the rate changes.
    #[serde(default)]
    pub update: ScheduleUpdate,
    /// Reach 0 after this many steps and stay there; 0 means at the end of the last epoch.
    #[serde(default)]
    pub decay_steps: u64,
}

/// When the learning rate changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleUpdate {
    /// At the start of each epoch, as the paper's code does.
    #[default]
    Epoch,
    /// At each step.
    Step,
}

/// The full rate throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConstantConfig {
    /// Epochs of linear rise before the full rate.
    #[serde(default)]
    pub warmup_epochs: u32,
}

/// Whether the predictor's learning rate follows the schedule (paper, section 4.2 and appendix B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PredictorLr {
    /// The full rate throughout.
    #[default]
    Fixed,
    /// As all other parameters.
    Scheduled,
}

/// kNN accuracy of the backbone's features while training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnnMonitorConfig {
    /// Measure after every so many epochs, and after the last. 0 never measures.
    #[serde(default = "default_monitor_every")]
    pub every_epochs: u32,
    /// Number of neighbours that vote.
    #[serde(default = "default_monitor_k")]
    #[schemars(range(min = 1))]
    pub k: u32,
    /// A vote counts exp(cosine similarity / temperature).
    #[serde(default = "default_monitor_temperature")]
    #[schemars(range(min = 0.001))]
    pub temperature: f64,
}

fn default_monitor_every() -> u32 {
    5
}

fn default_monitor_k() -> u32 {
    200
}

fn default_monitor_temperature() -> f64 {
    0.1
}

impl Default for KnnMonitorConfig {
    fn default() -> Self {
        Self {
            every_epochs: default_monitor_every(),
            k: default_monitor_k(),
            temperature: default_monitor_temperature(),
        }
    }
}

/// How often the whole state of training is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Save after every so many epochs, and when interrupted.
    #[serde(default = "default_checkpoint_every")]
    #[schemars(range(min = 1))]
    pub every_epochs: u32,
    /// Keep so many of the newest.
    #[serde(default = "default_checkpoint_keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u32,
}

fn default_checkpoint_every() -> u32 {
    1
}

fn default_checkpoint_keep() -> u32 {
    2
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_epochs: default_checkpoint_every(), keep: default_checkpoint_keep() }
    }
}

/// Stop when the watched value has not improved for `patience` epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingConfig {
    /// Epochs without improvement before stopping.
    #[schemars(range(min = 1))]
    pub patience: u32,
    /// Smaller improvements do not count.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
}

/// What counts as collapse and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollapseConfig {
    /// Collapse is an `embedding_std` below this share of 1/√d at the end of an epoch.
    #[serde(default = "default_collapse_below")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub std_below: f64,
    /// What to do then.
    #[serde(default)]
    pub action: CollapseAction,
}

fn default_collapse_below() -> f64 {
    0.1
}

impl Default for CollapseConfig {
    fn default() -> Self {
        Self { std_below: default_collapse_below(), action: CollapseAction::default() }
    }
}

/// What to do when the representation collapses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollapseAction {
    /// Warn and go on.
    #[default]
    Warn,
    /// Fail the stage; nothing is cached.
    Stop,
}

/// Training of a classifier together with its backbone, for `fine_tune` and `supervised`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierTrainConfig {
    /// Passes over the labelled images.
    #[serde(default = "default_classifier_epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Images in one step.
    #[serde(default = "default_classifier_batch_size")]
    #[schemars(range(min = 2, max = 65536))]
    pub batch_size: u32,
    /// The update rule.
    #[serde(default)]
    pub optimizer: ClassifierOptimizerConfig,
    /// How the learning rate goes over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Share of each class's labels that may be used (stratified, drawn from the seed).
    #[serde(default = "full_fraction")]
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub label_fraction: f64,
    /// Share of the labelled training images kept apart to decide when to stop; never the test set.
    #[serde(default = "default_validation_fraction")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub validation_fraction: f64,
    /// Stop when the validation loss no longer falls, and return to the best epoch.
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingConfig>,
}

fn default_classifier_epochs() -> u32 {
    50
}

fn default_classifier_batch_size() -> u32 {
    64
}

fn full_fraction() -> f64 {
    1.0
}

fn default_validation_fraction() -> f64 {
    0.1
}

impl Default for ClassifierTrainConfig {
    fn default() -> Self {
        Self {
            epochs: default_classifier_epochs(),
            batch_size: default_classifier_batch_size(),
            optimizer: ClassifierOptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            label_fraction: full_fraction(),
            validation_fraction: default_validation_fraction(),
            early_stopping: None,
        }
    }
}

/// Which layers learn in fine-tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TunedLayers {
    /// Backbone and classifier.
    #[default]
    All,
    /// The classifier and the last so many blocks of the backbone: a ResNet's are its residual blocks, the stem is the
    /// first. What comes before them is frozen, its batch norms in evaluation mode.
    LastBlocks(#[schemars(range(min = 1, max = 1000))] u32),
    /// Only the classifier; the backbone is frozen, its batch norms in evaluation mode.
    Classifier,
}

/// The update rule of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassifierOptimizerConfig {
    /// SGD; here too lr = base_lr · batch_size / 256.
    Sgd(SgdConfig),
    /// Adam (Kingma & Ba 2014).
    Adam(AdamConfig),
    /// Adam with weight decay apart from the gradient (Loshchilov & Hutter 2017).
    Adamw(AdamwConfig),
}

impl Default for ClassifierOptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

/// Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Learning rate, not scaled with the batch.
    #[serde(default = "default_adam_lr")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub lr: f64,
    /// Decay rates of the two moments.
    #[serde(default = "default_betas")]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub betas: [f64; 2],
    /// Added to the denominator.
    #[serde(default = "default_eps")]
    #[schemars(range(min = 0.0))]
    pub eps: f64,
    /// L2 weight decay, added to the gradient.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
}

fn default_adam_lr() -> f64 {
    1e-3
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { lr: default_adam_lr(), betas: default_betas(), eps: default_eps(), weight_decay: 0.0 }
    }
}

/// AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamwConfig {
    /// Learning rate, not scaled with the batch.
    #[serde(default = "default_adam_lr")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub lr: f64,
    /// Decay rates of the two moments.
    #[serde(default = "default_betas")]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub betas: [f64; 2],
    /// Added to the denominator.
    #[serde(default = "default_eps")]
    #[schemars(range(min = 0.0))]
    pub eps: f64,
    /// Each step takes the share lr · weight_decay from every parameter.
    #[serde(default = "default_adamw_weight_decay")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
}

fn default_adamw_weight_decay() -> f64 {
    0.01
}

impl Default for AdamwConfig {
    fn default() -> Self {
        let weight_decay = default_adamw_weight_decay();
        Self { lr: default_adam_lr(), betas: default_betas(), eps: default_eps(), weight_decay }
    }
}

/// A linear classifier on the frozen backbone by gradient descent on augmented images, as the literature does it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SgdProbeConfig {
    /// Passes over the labelled images.
    #[serde(default = "default_probe_epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Images in one step.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 2, max = 65536))]
    pub batch_size: u32,
    /// Learning rate at a batch size of 256: lr = base_lr · batch_size / 256.
    #[serde(default = "default_probe_base_lr")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub base_lr: f64,
    /// Momentum.
    #[serde(default = "default_momentum")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// L2 weight decay, added to the gradient.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// How the learning rate goes over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Share of the labelled training images kept apart to decide when to stop; never the test set.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub validation_fraction: f64,
    /// Stop when the validation loss no longer falls, and return to the best epoch.
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingConfig>,
}

fn default_probe_epochs() -> u32 {
    90
}

fn default_probe_base_lr() -> f64 {
    0.1
}

impl SgdProbeConfig {
    /// The same as the training of a classifier.
    pub fn train(&self, label_fraction: f64) -> ClassifierTrainConfig {
        let Self { epochs, batch_size, base_lr, momentum, weight_decay, schedule, validation_fraction, early_stopping } =
            *self;
        ClassifierTrainConfig {
            epochs,
            batch_size,
            optimizer: ClassifierOptimizerConfig::Sgd(SgdConfig { base_lr, momentum, weight_decay }),
            schedule,
            label_fraction,
            validation_fraction,
            early_stopping,
        }
    }
}
