//! The predictor: the bottleneck MLP between z and p.

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::head::Head;

/// Shape of the predictor (paper, section 4.1: a bottleneck of a quarter of z).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictorConfig {
    /// Width of the bottleneck.
    #[serde(default = "default_hidden_dim")]
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_dim: u32,
}

fn default_hidden_dim() -> u32 {
    512
}

impl Default for PredictorConfig {
    fn default() -> Self {
        Self { hidden_dim: default_hidden_dim() }
    }
}

/// Builds the predictor h for z of `dim` numbers: a bottleneck with batch norm and ReLU, then a linear layer with
/// bias and nothing after it (paper, section 4.1, "Prediction MLP").
pub fn build_predictor(config: &PredictorConfig, dim: usize, rng: ChaCha8Rng) -> Head {
    let hidden_dim = config.hidden_dim as usize;
    Head::new("predictor", rng).linear(dim, hidden_dim, false).batch_norm_relu(hidden_dim).linear(hidden_dim, dim, true)
}
