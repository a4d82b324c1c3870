//! What computes: this processor, or a GPU. Beside `cuda` itself, here is where the program knows whether it was built
//! with an engine for GPUs.

#[cfg(any(test, feature = "cuda"))]
use std::sync::Arc;

#[cfg(any(test, feature = "cuda"))]
use crate::cuda::{self, CudaBackbone, CudaError};
use crate::model::{backbone::Backbone, simsiam::SimSiamError};

/// What computes. It decides how long something takes and the last digits of the result, never what is computed.
#[derive(Clone, Debug, Default)]
pub enum Compute {
    /// This processor.
    #[default]
    Cpu,
    /// A GPU, opened for a precision.
    #[cfg(any(test, feature = "cuda"))]
    Cuda(Arc<dyn cuda::Device>),
}

/// Why something could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The network refused.
    #[error(transparent)]
    Model(#[from] SimSiamError),
    /// The device did not do it.
    #[error("{0}")]
    Device(String),
}

#[cfg(any(test, feature = "cuda"))]
impl From<CudaError> for ComputeError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Model(error) => Self::Model(error),
            error => Self::Device(error.to_string()),
        }
    }
}

/// The engine that runs a backbone which does not learn.
#[derive(Debug, Default)]
pub enum Inference {
    /// The backbone itself.
    #[default]
    Cpu,
    /// A copy of it on a GPU.
    #[cfg(any(test, feature = "cuda"))]
    Cuda(Box<CudaBackbone>),
}

impl Compute {
    /// An engine for `backbone` as it is now.
    ///
    /// # Errors
    /// Where the device has too little memory or fails.
    #[cfg_attr(not(any(test, feature = "cuda")), allow(unused_variables, clippy::unnecessary_wraps))]
    pub fn inference(&self, backbone: &Backbone) -> Result<Inference, ComputeError> {
        match self {
            Self::Cpu => Ok(Inference::Cpu),
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(device) => Ok(Inference::Cuda(Box::new(CudaBackbone::new(device, backbone)?))),
        }
    }
}

impl Inference {
    /// As [`Backbone::forward_eval`] of the backbone that the engine was made for.
    ///
    /// # Errors
    /// As that, and where the device has too little memory or fails.
    pub fn forward_eval(
        &self,
        backbone: &Backbone,
        images: &[f32],
        n: usize,
        image_size: usize,
    ) -> Result<Vec<f32>, ComputeError> {
        match self {
            Self::Cpu => Ok(backbone.forward_eval(images, n, image_size).map_err(SimSiamError::from)?),
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(engine) => Ok(engine.forward_eval(backbone, images, n, image_size)?),
        }
    }
}
