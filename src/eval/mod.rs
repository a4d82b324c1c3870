//! What the features are worth: classifiers and metrics.

pub mod alignment;
pub mod class_geometry;
pub mod classifier_artifact;
pub mod classifier_metrics;
pub mod cross_validation;
pub mod embed;
pub mod embeddings;
pub mod eval_config;
pub mod eval_error;
pub mod feature_file;
pub mod frozen_network;
pub mod knn;
pub mod label_subset;
mod lbfgs;
pub mod linear_classifier;
pub mod linear_probe;
mod matmul;
pub mod metrics;
pub mod model_artifact;
pub mod nearest;
pub mod neighbours;
mod npy;
pub mod raw_pixels;
pub mod representation_health;
mod symmetric_eigen;
pub(crate) mod tensor_file;
pub mod thumbnails;

pub use classifier_metrics::{ClassScores, ClassifierEpoch, ClassifierMetrics, Scores};
pub use eval_config::{ExtractConfig, FitConfig};
pub use eval_error::EvalError;
