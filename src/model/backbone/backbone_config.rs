//! Which backbone to build.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network whose output is the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BackboneConfig {
    /// ResNet-18: 512 features.
    Resnet18(ResnetConfig),
    /// ResNet-34: 512 features.
    Resnet34(ResnetConfig),
    /// ResNet-50: 2048 features.
    Resnet50(ResnetConfig),
    /// A small Darknet-like network with residuals: 128 features.
    DarknetTiny(DarknetTinyConfig),
}

impl BackboneConfig {
    /// The word for it in pipelines and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resnet18(_) => "resnet18",
            Self::Resnet34(_) => "resnet34",
            Self::Resnet50(_) => "resnet50",
            Self::DarknetTiny(_) => "darknet_tiny",
        }
    }
}

/// Options of a ResNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResnetConfig {
    /// How the network begins.
    #[serde(default)]
    pub stem: Stem,
    /// Start each residual branch at zero by setting the scale of its last batch norm to 0.
    #[serde(default)]
    pub zero_init_residual: bool,
}

/// How a ResNet begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7×7 convolution with stride 2, then 3×3 max-pool with stride 2.
    #[default]
    Imagenet,
    /// 3×3 convolution with stride 1 and no pooling, for small images.
    Cifar,
}

/// `darknet_tiny` has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DarknetTinyConfig {}
