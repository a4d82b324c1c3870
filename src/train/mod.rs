//! Training: the loop, the schedule, checkpoints.

pub mod history;
pub mod train_config;

pub use history::EpochRecord;
pub use train_config::PretrainConfig;
