//! The augmentation policy as the user writes it.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::op_config::{
    CenterCropConfig, ColorJitterConfig, DeltaConfig, EraseValue, FactorRangeConfig, GaussianBlurConfig, Interpolation,
    OpConfig, PadCropConfig, PaddingMode, ProbabilityConfig, RandomErasingConfig, RandomResizedCropConfig,
    ResizeOpConfig, Rotate90Config, SolarizeConfig,
};
use super::preset::AugmentSpec;

/// The usual number of views of an image.
pub const DEFAULT_VIEWS: u32 = 2;

/// Parameters of an `augment` stage with everything filled in: how one image becomes its views. What the user writes
/// is an [`AugmentSpec`], which may name a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AugmentSpec")]
pub struct AugmentConfig {
    /// Width and height of a view in pixels.
    pub image_size: u32,
    /// Number of views of each image that pretraining compares.
    pub views: u32,
    /// Operations of every view in the order in which they are applied.
    pub ops: Vec<OpConfig>,
    /// Operations of each view where they differ, one list for each; then there are no `ops`.
    pub view_ops: Vec<Vec<OpConfig>>,
    /// How pixels become network input: (pixel / 255 − mean) / std for each channel.
    pub normalize: NormalizeConfig,
    /// How an image becomes network input where nothing is random (extraction, kNN monitor, prediction).
    pub evaluation: EvaluationViewConfig,
    /// The contact sheet.
    pub preview: PreviewConfig,
}

impl AugmentConfig {
    /// The operations of a view. Views beyond the last list begin with the first again.
    pub fn ops_of(&self, view: u32) -> &[OpConfig] {
        match self.view_ops.len() {
            0 => &self.ops,
            lists => &self.view_ops[view as usize % lists],
        }
    }

    /// The lists of operations that there are, each with its key.
    pub fn op_lists(&self) -> Vec<(String, &[OpConfig])> {
        if self.view_ops.is_empty() {
            return vec![("ops".to_owned(), &self.ops)];
        }
        self.view_ops.iter().enumerate().map(|(view, ops)| (format!("view_ops[{view}]"), &ops[..])).collect()
    }
}

/// The view used where nothing is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationViewConfig {
    /// Shorter side to `image_size` · 8/7, then the central square (the usual 256 → 224).
    #[default]
    ResizeAndCenterCrop,
    /// Shorter side to `image_size`, then the central square.
    CenterCrop,
    /// Squash the whole image to `image_size` × `image_size`.
    Squash,
}

/// How pixels in 0…255 become network input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NormalizeConfig {
    /// ImageNet's channel means (0.485, 0.456, 0.406) and deviations (0.229, 0.224, 0.225).
    #[default]
    Imagenet,
    /// pixel / 255.
    Unit,
    /// CIFAR-10's channel means (0.4914, 0.4822, 0.4465) and deviations (0.2470, 0.2435, 0.2616).
    Cifar10,
    /// Means and deviations of one's own, on the 0…1 scale.
    Custom(ChannelStats),
}

/// Widths and heights that a view may have.
pub const IMAGE_SIZES: RangeInclusive<u32> = 8..=1024;

/// Mean and standard deviation of each channel on the 0…1 scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelStats {
    /// Mean of red, green, blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green, blue; each above 0.
    pub std: [f64; 3],
}

impl ChannelStats {
    /// What is wrong with them, if anything is.
    pub fn problem(&self) -> Option<String> {
        let Self { mean, std } = self;
        let channel = (0..3).find(|&idx| !(mean[idx].is_finite() && std[idx].is_finite() && std[idx] > 0.0))?;
        Some(format!("channel {channel} has mean {} and std {}", mean[channel], std[channel]))
    }
}

impl NormalizeConfig {
    /// Mean and deviation of each channel on the 0…1 scale.
    pub fn channel_stats(&self) -> ChannelStats {
        match self {
            Self::Imagenet => ChannelStats { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
            Self::Unit => ChannelStats { mean: [0.0; 3], std: [1.0; 3] },
            Self::Cifar10 => ChannelStats { mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616] },
            Self::Custom(stats) => *stats,
        }
    }
}

/// The contact sheet: rows are images, columns are views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewConfig {
    /// Rows.
    #[serde(default = "default_preview_images")]
    #[schemars(range(min = 1, max = 64))]
    pub images: u32,
    /// Columns after the first, which shows the image itself.
    #[serde(default = "default_preview_views")]
    #[schemars(range(min = 1, max = 32))]
    pub views: u32,
}

fn default_preview_images() -> u32 {
    6
}

fn default_preview_views() -> u32 {
    8
}

impl Default for PreviewConfig {
    fn default() -> Self {
        Self { images: default_preview_images(), views: default_preview_views() }
    }
}
