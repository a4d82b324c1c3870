//! From one image to one view: pure functions of pixels and a seed.

pub mod augment_config;

pub use augment_config::AugmentConfig;
