//! A backbone that does not learn, in a device's memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    backbone::DeviceBackbone,
    cuda_error::CudaError,
    device::Device,
    launch::Kernels,
    parameters::{Layout, Parameters},
};
use crate::model::backbone::Backbone;

/// A backbone for inference.
#[derive(Debug)]
pub struct CudaBackbone {
    parameters: Parameters,
    /// One caller at a time: a device works on one batch anyway.
    backbone: Mutex<DeviceBackbone>,
}

impl CudaBackbone {
    /// The network of `host` with its values.
    ///
    /// # Errors
    /// Where the device has too little memory or fails.
    pub fn new(device: &Arc<dyn Device>, host: &Backbone) -> Result<Self, CudaError> {
        let kernels = Kernels::new(device);
        let mut layout = Layout::default();
        let mut backbone = DeviceBackbone::new(&kernels, host, &mut layout)?;
        let parameters = Parameters::new(&kernels, layout, false)?;
        backbone.load(&parameters, host)?;
        parameters.refresh_weights()?;
        Ok(Self { parameters, backbone: Mutex::new(backbone) })
    }

    /// As [`Backbone::forward_eval`]; `host` says what images the network takes.
    ///
    /// # Errors
    /// As that, and where the device has too little memory or fails.
    pub fn forward_eval(
        &self,
        host: &Backbone,
        images: &[f32],
        n: usize,
        image_size: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let dims = host.check_batch(images, n, image_size)?;
        let mut backbone = self.backbone.lock().unwrap_or_else(PoisonError::into_inner);
        backbone.forward_eval(&self.parameters, &dims, images, n, image_size)
    }
}
