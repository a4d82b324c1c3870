//! The projector: the MLP between features and z.

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::head::Head;

/// Shape of the projector (paper, section 4.1: three layers of 2048; two layers for CIFAR, appendix D).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// Width of the layers between.
    #[serde(default = "default_dim")]
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_dim: u32,
    /// Length of z.
    #[serde(default = "default_dim")]
    #[schemars(range(min = 2, max = 65536))]
    pub output_dim: u32,
    /// Number of linear layers.
    #[serde(default = "default_num_layers")]
    #[schemars(range(min = 1, max = 8))]
    pub num_layers: u32,
    /// Batch norm without scale and shift after the last layer; where false the last layer has a bias instead.
    #[serde(default = "default_output_bn")]
    pub output_bn: bool,
}

fn default_dim() -> u32 {
    2048
}

fn default_num_layers() -> u32 {
    3
}

fn default_output_bn() -> bool {
    true
}

impl Default for ProjectorConfig {
    fn default() -> Self {
        Self {
            hidden_dim: default_dim(),
            output_dim: default_dim(),
            num_layers: default_num_layers(),
            output_bn: default_output_bn(),
        }
    }
}

/// Builds the projector g for features of `feature_dim`: batch norm after every linear layer, ReLU after all
/// but the last, and the last batch norm without scale and shift (paper, section 4.1, "Projection MLP").
pub fn build_projector(config: &ProjectorConfig, feature_dim: usize, rng: ChaCha8Rng) -> Head {
    let (hidden_dim, output_dim) = (config.hidden_dim as usize, config.output_dim as usize);
    let mut head = Head::new("projector", rng);
    let mut inputs = feature_dim;
    for _ in 1..config.num_layers {
        head = head.linear(inputs, hidden_dim, false).batch_norm_relu(hidden_dim);
        inputs = hidden_dim;
    }
    // Before a batch norm a bias changes nothing; without one it has a use.
    let head = head.linear(inputs, output_dim, !config.output_bn);
    if config.output_bn { head.plain_batch_norm(output_dim) } else { head }
}
