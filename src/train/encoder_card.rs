//! `encoder.json`: what an encoder artifact is and how its input must be prepared.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{
    augment::{
        EvaluationView,
        augment_config::{ChannelStats, EvaluationViewConfig, IMAGE_SIZES},
    },
    data::ingest_config::{ExactSize, ResizeConfig, is_white, white},
    model::{backbone::BackboneConfig, predictor::PredictorConfig, projector::ProjectorConfig},
};

/// Version of `encoder.json`.
pub const ENCODER_FORMAT: u32 = 1;
/// Name of the card in an encoder artifact.
pub const CARD_FILE: &str = "encoder.json";
/// Name of the backbone's weights in an encoder artifact, under torchvision's names.
pub const WEIGHTS_FILE: &str = "encoder.safetensors";

/// Description of an encoder artifact: enough to use it without the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderCard {
    /// Version of this file's format.
    pub format: u32,
    /// The backbone.
    pub backbone: BackboneConfig,
    /// Length of a feature vector.
    pub feature_dim: u32,
    /// The projector.
    pub projector: ProjectorConfig,
    /// The predictor.
    pub predictor: PredictorConfig,
    /// How an image becomes input.
    pub preprocessing: Preprocessing,
    /// Seed of the initial weights, so that the untrained network can be built again.
    pub seed: u64,
    /// BLAKE3 digest of the file whose weights the backbone started from; absent where they were random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Epochs that were run.
    pub epochs: u32,
    /// Steps that were run.
    pub steps: u64,
    /// Whether early stopping ended the training.
    pub stopped_early: bool,
    /// Mean loss of the last epoch.
    pub final_loss: f64,
    /// `embedding_std` · √d of the last epoch.
    pub final_embedding_std_ratio: f64,
    /// What the user should know, such as a collapse.
    pub warnings: Vec<String>,
}

/// How an image becomes network input where nothing is random.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// How the images that the artifact knows were resized when they were stored: first of all, an image from elsewhere
    /// is resized alike.
    #[serde(default)]
    pub resize: ResizeConfig,
    /// What lies behind the transparency of an image; left out where it is white.
    #[serde(default = "white", skip_serializing_if = "is_white")]
    pub background: [u8; 3],
    /// Width and height of the input.
    pub image_size: u32,
    /// How the image is brought to that size.
    pub evaluation: EvaluationViewConfig,
    /// (pixel / 255 − mean) / std.
    pub channel_stats: ChannelStats,
}

impl Preprocessing {
    /// What is wrong with it, if anything is: cards travel, and people edit them.
    pub fn problem(&self) -> Option<String> {
        const SIDES: RangeInclusive<u32> = 1..=4096;
        let resize_fits = match self.resize {
            ResizeConfig::None => true,
            ResizeConfig::ShorterSide(side) => SIDES.contains(&side),
            ResizeConfig::Exact(ExactSize { width, height }) => SIDES.contains(&width) && SIDES.contains(&height),
        };
        if !IMAGE_SIZES.contains(&self.image_size) {
            let (smallest, largest) = (IMAGE_SIZES.start(), IMAGE_SIZES.end());
            return Some(format!("`image_size` is {}, not between {smallest} and {largest}", self.image_size));
        }
        if !resize_fits {
            return Some("`resize` asks for no size that an image may have".into());
        }
        self.channel_stats.problem()
    }

    /// The view of an image that was resized.
    pub fn view(&self) -> EvaluationView {
        EvaluationView::new(self.image_size, self.evaluation, &self.channel_stats)
    }
}
