//! Why training failed.

use crate::{compute::ComputeError, model::simsiam::SimSiamError};

use super::{checkpoint::CheckpointError, collapse::COLLAPSE_HELP};

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The user asked to stop; a checkpoint was saved.
    #[error("stopped on request")]
    Cancelled,
    /// Fewer images than one batch.
    #[error("{found} images are fewer than one batch of {batch_size}")]
    TooFewImages {
        /// Images there are.
        found: usize,
        /// Images that a batch takes.
        batch_size: u32,
    },
    /// The step would not fit into memory.
    #[error(
        "a step of {batch_size} images needs about {}, but {} of memory are available",
        gibibytes(*needed),
        gibibytes(*available)
    )]
    TooLittleMemory {
        /// Bytes.
        needed: u64,
        /// Bytes.
        available: u64,
        /// Images in a step.
        batch_size: u32,
        /// The smallest `accumulate` that would fit, if one would.
        fitting: Option<u32>,
    },
    /// The loss or a weight is no longer a number.
    #[error("the training diverged: loss or weights are no longer finite at step {step} (epoch {epoch})")]
    NotFinite {
        /// From 1.
        epoch: u32,
        /// From 1.
        step: u64,
    },
    /// The representation collapsed, and the pipeline says to stop then.
    #[error("{0}")]
    Collapsed(String),
    /// The networks refused.
    #[error(transparent)]
    Model(#[from] SimSiamError),
    /// The device that computes has too little memory.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device that computes did not do it.
    #[error("{0}")]
    Device(String),
    /// A checkpoint could not be made.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be written or read, or the monitor failed.
    #[error(transparent)]
    Host(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl TrainError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::TooFewImages { found, .. } => {
                Some(format!("set `batch_size` to at most {found}, or give `dataset` more images"))
            }
            Self::NotFinite { .. } => Some(
                "lower `optimizer.sgd.base_lr` or add `schedule.cosine.warmup_epochs`; the rate grows with \
                 `batch_size` (lr = base_lr · batch_size / 256)"
                    .into(),
            ),
            Self::TooLittleMemory { fitting: Some(parts), batch_size, .. } => Some(format!(
                "set `accumulate: {parts}`, which computes the step in parts of {} images (batch norm sees a part at a \
                 time), or lower `batch_size` or the policy's `image_size`",
                batch_size / parts
            )),
            Self::TooLittleMemory { fitting: None, .. } => {
                Some("lower the policy's `image_size`, choose a smaller backbone, or free memory".into())
            }
            Self::OutOfMemory(_) => Some(
                "compute a step in parts (`accumulate`), lower `batch_size` or the policy's `image_size`, take \
                 `precision: bf16` (half of f32), or free the device; what was trained is in the last checkpoint"
                    .into(),
            ),
            Self::Collapsed(_) => Some(COLLAPSE_HELP.into()),
            _ => None,
        }
    }
}

impl From<ComputeError> for TrainError {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Model(error) => Self::Model(error),
            ComputeError::OutOfMemory(message) => Self::OutOfMemory(message),
            ComputeError::Device(message) => Self::Device(message),
        }
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
