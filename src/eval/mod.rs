//! What the features are worth: classifiers and metrics.

pub mod classifier_metrics;
pub mod eval_config;
pub mod eval_error;
pub mod knn;
pub mod label_subset;
mod lbfgs;
pub mod linear_classifier;
pub mod linear_probe;
mod matmul;
pub mod metrics;
mod seeded_rng;

pub use classifier_metrics::{ClassScores, ClassifierEpoch, ClassifierMetrics, Scores};
pub use eval_config::{ExtractConfig, FitConfig};
pub use eval_error::EvalError;
