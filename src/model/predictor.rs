//! The predictor: the bottleneck MLP between z and p.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
