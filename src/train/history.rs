//! What pretraining writes down of each epoch: one line of `history.jsonl`.

use serde::{Deserialize, Serialize};

/// Means over one epoch. No times: the same training gives the same history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// Steps since the beginning.
    pub step: u64,
    /// Mean loss, in [−1, 1].
    pub loss: f64,
    /// Mean over dimensions of the deviation of the L2-normalised z over the batch; 1/√d is healthy.
    pub embedding_std: f64,
    /// `embedding_std` · √d: 1 is healthy, 0 is collapse.
    pub embedding_std_ratio: f64,
    /// Learning rate of backbone and projector at the end of the epoch.
    pub lr: f64,
    /// Learning rate of the predictor at the end of the epoch.
    pub predictor_lr: f64,
    /// kNN accuracy on the monitor images, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knn_top1: Option<f64>,
}

/// Where a pretraining leaves its [`EpochTime`]s, one a line.
pub const TIMES_FILE: &str = "logs/times.jsonl";

/// How long an epoch took: no content, since it says nothing of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochTime {
    /// From 1.
    pub epoch: u32,
    /// How long it took.
    pub seconds: f64,
    /// Images a second.
    pub images_per_second: f64,
    /// Of the seconds, those in which the network waited for views.
    pub waited_for_data: f64,
}
