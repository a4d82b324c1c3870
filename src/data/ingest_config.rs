//! What the user says about a dataset: where the images are and how they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{source_config::SourceConfig, subset::SubsetConfig};

/// Parameters of an `ingest` stage: reads images once and stores them decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// Where the images come from.
    pub source: SourceConfig,
    /// Which of the source's images belong to the dataset, before `classes` and `max_per_class`.
    #[serde(default)]
    pub subset: SubsetConfig,
    /// How images are resized before they are stored.
    #[serde(default)]
    pub resize: ResizeConfig,
    /// What to do with a file that cannot be decoded.
    #[serde(default)]
    pub on_error: OnError,
    /// Keep only these classes, in this order. Empty keeps all, sorted by name.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Keep at most this many images of each class (the first by file name). 0 keeps all.
    #[serde(default)]
    pub max_per_class: u32,
    /// What to do with an image that has the same pixels, as they are stored, as one before it.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// Refuse images with more pixels than this, judged by their header before decoding.
    #[serde(default = "default_max_pixels")]
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
    /// Red, green and blue that lie behind what is transparent.
    #[serde(default = "white")]
    pub background: [u8; 3],
}

impl IngestConfig {
    /// Everything from a source, as it is.
    pub fn all_of(source: SourceConfig) -> Self {
        Self {
            source,
            subset: SubsetConfig::All,
            resize: ResizeConfig::None,
            on_error: OnError::Fail,
            classes: vec![],
            max_per_class: 0,
            duplicates: Duplicates::Keep,
            max_pixels: DEFAULT_MAX_PIXELS,
            background: WHITE,
        }
    }
}

/// 50 megapixels: above every camera's everyday size, below what a decompression bomb claims.
pub const DEFAULT_MAX_PIXELS: u64 = 50_000_000;

fn default_max_pixels() -> u64 {
    DEFAULT_MAX_PIXELS
}

/// What a viewer shows behind transparency.
pub const WHITE: [u8; 3] = [255; 3];

/// The background of images that were not stored over another.
pub fn white() -> [u8; 3] {
    WHITE
}

/// Whether a background needs no mention.
pub fn is_white(background: &[u8; 3]) -> bool {
    *background == WHITE
}

/// How images are resized when they are stored (bilinear with antialias).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizeConfig {
    /// Keep every image at its own size.
    #[default]
    None,
    /// Scale so that the shorter side has this many pixels; smaller images are left alone.
    ShorterSide(#[schemars(range(min = 1, max = 4096))] u32),
    /// Squash to exactly this width and height.
    Exact(ExactSize),
}

/// A width and a height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExactSize {
    /// Width in pixels.
    #[schemars(range(min = 1, max = 4096))]
    pub width: u32,
    /// Height in pixels.
    #[schemars(range(min = 1, max = 4096))]
    pub height: u32,
}

/// What to do with a file that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Stop and name the file.
    #[default]
    Fail,
    /// Leave the file out, list it with the reason in `dataset.json`, and warn.
    Skip,
}

/// What to do with an image that is there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Store it as often as it is there.
    #[default]
    Keep,
    /// Store the first one, and list the others in `dataset.json`.
    Drop,
}
