//! The backbone: one native module with its own layout, memory and kernels.
//!
//! A network is a flat list of operations over activation slots (`program`), built by `resnet` and `darknet_tiny`.
//! `execute` walks it forward and backward over the memory in `workspace`; `layers` say what an operation is, `cpu`
//! holds the loops. Activations are channels-last `[n, height, width, channels]`, kernels `[k, k, in, out]`.

#[allow(clippy::module_inception, reason = "a file is named after its main type")]
mod backbone;
pub mod backbone_config;
pub mod backbone_error;
#[cfg(test)]
mod backbone_tests;
pub(crate) mod cpu;
mod darknet_tiny;
mod execute;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod golden_tests;
mod init;
pub(crate) mod layers;
pub(crate) mod memory_plan;
pub mod op;
mod parameters;
pub mod program;
mod resnet;
mod state_dict;
mod workspace;

pub use crate::model::state::{StateData, StateEntry};
pub use backbone::Backbone;
pub use backbone_config::{BackboneConfig, ResnetConfig, Stem};
pub use backbone_error::BackboneError;
pub use layers::{ConvBn, Dims, GlobalPool, MaxPool};
