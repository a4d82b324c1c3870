//! The whole state of a pretraining as bytes: what a resumed training needs to end with the same bits.
//!
//! Format: 32 bytes of BLAKE3 over the rest, then a safetensors file with the networks, their velocities and,
//! as metadata, the position. A file that was cut off or damaged is recognised.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{EpochRecord, early_stopping::EarlyStopping};
use crate::{
    digest::Digest,
    model::state::{StateEntry, StateError, from_safetensors, safetensors_metadata, to_safetensors},
};

/// Bumped when a field is added or its meaning changes.
const FORMAT: u32 = 2;
const DIGEST_LENGTH: usize = 32;
const METADATA_KEY: &str = "simsiam-pipe";

/// The whole state of a pretraining.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where the training stands.
    pub position: Position,
    /// Networks (`model.…`) and velocities (`velocity.…`).
    pub tensors: Vec<StateEntry>,
}

/// Where a training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Version of the checkpoint's format.
    pub format: u32,
    /// Whole epochs done.
    pub epochs: u32,
    /// Batches done of the epoch under way.
    pub batches: u64,
    /// Steps done since the beginning.
    pub steps: u64,
    /// Sums over the epoch under way.
    pub sums: EpochSums,
    /// Early stopping, if there is any.
    pub early_stopping: Option<EarlyStopping>,
    /// The epochs done.
    pub history: Vec<EpochRecord>,
    /// Warnings so far.
    pub warnings: Vec<String>,
}

/// Sums over the batches of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSums {
    /// Of the loss.
    pub loss: f64,
    /// Of `embedding_std`.
    pub embedding_std: f64,
}

/// Why bytes are no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Cut off or changed.
    #[error("the checkpoint is damaged: its digest does not fit")]
    Damaged,
    /// Of another version, or not readable.
    #[error("the checkpoint cannot be read: {0}")]
    Unreadable(String),
    /// Its tensors cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Checkpoint {
    /// A checkpoint at this position.
    pub fn new(position: Position, tensors: Vec<StateEntry>) -> Self {
        Self { position: Position { format: FORMAT, ..position }, tensors }
    }

    /// The bytes to write.
    ///
    /// # Errors
    /// Where a number of the history is not finite, or two tensors have one name.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let unreadable = |error: &dyn std::fmt::Display| CheckpointError::Unreadable(error.to_string());
        let position = serde_json::to_string(&self.position).map_err(|error| unreadable(&error))?;
        let metadata = BTreeMap::from([(METADATA_KEY.to_owned(), position)]);
        let body = to_safetensors(&self.tensors, metadata).map_err(|error| unreadable(&error))?;
        let mut bytes = Vec::with_capacity(DIGEST_LENGTH + body.len());
        bytes.extend_from_slice(Digest::of(&body).as_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads what [`Self::to_bytes`] wrote; `file` is for messages.
    ///
    /// # Errors
    /// Where the bytes are damaged or of another version.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self, CheckpointError> {
        let (digest, body) = bytes.split_at_checked(DIGEST_LENGTH).ok_or(CheckpointError::Damaged)?;
        if Digest::of(body).as_bytes() != digest {
            return Err(CheckpointError::Damaged);
        }
        let metadata = safetensors_metadata(body, file)?;
        let position = metadata.get(METADATA_KEY).map_or("", String::as_str);
        let position: Position =
            serde_json::from_str(position).map_err(|error| CheckpointError::Unreadable(error.to_string()))?;
        if position.format != FORMAT {
            return Err(CheckpointError::Unreadable(format!("format {} is not {FORMAT}", position.format)));
        }
        Ok(Self { position, tensors: from_safetensors(body, file)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let position = Position { epochs: 3, batches: 2, steps: 23, ..Position::default() };
        let tensors = vec![
            StateEntry::i64("model.num_batches_tracked", vec![], vec![23]),
            StateEntry::f32("velocity.backbone", vec![3], vec![1.0, -0.5, 1e-30]),
        ];
        Checkpoint::new(position, tensors)
    }

    #[test]
    fn bytes_round_trip() {
        let bytes = checkpoint().to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes, Path::new("c")).unwrap(), checkpoint());
    }

    #[test]
    fn damage_anywhere_is_recognised() {
        let bytes = checkpoint().to_bytes().unwrap();
        for idx in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[idx] ^= 0x10;
            assert!(matches!(Checkpoint::from_bytes(&damaged, Path::new("c")), Err(CheckpointError::Damaged)));
        }
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length], Path::new("c")).is_err());
        }
    }
}
