//! Hyperparameters of extraction and of the classifiers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::backbone::BackboneConfig,
    train::train_config::{ClassifierTrainConfig, SgdProbeConfig, TunedLayers},
};

/// Parameters of an `extract` stage: features of every image from the frozen backbone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractConfig {
    /// What to compute beside the pretrained features, so that classifiers can say what pretraining bought.
    #[serde(default = "default_baselines")]
    pub baselines: Vec<Baseline>,
    /// Raw pixels are averaged down to a square of this size.
    #[serde(default = "default_raw_pixels_size")]
    #[schemars(range(min = 1, max = 64))]
    pub raw_pixels_size: u32,
}

fn default_baselines() -> Vec<Baseline> {
    vec![Baseline::Untrained, Baseline::RawPixels]
}

fn default_raw_pixels_size() -> u32 {
    8
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { baselines: default_baselines(), raw_pixels_size: default_raw_pixels_size() }
    }
}

/// A representation that needed no pretraining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The same backbone with the random weights of the encoder's seed, also where pretraining had an `init`.
    Untrained,
    /// The pixels themselves, averaged down to a small square.
    RawPixels,
}

impl Baseline {
    /// The name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Untrained => "untrained",
            Self::RawPixels => "raw_pixels",
        }
    }
}

/// Parameters of a `fit` stage: which classifier to fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FitConfig {
    /// Multinomial logistic regression on frozen embeddings.
    LinearProbe(LinearProbeConfig),
    /// Weighted vote of the nearest neighbours.
    Knn(KnnConfig),
    /// Train a classifier and the pretrained backbone together.
    FineTune(FineTuneConfig),
    /// The same network from scratch: the baseline that shows what pretraining bought.
    Supervised(SupervisedConfig),
}

impl FitConfig {
    /// The name of the protocol, as the table of stage kinds has it.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::LinearProbe(config) if config.sgd.is_some() => "linear_probe.sgd",
            Self::LinearProbe(_) => "linear_probe",
            Self::Knn(_) => "knn",
            Self::FineTune(_) => "fine_tune",
            Self::Supervised(_) => "supervised",
        }
    }
}

/// Multinomial logistic regression, fitted with L-BFGS unless `sgd` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearProbeConfig {
    /// Most iterations of L-BFGS.
    #[serde(default = "default_max_iter")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_iter: u32,
    /// Strength of the penalty: mean cross-entropy + l2 · ‖weights‖².
    #[serde(default = "default_l2")]
    #[schemars(range(min = 0.0))]
    pub l2: f64,
    /// Choose `l2` by cross-validation on the training embeddings, for each representation on its own; the field `l2` is
    /// then not used.
    #[serde(default)]
    pub cross_validation: Option<CrossValidationConfig>,
    /// Stop when no component of the gradient is larger.
    #[serde(default = "default_tolerance")]
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
    /// How embeddings are scaled first.
    #[serde(default)]
    pub scaling: FeatureScaling,
    /// Share of each class's labels that may be used (stratified, drawn from the seed).
    #[serde(default = "full_fraction")]
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub label_fraction: f64,
    /// Instead of L-BFGS on stored embeddings: gradient descent on augmented images, as the literature does it. The
    /// inputs are then those of `fine_tune`, and of the fields above only `label_fraction` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sgd: Option<SgdProbeConfig>,
}

fn default_max_iter() -> u32 {
    500
}

fn default_l2() -> f64 {
    1e-4
}

fn default_tolerance() -> f64 {
    1e-5
}

fn full_fraction() -> f64 {
    1.0
}

impl Default for LinearProbeConfig {
    fn default() -> Self {
        Self {
            max_iter: default_max_iter(),
            l2: default_l2(),
            cross_validation: None,
            tolerance: default_tolerance(),
            scaling: FeatureScaling::default(),
            label_fraction: full_fraction(),
            sgd: None,
        }
    }
}

/// Stratified k-fold cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossValidationConfig {
    /// Parts of the training images; each is held out once.
    #[serde(default = "default_folds")]
    #[schemars(range(min = 2, max = 20))]
    pub folds: u32,
    /// The penalties to choose from.
    #[serde(default = "default_candidates")]
    #[schemars(length(min = 1, max = 32), inner(range(min = 0.0)))]
    pub l2: Vec<f64>,
}

fn default_folds() -> u32 {
    5
}

fn default_candidates() -> Vec<f64> {
    vec![1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
}

impl Default for CrossValidationConfig {
    fn default() -> Self {
        Self { folds: default_folds(), l2: default_candidates() }
    }
}

/// How embeddings are scaled before a classifier sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureScaling {
    /// Each dimension to mean 0 and deviation 1 over the training embeddings.
    #[default]
    Standardize,
    /// Each row to length 1.
    L2Normalize,
    /// As they are.
    None,
}

/// k nearest neighbours by cosine similarity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnnConfig {
    /// Number of neighbours that vote.
    #[serde(default = "default_k")]
    #[schemars(range(min = 1))]
    pub k: u32,
    /// A vote counts exp(cosine similarity / temperature).
    #[serde(default = "default_temperature")]
    #[schemars(range(min = 0.001))]
    pub temperature: f64,
    /// How votes are weighted.
    #[serde(default)]
    pub weights: KnnWeights,
    /// Share of each class's labels that may be used (stratified, drawn from the seed).
    #[serde(default = "full_fraction")]
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub label_fraction: f64,
}

fn default_k() -> u32 {
    20
}

fn default_temperature() -> f64 {
    0.1
}

impl Default for KnnConfig {
    fn default() -> Self {
        Self {
            k: default_k(),
            temperature: default_temperature(),
            weights: KnnWeights::default(),
            label_fraction: full_fraction(),
        }
    }
}

/// How the neighbours' votes are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KnnWeights {
    /// exp(cosine similarity / temperature).
    #[default]
    Similarity,
    /// Every neighbour counts the same.
    Uniform,
}

/// Train a classifier and the pretrained backbone together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FineTuneConfig {
    /// Which layers learn.
    #[serde(default)]
    pub layers: TunedLayers,
    /// How they learn.
    #[serde(default)]
    pub train: ClassifierTrainConfig,
}

/// A backbone and a classifier trained from scratch on labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupervisedConfig {
    /// The network whose output is the features.
    pub backbone: BackboneConfig,
    /// How it learns.
    #[serde(default)]
    pub train: ClassifierTrainConfig,
}
