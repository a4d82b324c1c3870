//! `policy.json`: the resolved policy as an artifact carries it.
//!
//! The contact sheet's parameters stay out: they do not decide what views look like.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    AugmentConfig, AugmentError, Policy,
    augment_config::{EvaluationViewConfig, NormalizeConfig, OpConfig, PreviewConfig},
};

/// Name of the file in an augmentation artifact.
pub const POLICY_FILE: &str = "policy.json";

const FORMAT: u32 = 1;

/// The content of `policy.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    format: u32,
    image_size: u32,
    ops: Vec<OpConfig>,
    normalize: NormalizeConfig,
    evaluation: EvaluationViewConfig,
}

impl Policy {
    /// Writes `policy.json` into `dir`.
    ///
    /// # Errors
    /// [`AugmentError::Io`] when the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), AugmentError> {
        let path = dir.join(POLICY_FILE);
        let config = self.config();
        let file = PolicyFile {
            format: FORMAT,
            image_size: config.image_size,
            ops: config.ops.clone(),
            normalize: config.normalize.clone(),
            evaluation: config.evaluation,
        };
        let mut text = serde_json::to_string_pretty(&file)
            .map_err(|error| AugmentError::Format { path: path.clone(), message: error.to_string() })?;
        text.push('\n');
        std::fs::write(&path, text).map_err(|source| AugmentError::Io { action: "write", path, source })
    }

    /// Reads `policy.json` from the folder of an augmentation artifact.
    ///
    /// # Errors
    /// When the file is missing, damaged, of another version or out of range.
    pub fn load(dir: &Path) -> Result<Self, AugmentError> {
        let path = dir.join(POLICY_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| AugmentError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let file: PolicyFile = serde_json::from_str(&text)
            .map_err(|error| AugmentError::Format { path: path.clone(), message: error.to_string() })?;
        if file.format != FORMAT {
            let message = format!("format {} instead of {FORMAT}", file.format);
            return Err(AugmentError::Format { path, message });
        }
        Self::build(&AugmentConfig {
            image_size: file.image_size,
            ops: file.ops,
            normalize: file.normalize,
            evaluation: file.evaluation,
            preview: PreviewConfig::default(),
        })
    }
}
