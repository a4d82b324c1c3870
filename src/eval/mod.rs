//! What the features are worth: classifiers and metrics.

pub mod eval_config;

pub use eval_config::{ExtractConfig, FitConfig};
