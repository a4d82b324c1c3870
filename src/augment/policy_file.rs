//! `policy.json`: the resolved policy as an artifact carries it.
//!
//! The contact sheet's parameters stay out: they do not decide what views look like.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    AugmentConfig, AugmentError, Policy,
    augment_config::{DEFAULT_VIEWS, EvaluationViewConfig, NormalizeConfig, OpConfig, PreviewConfig},
};

/// Name of the file in an augmentation artifact.
pub const POLICY_FILE: &str = "policy.json";

/// Policies of two equal views are as they always were; others need a version that knows them.
const FORMAT: u32 = 1;
const FORMAT_OF_VIEWS: u32 = 2;

/// The content of `policy.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    format: u32,
    image_size: u32,
    #[serde(default = "default_views", skip_serializing_if = "is_default_views")]
    views: u32,
    ops: Vec<OpConfig>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    view_ops: Vec<Vec<OpConfig>>,
    normalize: NormalizeConfig,
    evaluation: EvaluationViewConfig,
}

/// What is looked at before everything else.
#[derive(Deserialize)]
struct PolicyVersion {
    format: u32,
}

fn default_views() -> u32 {
    DEFAULT_VIEWS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_default_views(views: &u32) -> bool {
    *views == DEFAULT_VIEWS
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
            format: if is_default_views(&config.views) && config.view_ops.is_empty() {
                FORMAT
            } else {
                FORMAT_OF_VIEWS
            },
            image_size: config.image_size,
            views: config.views,
            ops: config.ops.clone(),
            view_ops: config.view_ops.clone(),
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
        let malformed =
            |error: serde_json::Error| AugmentError::Format { path: path.clone(), message: error.to_string() };
        let version: PolicyVersion = serde_json::from_str(&text).map_err(malformed)?;
        if ![FORMAT, FORMAT_OF_VIEWS].contains(&version.format) {
            let message = format!("format {} instead of {FORMAT} or {FORMAT_OF_VIEWS}", version.format);
            return Err(AugmentError::Format { path, message });
        }
        let file: PolicyFile = serde_json::from_str(&text).map_err(malformed)?;
        Self::build(&AugmentConfig {
            image_size: file.image_size,
            views: file.views,
            ops: file.ops,
            view_ops: file.view_ops,
            normalize: file.normalize,
            evaluation: file.evaluation,
            preview: PreviewConfig::default(),
        })
    }
}
