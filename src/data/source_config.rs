//! Where images come from, as the user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where images come from. Paths are relative to the project root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceConfig {
    /// A folder of images. Sub-folders are classes, named after the folder; a folder that holds images
    /// and no sub-folder with images is an unlabelled dataset.
    ImageFolder(String),
    /// A folder of images without labels, whatever its sub-folders are called.
    FlatFolder(String),
    /// A table of files with their labels: CSV, TSV or JSON Lines.
    Manifest(ManifestConfig),
    /// The original CIFAR-10 binary batches.
    Cifar10(Cifar10Config),
    /// The original CIFAR-100 binary files.
    Cifar100(Cifar100Config),
    /// IDX files, the format of MNIST and its relatives.
    Idx(ArraysConfig),
    /// NumPy arrays of bytes.
    Npy(ArraysConfig),
    /// Tar archives in WebDataset's layout: files of one sample have one name and differ in their extensions.
    TarShards(TarShardsConfig),
    /// Procedural landscapes with labelled classes, drawn from a seed: needs no download.
    SyntheticScenes(SyntheticScenesConfig),
}

impl SourceConfig {
    /// The files and folders that are read: key below `with`, path, and whether it must be a folder.
    pub fn paths(&self) -> Vec<SourcePath<'_>> {
        let folder = |key, path| SourcePath { key, path, kind: PathKind::Folder };
        let file = |key, path| SourcePath { key, path, kind: PathKind::File };
        match self {
            Self::ImageFolder(path) => vec![folder("source.image_folder", path)],
            Self::FlatFolder(path) => vec![folder("source.flat_folder", path)],
            Self::Manifest(manifest) => {
                vec![file("source.manifest.path", &manifest.path), folder("source.manifest.images", &manifest.images)]
            }
            Self::Cifar10(cifar) => vec![folder("source.cifar10.path", &cifar.path)],
            Self::Cifar100(cifar) => vec![folder("source.cifar100.path", &cifar.path)],
            Self::Idx(arrays) => arrays.paths("source.idx.images", "source.idx.labels"),
            Self::Npy(arrays) => arrays.paths("source.npy.images", "source.npy.labels"),
            Self::TarShards(tar) => {
                vec![SourcePath { key: "source.tar_shards.path", path: &tar.path, kind: PathKind::Any }]
            }
            Self::SyntheticScenes(_) => vec![],
        }
    }
}

/// A path that a source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePath<'a> {
    /// Key path below `with`.
    pub key: &'static str,
    /// As written, relative to the project root.
    pub path: &'a str,
    /// What must lie there.
    pub kind: PathKind,
}

/// What must lie at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// One or the other.
    Any,
}

/// A table of files with their labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestConfig {
    /// The table: `.csv` or `.tsv` with a header, or `.jsonl` with an object on each line.
    pub path: String,
    /// The folder that paths in the table start at; every file must lie below it.
    pub images: String,
    /// Column of the paths.
    #[serde(default = "default_path_column")]
    pub path_column: String,
    /// Column of the labels, which are words or whole numbers. A table without it is an unlabelled dataset.
    #[serde(default = "default_label_column")]
    pub label_column: String,
    /// Column that says which split a row belongs to.
    #[serde(default = "default_split_column")]
    pub split_column: String,
    /// Take only the rows of this split; without it all.
    #[serde(default)]
    pub split: Option<String>,
}

fn default_path_column() -> String {
    "path".into()
}

fn default_label_column() -> String {
    "label".into()
}

fn default_split_column() -> String {
    "split".into()
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

/// The original CIFAR-100 binary files (`train.bin`, `test.bin`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cifar100Config {
    /// Folder that holds the `.bin` files.
    pub path: String,
    /// Which of the two original splits to read.
    pub split: Split,
    /// Which of its two labels an image has.
    #[serde(default)]
    pub labels: Cifar100Labels,
}

/// The two labels of a CIFAR-100 image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cifar100Labels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 superclasses.
    Coarse,
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

/// A file of images and a file of their labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArraysConfig {
    /// Bytes of shape [images, height, width], with 1 or 3 channels behind, or before with 3.
    pub images: String,
    /// Whole numbers, one for each image; classes are named after them. Without it the dataset is unlabelled.
    #[serde(default)]
    pub labels: Option<String>,
}

impl ArraysConfig {
    fn paths(&self, images: &'static str, labels: &'static str) -> Vec<SourcePath<'_>> {
        let file = |key, path| SourcePath { key, path, kind: PathKind::File };
        let labels = self.labels.as_ref().map(|path| file(labels, path));
        std::iter::once(file(images, &self.images)).chain(labels).collect()
    }
}

/// Tar archives in WebDataset's layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TarShardsConfig {
    /// A `.tar` file, or a folder of which all `.tar` files are read in the order of their names.
    pub path: String,
    /// Where the label of a sample stands.
    #[serde(default)]
    pub label: TarLabel,
}

/// Where the label of a sample stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TarLabel {
    /// Nowhere: the dataset is unlabelled.
    None,
    /// In its `.cls` file: a whole number or a word.
    #[default]
    Cls,
    /// In its `.json` file, under this key.
    Json(String),
    /// It is the folder within the archive.
    Folder,
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
