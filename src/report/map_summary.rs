//! The part of the view model that speaks of the embeddings: map, neighbours, use of space.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Embeddings in two dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingMap {
    /// Name of the stage.
    pub stage: String,
    /// `test` or `train`.
    pub split: String,
    /// Number of embeddings in that split.
    pub num_images: u64,
    /// Length of an embedding.
    pub dim: u64,
    /// Share of the variance along the horizontal and the vertical direction.
    pub explained: [f64; 2],
    /// Perplexity of the t-SNE map, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// The classifier whose answers the points carry, if one judged the same images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_of: Option<String>,
    /// How well each representation uses its space, where the artifact says so.
    pub health: Vec<RepresentationHealth>,
    /// How the classes lie among the pretrained embeddings, where the artifact says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_distances: Option<ClassDistances>,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// The points that are shown, evenly taken from all where there are many.
    pub points: Vec<MapPoint>,
    /// Some images with those whose embeddings are most like theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<NeighbourRow>,
}

/// How well a representation of the training images uses its space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepresentationHealth {
    /// `pretrained`, `untrained` or `raw_pixels`.
    pub representation: String,
    /// Length of a vector.
    pub dim: u64,
    /// How many dimensions carry something: 1 is collapse, `dim` the most.
    pub effective_rank: f64,
    /// Deviation of vectors of length 1, times √dim: 1 where they spread evenly, 0 where all are the same.
    pub normalized_std_ratio: f64,
    /// Dimensions with the same value in every image.
    pub num_constant_dims: u64,
    /// Logarithm of the mean of exp(−2 ‖x − y‖²) over pairs of images: 0 where all are the same, −4 at best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uniformity: Option<f64>,
    /// Mean ‖x − y‖² over two views of an image: 0 where views do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
}

/// How the classes of the training images lie among embeddings of length 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassDistances {
    /// `centroid_distances[i][j]`: distance between the means of classes i and j.
    pub centroid_distances: Vec<Vec<f64>>,
    /// Root mean square distance of a class's images from its mean.
    pub spread: Vec<f64>,
}

/// One embedding in two dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapPoint {
    /// Along the direction in which embeddings differ most.
    pub x: f64,
    /// Along the second.
    pub y: f64,
    /// Where t-SNE puts the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsne: Option<[f64; 2]>,
    /// Index into the class names, if the image has a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Class that the classifier named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<u32>,
    /// The image's file name, if known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// An image and those whose embeddings are most like its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeighbourRow {
    /// Place of the image in its split.
    pub index: u64,
    /// Its file name, if known.
    pub file: String,
    /// Index into the class names, if it has a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// The most similar training images, the nearest first.
    pub neighbours: Vec<Neighbour>,
}

/// A training image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Its place among the training images.
    pub index: u64,
    /// Its file name, if known.
    pub file: String,
    /// Index into the class names, if it has a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Cosine of the angle between both embeddings.
    pub similarity: f64,
}
