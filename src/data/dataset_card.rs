//! `dataset.json`: what a dataset artifact holds, beside the pixels.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    DataError,
    ingest_config::{ResizeConfig, is_white, white},
    store_writer::{CARD_FILE, FORMAT},
};
use crate::augment::augment_config::ChannelStats;

/// Description of a dataset artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetCard {
    /// Version of this file's format.
    pub format: u32,
    /// Number of images.
    pub num_images: u64,
    /// Names of the classes; the label of an image is an index into it. Empty where there are no labels.
    pub class_names: Vec<String>,
    /// Number of images of each class.
    pub class_counts: Vec<u64>,
    /// Smallest width and height.
    pub min_size: [u32; 2],
    /// Largest width and height.
    pub max_size: [u32; 2],
    /// Mean and deviation of each channel over all pixels, on the 0…1 scale.
    pub channel_stats: ChannelStats,
    /// How images were resized before they were stored.
    #[serde(default)]
    pub resize: ResizeConfig,
    /// What lay behind the transparency of the images; left out where it is white.
    #[serde(default = "white", skip_serializing_if = "is_white")]
    pub background: [u8; 3],
    /// Files that could not be used, sorted by name.
    pub skipped: Vec<SkippedFile>,
}

impl DatasetCard {
    /// Reads the card of the artifact in `dir`.
    ///
    /// # Errors
    /// When it is missing, damaged or of another version.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join(CARD_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| DataError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let fail = |message: String| DataError::Artifact { path: path.clone(), message };
        let card: Self = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        if card.format != FORMAT {
            return Err(fail(format!("format {} instead of {FORMAT}", card.format)));
        }
        if card.class_counts.len() != card.class_names.len() {
            return Err(fail("its classes and their counts are not of one number".into()));
        }
        Ok(card)
    }
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedFile {
    /// Relative to the source.
    pub file: String,
    /// Why.
    pub reason: String,
}
