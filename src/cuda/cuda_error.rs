//! What can go wrong on a device.

use crate::model::{backbone::BackboneError, simsiam::SimSiamError};

/// Why a device cannot be used or did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// No driver, no device of this number, or one that is too old.
    #[error("`{device}` cannot be used: {message}")]
    Unavailable {
        /// Such as `cuda:0`.
        device: String,
        /// The driver's word.
        message: String,
    },
    /// The device has no memory left.
    #[error("`{device}` has no memory left: {wanted} bytes were needed beside {held} that are held")]
    OutOfMemory {
        /// Such as `cuda:0`.
        device: String,
        /// Bytes of this request.
        wanted: usize,
        /// Bytes that this program holds there.
        held: usize,
    },
    /// A kernel cannot be compiled, launched or finished.
    #[error("{action} failed on `{device}`: {message}")]
    Failed {
        /// Such as `cuda:0`.
        device: String,
        /// What was to be done.
        action: String,
        /// The driver's word.
        message: String,
    },
    /// Kernels count rows with 32 bits.
    #[error("a batch of {n} images is too large for a device: a layer would have more than {} rows", i32::MAX)]
    TooLarge {
        /// Images of all views in a part.
        n: usize,
    },
    /// More views than the loss compares.
    #[error("{found} views of an image are more than the {most} that a device compares")]
    TooManyViews {
        /// Views of each image.
        found: usize,
        /// The most there may be.
        most: usize,
    },
    /// A network of operations in an order that the engine does not know.
    #[error("the network cannot run on a device: {0}")]
    Network(&'static str),
    /// The network refused.
    #[error(transparent)]
    Model(#[from] SimSiamError),
}

impl From<BackboneError> for CudaError {
    fn from(error: BackboneError) -> Self {
        Self::Model(error.into())
    }
}
