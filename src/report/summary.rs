//! The view model of a report: what `summary.json` holds and the page shows. Shares are in [0, 1].

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cells::PretrainingCells;
pub use super::map_summary::{ClassDistances, EmbeddingMap, MapPoint, Neighbour, NeighbourRow, RepresentationHealth};

/// Version of `summary.json`.
pub const SUMMARY_FORMAT: u32 = 1;

/// Everything that a report says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this file's format.
    pub format: u32,
    /// Title of the page.
    pub title: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Did it learn, did it collapse, what to try next.
    pub verdict: Verdict,
    /// The pretraining, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<PretrainingSummary>,
    /// All pretrainings, if several were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<PretrainingCells>,
    /// The augmentation policy, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<AugmentationSummary>,
    /// The classifiers in the order in which they were given.
    pub classifiers: Vec<ClassifierSummary>,
    /// What pretraining is worth at each share of the labels, the smallest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_efficiency: Vec<LabelEfficiency>,
    /// The datasets in the order in which they were given.
    pub datasets: Vec<DatasetSummary>,
    /// Images that two of the datasets have in common.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_images: Vec<SharedImages>,
    /// The embeddings in two dimensions, if they were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_map: Option<EmbeddingMap>,
    /// Where all of this comes from.
    pub provenance: Provenance,
}

/// The answer in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether pretraining gave features worth more than what needed none.
    pub learned: Learned,
    /// Whether the representation collapsed.
    pub collapse: CollapseState,
    /// One sentence.
    pub headline: String,
    /// What the answer rests on, one sentence each.
    pub findings: Vec<String>,
    /// What to try next, the most promising first.
    pub advice: Vec<String>,
}

/// Whether pretraining gave features worth more than what needed none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Learned {
    /// There is nothing to compare.
    Unknown,
    /// No better than a baseline.
    No,
    /// Better, but the difference could be chance.
    Perhaps,
    /// Better by more than chance explains.
    Clearly,
}

/// Whether the representation collapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollapseState {
    /// No pretraining was given.
    Unknown,
    /// All images have nearly the same embedding.
    Collapsed,
    /// Embeddings use few of their dimensions.
    Partial,
    /// Embeddings spread out.
    Healthy,
}

/// A pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainingSummary {
    /// Name of the stage.
    pub stage: String,
    /// The backbone, such as `ResNet-18, ImageNet stem`.
    pub backbone: String,
    /// Length of a feature vector.
    pub feature_dim: u32,
    /// The projector, such as `512 → 2048 → 2048 → 2048`.
    pub projector: String,
    /// The predictor, such as `2048 → 512 → 2048`.
    pub predictor: String,
    /// Width and height of the network's input in pixels.
    pub image_size: u32,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Epochs that were run.
    pub epochs: u32,
    /// Steps that were run.
    pub steps: u64,
    /// Images in one step, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Learning rate at a batch size of 256, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_lr: Option<f64>,
    /// Whether early stopping ended the training.
    pub stopped_early: bool,
    /// Mean loss of the last epoch, in [−1, 1].
    pub final_loss: f64,
    /// `embedding_std` · √d of the last epoch: 1 is healthy, 0 is collapse.
    pub final_embedding_std_ratio: f64,
    /// Last kNN accuracy of the monitor, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_knn_top1: Option<f64>,
    /// Warnings of the training.
    pub warnings: Vec<String>,
    /// One point an epoch.
    pub curve: Vec<CurvePoint>,
}

/// Means over one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// From 1.
    pub epoch: u32,
    /// Steps since the beginning.
    pub step: u64,
    /// Mean loss, in [−1, 1].
    pub loss: f64,
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

/// An augmentation policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AugmentationSummary {
    /// Name of the stage.
    pub stage: String,
    /// Width and height of a view in pixels.
    pub image_size: u32,
    /// The operations in the order in which they are applied, in words.
    pub ops: Vec<OpSummary>,
}

/// One operation of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpSummary {
    /// Its name in the pipeline file.
    pub name: String,
    /// Its parameters as `key value`, separated by commas.
    pub params: String,
}

/// A classifier and how good it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierSummary {
    /// Name of the stage.
    pub stage: String,
    /// `linear_probe`, `knn`, `fine_tune` or `supervised`.
    pub protocol: String,
    /// Labelled images that were learned from.
    pub num_train: u64,
    /// Images that were judged.
    pub num_test: u64,
    /// Share of the labels that was used.
    pub label_fraction: f64,
    /// Share of the largest class among the test images: what always guessing it would score.
    pub largest_class_share: f64,
    /// Scores of each representation; the first is the one that the rest of this entry is about.
    pub scores: Vec<RepresentationScores>,
    /// The pretrained representation against each baseline.
    pub comparisons: Vec<Comparison>,
    /// Scores of each class.
    pub per_class: Vec<ClassRow>,
    /// `confusion[i][j]`: images of class i taken for class j. Left out where there are more than 100 classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The pairs of classes that are mixed up most often, the worst first.
    pub confused_pairs: Vec<ConfusedPair>,
    /// The wrong answers that the classifier was surest of, the surest first.
    pub mistakes: Vec<Mistake>,
    /// Training curve of `fine_tune` and `supervised`, one point an epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<ClassifierPoint>,
}

/// A protocol that starts from pretrained weights against training from scratch, with the same share of the labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelEfficiency {
    /// Share of the labels that both used.
    pub label_fraction: f64,
    /// Labelled images that were learned from.
    pub num_train: u64,
    /// `fine_tune`, `linear_probe` or `knn`.
    pub protocol: String,
    /// Mean top-1 accuracy of the protocol.
    pub top1: f64,
    /// Mean top-1 accuracy of the network trained from scratch.
    pub supervised_top1: f64,
    /// The former less the latter.
    pub gain: f64,
    /// How many classifiers either mean is of.
    pub runs: [u32; 2],
}

/// One epoch of a classifier trained by gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierPoint {
    /// From 1.
    pub epoch: u32,
    /// Mean cross-entropy on the training batches.
    pub train_loss: f64,
    /// Cross-entropy on the validation images, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Accuracy on the validation images, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_top1: Option<f64>,
}

/// Scores of one representation under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepresentationScores {
    /// `pretrained`, `untrained`, `raw_pixels` or the protocol's name.
    pub representation: String,
    /// Share of images whose most probable class is right.
    pub top1: f64,
    /// 95 % bootstrap interval of `top1`.
    pub top1_interval: [f64; 2],
    /// Share of images whose class is among the five most probable.
    pub top5: f64,
    /// Mean recall over the classes that occur.
    pub balanced_accuracy: f64,
    /// Mean −log p(true class).
    pub log_loss: f64,
    /// Expected calibration error.
    pub expected_calibration_error: f64,
}

/// The pretrained representation against a baseline, both judged on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The baseline's name.
    pub baseline: String,
    /// Top-1 accuracy of the pretrained representation less the baseline's.
    pub difference: f64,
    /// 95 % interval of the difference, from both bootstrap intervals.
    pub interval: [f64; 2],
    /// What that means.
    pub learned: Learned,
}

/// Scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassRow {
    /// The class.
    pub name: String,
    /// Right among those taken for this class.
    pub precision: f64,
    /// Right among those of this class.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Test images of this class.
    pub support: u64,
}

/// A class that is taken for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfusedPair {
    /// The class of the images.
    pub actual: String,
    /// What they were taken for.
    pub predicted: String,
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mistake {
    /// The image's file name.
    pub file: String,
    /// Its class.
    pub actual: String,
    /// What it was taken for.
    pub predicted: String,
    /// Probability of the answer.
    pub probability: f64,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSummary {
    /// Name of the stage.
    pub stage: String,
    /// Number of images.
    pub num_images: u64,
    /// Classes with their numbers of images; empty where there are no labels.
    pub classes: Vec<ClassCount>,
    /// Smallest width and height in pixels.
    pub min_size: [u32; 2],
    /// Largest width and height in pixels.
    pub max_size: [u32; 2],
    /// Images with the same pixels as one before them, where pixels were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_duplicates: Option<u64>,
    /// How many files could not be used.
    pub num_skipped: u64,
    /// The first of them.
    pub skipped: Vec<Skipped>,
}

/// Images with the same pixels in two datasets: where one is learned from and the other judged by, a leak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedImages {
    /// Names of the stages of both datasets.
    pub datasets: [String; 2],
    /// Images of the second that are in the first, too.
    pub count: u64,
    /// Names of the first pair.
    pub example: [String; 2],
}

/// A class and its number of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassCount {
    /// The class.
    pub name: String,
    /// Number of images.
    pub count: u64,
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Relative to the source.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// Where a report comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of simsiam-pipe.
    pub version: String,
    /// The artifacts that were read.
    pub artifacts: Vec<ArtifactRef>,
    /// Parameters of the pretraining as far as its artifact holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<serde_json::Value>,
    /// Parameters of the augmentation policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<serde_json::Value>,
}

/// An artifact that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// The report's input that it was given as.
    pub input: String,
    /// Name of the stage that made it.
    pub stage: String,
    /// Its digest.
    pub digest: String,
}

impl ClassifierSummary {
    /// Scores of the representation that this entry is about.
    pub fn main(&self) -> Option<&RepresentationScores> {
        self.scores.first()
    }

    /// Whether the backbone stayed frozen, so that the score speaks of the features alone.
    pub fn is_frozen(&self) -> bool {
        self.main().is_some_and(|scores| scores.representation == "pretrained")
    }
}

impl Summary {
    /// `summary.json`: sorted as declared, two spaces, and nothing in it that could hide in a terminal or end a
    /// script element.
    ///
    /// # Errors
    /// Never in practice; everything in a summary can be written as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let plain = serde_json::to_string_pretty(self)?;
        let mut text = String::with_capacity(plain.len() + 1);
        for c in plain.chars() {
            if c == '<' || (c != '\n' && super::text::is_deceptive(c)) {
                // These stand in strings only, where the escape means the same character.
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            } else {
                text.push(c);
            }
        }
        text.push('\n');
        Ok(text)
    }
}

/// `schemas/summary.schema.json`, made from the types.
///
/// # Errors
/// Never in practice; the schema is plain JSON.
pub fn summary_schema() -> Result<String, serde_json::Error> {
    let schema = schemars::schema_for!(Summary);
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}
