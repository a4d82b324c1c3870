//! The augmentation policy as the user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of an `augment` stage: how one image becomes one view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Width and height of a view in pixels.
    #[schemars(range(min = 8, max = 1024))]
    pub image_size: u32,
    /// Operations in the order in which they are applied. Where none of them sets the size, the image is
    /// resized to `image_size` first.
    pub ops: Vec<OpConfig>,
    /// How pixels become network input: (pixel / 255 − mean) / std for each channel.
    #[serde(default)]
    pub normalize: NormalizeConfig,
    /// How an image becomes network input where nothing is random (extraction, kNN monitor, prediction).
    #[serde(default)]
    pub evaluation: EvaluationViewConfig,
    /// The contact sheet.
    #[serde(default)]
    pub preview: PreviewConfig,
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

/// Mean and standard deviation of each channel on the 0…1 scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelStats {
    /// Mean of red, green, blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green, blue; each above 0.
    pub std: [f64; 3],
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

/// One operation of a policy. Names, parameters and meaning are torchvision's; the `tf_…` operations are
/// TensorFlow's (`tf.image`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpConfig {
    /// A random part of the image, resized to `image_size`.
    RandomResizedCrop(RandomResizedCropConfig),
    /// The whole image squashed to `image_size`.
    Resize(NoParams),
    /// A random shift: zero padding on each side, then a random square of `image_size`.
    PadCrop(PadCropConfig),
    /// Mirror left and right.
    HorizontalFlip(ProbabilityConfig),
    /// Mirror up and down.
    VerticalFlip(ProbabilityConfig),
    /// Turn by a multiple of 90 degrees.
    Rotate90(Rotate90Config),
    /// Brightness, contrast, saturation and hue, in random order.
    ColorJitter(ColorJitterConfig),
    /// To grey, three equal channels.
    Grayscale(ProbabilityConfig),
    /// Gaussian blur with a random radius.
    GaussianBlur(GaussianBlurConfig),
    /// `tf.image.random_brightness`: adds a random number of grey levels.
    TfBrightness(DeltaConfig),
    /// `tf.image.random_contrast`: scales the distance to each channel's mean.
    TfContrast(FactorRangeConfig),
    /// `tf.image.random_saturation`: scales saturation in HSV.
    TfSaturation(FactorRangeConfig),
    /// `tf.image.random_hue`: turns the hue in HSV.
    TfHue(DeltaConfig),
}

/// An operation without parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

/// `random_resized_crop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCropConfig {
    /// Smallest and largest share of the image's area.
    #[serde(default = "default_crop_scale")]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub scale: [f64; 2],
    /// Smallest and largest width / height.
    #[serde(default = "default_crop_ratio")]
    #[schemars(inner(range(min = 0.0)))]
    pub ratio: [f64; 2],
    /// How the crop is resized.
    #[serde(default)]
    pub interpolation: Interpolation,
}

fn default_crop_scale() -> [f64; 2] {
    [0.2, 1.0]
}

fn default_crop_ratio() -> [f64; 2] {
    [0.75, 4.0 / 3.0]
}

/// Resampling filter; both are antialiased when they shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Cubic filter with a = −0.5.
    Bicubic,
}

/// `pad_crop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PadCropConfig {
    /// Pixels of black added on each side.
    #[schemars(range(min = 0, max = 512))]
    pub padding: u32,
}

/// An operation that happens with a probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbabilityConfig {
    /// Probability that the operation is applied.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
}

/// `rotate90`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate90Config {
    /// Probability that the operation is applied.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Numbers of counter-clockwise quarter turns to choose from, each as likely as the others.
    #[serde(default = "default_turns")]
    #[schemars(inner(range(min = 0, max = 3)))]
    pub turns: Vec<u8>,
}

fn default_turns() -> Vec<u8> {
    vec![0, 1, 2, 3]
}

/// `color_jitter`: each strength s draws a factor from [max(0, 1 − s), 1 + s], hue from [−s, s].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColorJitterConfig {
    /// Probability that the operation is applied.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Strength of the change of brightness.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub brightness: f64,
    /// Strength of the change of contrast.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub contrast: f64,
    /// Strength of the change of saturation.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub saturation: f64,
    /// Largest turn of the hue, as a share of the colour circle.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub hue: f64,
}

/// `gaussian_blur`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GaussianBlurConfig {
    /// Probability that the operation is applied.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Smallest and largest standard deviation in pixels.
    #[serde(default = "default_sigma")]
    #[schemars(inner(range(min = 0.0, max = 100.0)))]
    pub sigma: [f64; 2],
}

fn default_sigma() -> [f64; 2] {
    [0.1, 2.0]
}

/// A random value in [−max_delta, max_delta].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeltaConfig {
    /// Largest absolute change: grey levels on the 0…255 scale for brightness, a share of the colour circle
    /// for hue.
    #[schemars(range(min = 0.0))]
    pub max_delta: f64,
}

/// A random factor in [lower, upper].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorRangeConfig {
    /// Smallest factor.
    #[schemars(range(min = 0.0))]
    pub lower: f64,
    /// Largest factor.
    #[schemars(range(min = 0.0))]
    pub upper: f64,
}
