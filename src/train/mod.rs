//! Training: the loop, the schedule, checkpoints.

pub mod checkpoint;
pub mod classifier;
#[cfg(test)]
mod classifier_golden;
pub mod collapse;
pub mod crc32c;
pub mod early_stopping;
pub mod encoder_card;
mod engine;
pub mod history;
pub mod optimizer;
pub mod pretrain;
pub mod schedule;
pub mod step;
pub mod tensorboard;
pub mod train_config;
pub mod train_error;
#[cfg(test)]
mod winograd_curve_tests;

pub use encoder_card::{EncoderCard, Preprocessing};
pub use history::{EpochRecord, EpochTime};
pub use train_config::PretrainConfig;
pub use train_error::TrainError;
