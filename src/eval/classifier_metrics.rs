//! `metrics.json` of a classifier artifact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How good a classifier is on the test images, and beside it the same protocol on representations that
/// needed no pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierMetrics {
    /// Version of this file's format.
    pub format: u32,
    /// `linear_probe`, `knn`, `fine_tune` or `supervised`.
    pub protocol: String,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Labelled images that were learned from.
    pub num_train: u64,
    /// Images that were judged.
    pub num_test: u64,
    /// Share of the labels that was used.
    pub label_fraction: f64,
    /// Scores by representation: `pretrained` and, where the embeddings hold them, `untrained` and
    /// `raw_pixels`; `fine_tune` and `supervised` have one, named after the protocol.
    pub scores: BTreeMap<String, Scores>,
    /// Training curve of `fine_tune` and `supervised`, one entry an epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ClassifierEpoch>,
}

/// One epoch of a classifier trained by gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierEpoch {
    /// From 1.
    pub epoch: u32,
    /// Mean cross-entropy on the training batches.
    pub train_loss: f64,
    /// Cross-entropy on the validation images, if there are any.
    pub validation_loss: Option<f64>,
    /// Accuracy on the validation images, if there are any.
    pub validation_top1: Option<f64>,
}

/// Scores on the test images. Shares are in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Share of images whose most probable class is right.
    pub top1: f64,
    /// 95 % bootstrap interval of `top1`.
    pub top1_interval: [f64; 2],
    /// Share of images whose class is among the five most probable.
    pub top5: f64,
    /// Mean recall over the classes that occur.
    pub balanced_accuracy: f64,
    /// Mean −log p(true class), probabilities clipped as scikit-learn clips them.
    pub log_loss: f64,
    /// Expected calibration error over 15 equal bins of the highest probability.
    pub expected_calibration_error: f64,
    /// Scores of each class.
    pub per_class: Vec<ClassScores>,
    /// `confusion[i][j]`: images of class i taken for class j.
    pub confusion: Vec<Vec<u64>>,
}

/// Scores of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassScores {
    /// Right among those taken for this class; 0 where none was.
    pub precision: f64,
    /// Right among those of this class; 0 where there is none.
    pub recall: f64,
    /// Harmonic mean of both; 0 where both are 0.
    pub f1: f64,
    /// Images of this class.
    pub support: u64,
}
