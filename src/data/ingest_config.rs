//! What the user says about a dataset: where the images are and how they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of an `ingest` stage: reads images once and stores them decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// Where the images come from.
    pub source: SourceConfig,
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
    /// Refuse images with more pixels than this, judged by their header before decoding.
    #[serde(default = "default_max_pixels")]
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
}

/// 50 megapixels: above every camera's everyday size, below what a decompression bomb claims.
fn default_max_pixels() -> u64 {
    50_000_000
}

/// Where images come from. Paths are relative to the project root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceConfig {
    /// A folder of images. Sub-folders are classes, named after the folder; a folder that holds images
    /// and no sub-folder with images is an unlabelled dataset.
    ImageFolder(String),
    /// The original CIFAR-10 binary batches.
    Cifar10(Cifar10Config),
    /// Procedural landscapes with labelled classes, drawn from a seed: needs no download.
    SyntheticScenes(SyntheticScenesConfig),
}

/// The original CIFAR-10 binary batches (`data_batch_1.bin` … `test_batch.bin`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cifar10Config {
    /// Folder that holds the `.bin` files.
    pub path: String,
    /// Which of the two original splits to read.
    pub split: Split,
}

/// One of the two splits of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

/// Procedural landscapes: the same seed and split always draw the same pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticScenesConfig {
    /// How many images to draw of each class.
    #[schemars(range(min = 1, max = 100_000))]
    pub images_per_class: u32,
    /// Width and height in pixels.
    #[serde(default = "default_scene_size")]
    #[schemars(range(min = 16, max = 512))]
    pub image_size: u32,
    /// Images of different splits never coincide.
    pub split: Split,
    /// Seed of the drawing.
    #[serde(default)]
    pub seed: u64,
}

fn default_scene_size() -> u32 {
    48
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
