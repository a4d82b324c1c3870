//! The operations of a policy as the user writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One operation of a policy. Names, parameters and meaning are torchvision's; the `tf_…` operations are
/// TensorFlow's (`tf.image`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpConfig {
    /// A random part of the image, resized to `image_size`.
    RandomResizedCrop(RandomResizedCropConfig),
    /// The whole image, squashed to `image_size` or scaled by its shorter side.
    Resize(ResizeOpConfig),
    /// The central square; black where the image is smaller.
    CenterCrop(CenterCropConfig),
    /// A random shift: padding on each side, then a random square of `image_size` (torchvision's `RandomCrop`).
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
    /// Inverts all values from a threshold on.
    Solarize(SolarizeConfig),
    /// Paints over a random rectangle.
    RandomErasing(RandomErasingConfig),
    /// `tf.image.random_brightness`: adds a random number of grey levels.
    TfBrightness(DeltaConfig),
    /// `tf.image.random_contrast`: scales the distance to each channel's mean.
    TfContrast(FactorRangeConfig),
    /// `tf.image.random_saturation`: scales saturation in HSV.
    TfSaturation(FactorRangeConfig),
    /// `tf.image.random_hue`: turns the hue in HSV.
    TfHue(DeltaConfig),
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

/// Parameters that were added later are left out of `policy.json` where they are not used, so that a policy without
/// them keeps its bytes, and what was trained with it stays valid.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

/// `resize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeOpConfig {
    /// Scale so that the shorter side has this many pixels and keep the ratio, as `Resize(n)` does; a crop must follow.
    /// Without it the image is squashed to `image_size` × `image_size`, as `Resize((n, n))` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub shorter_side: Option<u32>,
    /// How the image is resized.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
}

/// `center_crop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CenterCropConfig {
    /// Width and height of the square; without it `image_size`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4096))]
    pub size: Option<u32>,
}

/// `pad_crop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PadCropConfig {
    /// Pixels added on each side.
    #[schemars(range(min = 0, max = 512))]
    pub padding: u32,
    /// What the added pixels show.
    #[serde(default, skip_serializing_if = "is_default")]
    pub padding_mode: PaddingMode,
    /// Red, green and blue of the added pixels in mode `constant`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fill: [u8; 3],
}

/// What lies beyond the edge of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaddingMode {
    /// One colour.
    #[default]
    Constant,
    /// The pixels at the edge.
    Edge,
    /// The image mirrored, the pixels at the edge not repeated.
    Reflect,
    /// The image mirrored, the pixels at the edge repeated.
    Symmetric,
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
    /// Width of the kernel in pixels, an odd number: torchvision's `GaussianBlur`. Without it Pillow's, whose kernel is
    /// as wide as it must be and which the authors of SimSiam use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub kernel_size: Option<u32>,
}

fn default_sigma() -> [f64; 2] {
    [0.1, 2.0]
}

/// `solarize`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SolarizeConfig {
    /// Probability that the operation is applied.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Values from here on, on the 0…255 scale, are subtracted from 255.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 0, max = 256))]
    pub threshold: u32,
}

fn default_threshold() -> u32 {
    128
}

/// `random_erasing`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomErasingConfig {
    /// Probability that the operation is applied.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Smallest and largest share of the image's area.
    #[serde(default = "default_erased_scale")]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub scale: [f64; 2],
    /// Smallest and largest height / width.
    #[serde(default = "default_erased_ratio")]
    #[schemars(inner(range(min = 0.0)))]
    pub ratio: [f64; 2],
    /// What the rectangle shows.
    #[serde(default)]
    pub value: EraseValue,
}

fn default_erased_scale() -> [f64; 2] {
    [0.02, 0.33]
}

fn default_erased_ratio() -> [f64; 2] {
    [0.3, 3.3]
}

/// What an erased rectangle shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EraseValue {
    /// 0 in the network's input, which is the mean colour of `normalize`: torchvision's `value=0`.
    #[default]
    Mean,
    /// Normally distributed noise of deviation 1 in the network's input: torchvision's `value='random'`.
    Random,
    /// This red, green and blue.
    Color([u8; 3]),
}

/// A random value in [−max_delta, max_delta].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeltaConfig {
    /// Probability that the operation is applied.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Largest absolute change: grey levels on the 0…255 scale for brightness, a share of the colour circle
    /// for hue.
    #[schemars(range(min = 0.0))]
    pub max_delta: f64,
}

/// A random factor in [lower, upper].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorRangeConfig {
    /// Probability that the operation is applied.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p: f64,
    /// Smallest factor.
    #[schemars(range(min = 0.0))]
    pub lower: f64,
    /// Largest factor.
    #[schemars(range(min = 0.0))]
    pub upper: f64,
}
