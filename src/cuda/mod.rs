//! The engine on an NVIDIA GPU: the backbone's program, the heads, the loss and the update, all by kernels of this
//! project.
//!
//! The kernels (`kernels/*.cu`) are CUDA C and know nothing of the host. `launch` says for each what it reads and writes
//! and how many blocks it gets; it speaks to a [`Device`], of which there are two: an NVIDIA GPU (`nvidia`, feature
//! `cuda`; the kernels are compiled for it when it is opened) and an emulator (`emulator`, tests only; the same sources
//! compiled as C++). `parameters`, `backbone`, `head` and `simsiam` hold a network in a device's memory and walk it.
//!
//! The host keeps a [`crate::model::simsiam::SimSiam`] of the same configuration: it says what the network is, its values
//! are loaded from and stored to it, and so states, checkpoints and weight files are the same on every device.

mod backbone;
#[doc(hidden)]
pub mod checks;
pub mod cuda_error;
pub mod device;
#[cfg(test)]
pub(crate) mod emulator;
mod frozen;
mod head;
pub mod kernels;
mod launch;
#[cfg(feature = "cuda")]
pub mod nvidia;
mod parameters;
mod simsiam;

pub use crate::compute::precision::{self, Precision};
pub use cuda_error::CudaError;
pub use device::Device;
pub use frozen::CudaBackbone;
pub use simsiam::{CudaRates, CudaSimSiam, CudaStep, LossScale};
