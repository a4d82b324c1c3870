//! The backbone: one native module with its own layout, memory and kernels.

pub mod backbone_config;

pub use backbone_config::{BackboneConfig, ResnetConfig, Stem};
