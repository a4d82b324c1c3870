//! What the user writes of a policy, and policies that have a name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::augment_config::{
    AugmentConfig, ColorJitterConfig, DEFAULT_VIEWS, DeltaConfig, EvaluationViewConfig, FactorRangeConfig,
    GaussianBlurConfig, Interpolation, NormalizeConfig, OpConfig, PreviewConfig, ProbabilityConfig,
    RandomResizedCropConfig, Rotate90Config,
};

/// Parameters of an `augment` stage: how one image becomes its views.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AugmentSpec {
    /// A policy that is written out already; keys beside it take the place of its own.
    /// `simsiam-pipe init --show-preset` prints it in full.
    pub preset: Option<Preset>,
    /// Width and height of a view in pixels. Needed without a preset.
    #[schemars(range(min = 8, max = 1024))]
    pub image_size: Option<u32>,
    /// Number of views of each image that pretraining compares, each with each.
    #[serde(default = "default_views")]
    #[schemars(range(min = 2, max = 8))]
    pub views: u32,
    /// Operations in the order in which they are applied. Where none of them sets the size, the image is
    /// resized to `image_size` first. Needed without a preset, or `view_ops` instead.
    pub ops: Option<Vec<OpConfig>>,
    /// Operations of each view where views differ, in place of `ops`: one list for each of `views`. Where a single view
    /// is wanted it is the first.
    #[serde(default)]
    pub view_ops: Vec<Vec<OpConfig>>,
    /// How pixels become network input: (pixel / 255 − mean) / std for each channel. `imagenet` without a preset.
    pub normalize: Option<NormalizeConfig>,
    /// How an image becomes network input where nothing is random (extraction, kNN monitor, prediction).
    /// `resize_and_center_crop` without a preset.
    pub evaluation: Option<EvaluationViewConfig>,
    /// The contact sheet.
    #[serde(default)]
    pub preview: PreviewConfig,
}

fn default_views() -> u32 {
    DEFAULT_VIEWS
}

/// A policy that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The paper's policy for ImageNet (section 4.1 and appendix A), 224 × 224.
    SimsiamImagenet,
    /// The paper's policy for CIFAR-10 (appendix D): without blur, 32 × 32.
    SimsiamCifar,
    /// Flips, quarter turns and TensorFlow's colour operations on whole images, 64 × 64.
    SimsiamTf,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SimsiamImagenet, Self::SimsiamCifar, Self::SimsiamTf];

    /// The word in the pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimsiamImagenet => "simsiam_imagenet",
            Self::SimsiamCifar => "simsiam_cifar",
            Self::SimsiamTf => "simsiam_tf",
        }
    }

    /// One sentence about it.
    pub fn summary(self) -> &'static str {
        match self {
            Self::SimsiamImagenet => "the paper's policy for ImageNet (section 4.1 and appendix A)",
            Self::SimsiamCifar => "the paper's policy for CIFAR-10 (appendix D): without blur",
            Self::SimsiamTf => "flips, quarter turns and TensorFlow's colour operations on whole images",
        }
    }

    /// The policy written out.
    pub fn config(self) -> AugmentConfig {
        let half = ProbabilityConfig { p: 0.5 };
        let paper = |blur: bool| {
            let mut ops = vec![
                OpConfig::RandomResizedCrop(RandomResizedCropConfig {
                    scale: [0.2, 1.0],
                    ratio: [0.75, 4.0 / 3.0],
                    interpolation: Interpolation::Bilinear,
                }),
                OpConfig::ColorJitter(ColorJitterConfig {
                    p: 0.8,
                    brightness: 0.4,
                    contrast: 0.4,
                    saturation: 0.4,
                    hue: 0.1,
                }),
                OpConfig::Grayscale(ProbabilityConfig { p: 0.2 }),
            ];
            if blur {
                ops.push(OpConfig::GaussianBlur(GaussianBlurConfig { p: 0.5, sigma: [0.1, 2.0], kernel_size: None }));
            }
            ops.push(OpConfig::HorizontalFlip(half));
            ops
        };
        let (image_size, ops, normalize, evaluation) = match self {
            Self::SimsiamImagenet => {
                (224, paper(true), NormalizeConfig::Imagenet, EvaluationViewConfig::ResizeAndCenterCrop)
            }
            // The images have this size already.
            Self::SimsiamCifar => (32, paper(false), NormalizeConfig::Cifar10, EvaluationViewConfig::Squash),
            Self::SimsiamTf => {
                let factor = FactorRangeConfig { p: 1.0, lower: 0.2, upper: 1.8 };
                let ops = vec![
                    OpConfig::HorizontalFlip(half),
                    OpConfig::VerticalFlip(half),
                    OpConfig::Rotate90(Rotate90Config { p: 1.0, turns: vec![0, 1, 2, 3] }),
                    OpConfig::TfBrightness(DeltaConfig { p: 1.0, max_delta: 0.8 }),
                    OpConfig::TfContrast(factor),
                    OpConfig::TfSaturation(factor),
                    OpConfig::TfHue(DeltaConfig { p: 1.0, max_delta: 0.2 }),
                ];
                (64, ops, NormalizeConfig::Unit, EvaluationViewConfig::Squash)
            }
        };
        AugmentConfig {
            image_size,
            views: DEFAULT_VIEWS,
            ops,
            view_ops: vec![],
            normalize,
            evaluation,
            preview: PreviewConfig::default(),
        }
    }
}

impl TryFrom<AugmentSpec> for AugmentConfig {
    type Error = String;

    fn try_from(spec: AugmentSpec) -> Result<Self, String> {
        let missing = |key: &str| format!("`{key}` is missing: write it, or name a `preset`");
        let base = spec.preset.map(Preset::config);
        let given = spec.ops.or(if spec.view_ops.is_empty() { None } else { Some(vec![]) });
        Ok(Self {
            image_size: spec
                .image_size
                .or(base.as_ref().map(|base| base.image_size))
                .ok_or_else(|| missing("image_size"))?,
            views: spec.views,
            ops: given.or(base.as_ref().map(|base| base.ops.clone())).ok_or_else(|| missing("ops"))?,
            view_ops: spec.view_ops,
            normalize: spec.normalize.or(base.as_ref().map(|base| base.normalize.clone())).unwrap_or_default(),
            evaluation: spec.evaluation.or(base.as_ref().map(|base| base.evaluation)).unwrap_or_default(),
            preview: spec.preview,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::augment::Policy;

    fn config(value: Value) -> Result<AugmentConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_preset_is_the_policy_written_out() {
        for preset in Preset::ALL {
            let named = config(json!({ "preset": preset })).unwrap();
            assert_eq!(named, preset.config());
            assert!(Policy::build(&named).is_ok(), "{preset:?}");
            assert_eq!(serde_json::to_value(preset).unwrap(), json!(preset.name()));
            // What is stored and hashed names no preset and is read back as it is.
            let stored = serde_json::to_value(&named).unwrap();
            assert!(stored.get("preset").is_none());
            assert_eq!(config(stored).unwrap(), named);
        }
    }

    #[test]
    fn keys_beside_a_preset_take_the_place_of_its_own() {
        let spec = json!({ "preset": "simsiam_cifar", "image_size": 64, "normalize": "unit" });
        let given = config(spec).unwrap();
        let preset = Preset::SimsiamCifar.config();
        assert_eq!(given, AugmentConfig { image_size: 64, normalize: NormalizeConfig::Unit, ..preset.clone() });
        let given = config(json!({ "preset": "simsiam_cifar", "view_ops": [[], []] })).unwrap();
        assert_eq!(given, AugmentConfig { ops: vec![], view_ops: vec![vec![], vec![]], ..preset });
    }

    #[test]
    fn without_a_preset_the_essentials_are_needed() {
        assert!(config(json!({ "ops": [] })).unwrap_err().contains("`image_size` is missing"));
        assert!(config(json!({ "image_size": 32 })).unwrap_err().contains("`ops` is missing"));
        assert!(config(json!({ "image_size": 32, "ops": [] })).is_ok());
    }
}
