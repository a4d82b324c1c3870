//! What computes: this processor, or a GPU. Beside `cuda` itself, here is where the program knows whether it was built
//! with an engine for GPUs.

mod device_choice;
pub mod precision;

#[cfg(any(test, feature = "cuda"))]
use std::sync::Arc;

pub use device_choice::{DeviceChoice, UnknownDevice};
pub use precision::Precision;
use serde::Serialize;

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
    /// The device has too little memory.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device did not do it.
    #[error("{0}")]
    Device(String),
}

#[cfg(any(test, feature = "cuda"))]
impl From<CudaError> for ComputeError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Model(error) => Self::Model(error),
            CudaError::OutOfMemory { .. } => Self::OutOfMemory(error.to_string()),
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

/// What a device was opened as.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// What computes.
    pub compute: Compute,
    /// Its name for people: `cpu`, or `cuda:0` with what the maker calls it and the precision.
    pub name: String,
    /// Why it is not what `auto` would have preferred, if that is so.
    pub note: Option<String>,
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number: `cuda:0` is 0.
    pub ordinal: usize,
    /// What the maker calls it.
    pub name: String,
    /// Compute capability.
    pub capability: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether this program can compute on it, as far as that can be told without trying.
    pub usable: bool,
}

/// What is said where no GPU can be used.
#[cfg(not(feature = "cuda"))]
const NOT_BUILT: &str = "this program was built without CUDA: `cargo build --release --features cuda` builds it in";

/// The GPUs of this machine.
///
/// # Errors
/// Why there are none for this program: it was built without, there is no driver, or the driver refuses.
pub fn gpus() -> Result<Vec<Gpu>, String> {
    #[cfg(feature = "cuda")]
    {
        let devices = cuda::nvidia::devices().map_err(|error| match error {
            CudaError::Unavailable { message, .. } => message,
            error => error.to_string(),
        })?;
        Ok(devices
            .into_iter()
            .map(|info| Gpu {
                ordinal: info.ordinal,
                capability: format!("{}.{}", info.capability.0, info.capability.1),
                memory: info.memory as u64,
                usable: info.is_new_enough(),
                name: info.name,
            })
            .collect())
    }
    #[cfg(not(feature = "cuda"))]
    Err(NOT_BUILT.to_owned())
}

/// Why the kernels cannot be compiled here, if so: CUDA's run-time compiler is not part of the driver.
pub fn compiler_problem() -> Option<String> {
    #[cfg(feature = "cuda")]
    return cuda::nvidia::compiler_problem();
    #[cfg(not(feature = "cuda"))]
    None
}

/// Whether what was asked for by name is there, before anything else is done.
///
/// # Errors
/// Why it is not.
pub fn check(choice: DeviceChoice) -> Result<(), ComputeError> {
    let DeviceChoice::Cuda(ordinal) = choice else { return Ok(()) };
    let refused = |message: String| Err(ComputeError::Device(format!("`{choice}` cannot be used: {message}")));
    match gpus() {
        Err(message) => refused(message),
        Ok(gpus) => match gpus.iter().find(|gpu| gpu.ordinal == ordinal as usize) {
            None => refused(format!("this machine has {} GPUs", gpus.len())),
            Some(gpu) if !gpu.usable => {
                refused(format!("{} has compute capability {}; 8.0 is needed", gpu.name, gpu.capability))
            }
            Some(_) => compiler_problem().map_or(Ok(()), refused),
        },
    }
}

/// Opens what computes. `auto` takes the first GPU that can be used, and this processor where there is none.
///
/// # Errors
/// Where a GPU that was asked for by its number cannot be used.
pub fn open(choice: DeviceChoice, precision: Precision) -> Result<Opened, ComputeError> {
    let cpu = |note| Opened { compute: Compute::Cpu, name: "cpu".to_owned(), note };
    match choice {
        DeviceChoice::Cpu => Ok(cpu(None)),
        DeviceChoice::Cuda(ordinal) => {
            check(choice)?;
            open_gpu(ordinal as usize, precision)
        }
        // Without a driver there is nothing to say: most machines have none.
        DeviceChoice::Auto => match gpus().unwrap_or_default().iter().find(|gpu| gpu.usable) {
            None => Ok(cpu(None)),
            Some(gpu) => Ok(open_gpu(gpu.ordinal, precision).unwrap_or_else(|error| {
                cpu(Some(format!("{} is there and cannot be used, so the CPU computes: {error}", gpu.name)))
            })),
        },
    }
}

#[cfg(feature = "cuda")]
fn open_gpu(ordinal: usize, precision: Precision) -> Result<Opened, ComputeError> {
    let device = cuda::nvidia::NvidiaDevice::open(ordinal, precision)?;
    let name = format!("cuda:{ordinal} {} {}", device.info().name, precision.name());
    Ok(Opened { compute: Compute::Cuda(Arc::new(device)), name, note: None })
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(_ordinal: usize, _precision: Precision) -> Result<Opened, ComputeError> {
    Err(ComputeError::Device(NOT_BUILT.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// On machines without a GPU, and in builds without CUDA everywhere.
    #[test]
    fn without_a_gpu_auto_is_the_processor_and_a_number_is_an_error() {
        if gpus().is_ok_and(|gpus| !gpus.is_empty()) {
            return;
        }
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu] {
            let opened = open(choice, Precision::Bf16).unwrap();
            assert!(matches!(opened.compute, Compute::Cpu) && opened.name == "cpu" && opened.note.is_none());
            assert!(check(choice).is_ok());
        }
        for error in
            [check(DeviceChoice::Cuda(1)).unwrap_err(), open(DeviceChoice::Cuda(1), Precision::F32).unwrap_err()]
        {
            assert!(error.to_string().starts_with("`cuda:1` cannot be used: "), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_build_it_in() {
        let error = check(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(error.to_string().contains("--features cuda"), "{error}");
        assert_eq!((gpus(), compiler_problem()), (Err(NOT_BUILT.to_owned()), None));
    }
}
