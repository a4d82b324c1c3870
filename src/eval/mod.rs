//! What the features are worth: classifiers and metrics.

pub mod classifier_metrics;
pub mod eval_config;

pub use classifier_metrics::{ClassScores, ClassifierEpoch, ClassifierMetrics, Scores};
pub use eval_config::{ExtractConfig, FitConfig};
