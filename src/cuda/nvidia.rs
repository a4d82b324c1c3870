//! An NVIDIA GPU through its driver's own interface. The driver and CUDA's run-time compiler (NVRTC) are loaded when a
//! device is opened: a program that never does runs where neither is.
//!
//! Thin on purpose: what can be wrong beside the calls themselves (sizes, addresses, arguments) is checked on the
//! emulator, which is given the same.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_int, c_void},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use cudarc::{
    driver::{
        result::{self as driver, DriverError},
        sys::{CUcontext, CUdevice, CUdevice_attribute, CUfunction, CUmodule, CUresult, is_culib_present},
    },
    nvrtc,
};

use super::{
    cuda_error::CudaError,
    device::{Argument, Device, Slice},
    kernels::{CONVERSIONS, KERNELS, source},
    precision::Precision,
};

/// The oldest compute capability with tensor cores for bf16 and tf32.
const OLDEST: (i32, i32) = (8, 0);

/// What the driver says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number: `cuda:0` is 0.
    pub ordinal: usize,
    /// The maker's name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
}

impl DeviceInfo {
    /// Whether the kernels can run on it.
    pub fn is_new_enough(&self) -> bool {
        self.capability >= OLDEST
    }
}

/// The devices of this machine.
///
/// # Errors
/// [`CudaError::Unavailable`] where there is no driver or it does not start.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    start_driver("cuda")?;
    let count = driver::device::get_count().map_err(|error| unavailable("cuda", error))?;
    (0..count.max(0) as usize).map(|ordinal| device_info(ordinal).map(|(_, info)| info)).collect()
}

/// Why the kernels cannot be compiled here, if so.
pub fn compiler_problem() -> Option<String> {
    // SAFETY: only looks whether the library can be loaded.
    let is_there = unsafe { nvrtc::sys::is_culib_present() };
    (!is_there).then(|| {
        "there is no CUDA run-time compiler: `libnvrtc` cannot be loaded; it comes with the CUDA toolkit, or with the \
         Python package `nvidia-cuda-nvrtc`, whose `lib` folder must then be in LD_LIBRARY_PATH"
            .to_owned()
    })
}

/// An open device, its kernels compiled for one precision.
#[derive(Debug)]
pub struct NvidiaDevice {
    info: DeviceInfo,
    precision: Precision,
    device: CUdevice,
    context: CUcontext,
    module: CUmodule,
    functions: BTreeMap<&'static str, CUfunction>,
    /// Length of what was allocated, by address.
    allocations: Mutex<BTreeMap<u64, usize>>,
    held: AtomicUsize,
}

// SAFETY: the driver's handles belong to no thread; every call makes the context that of the calling thread first.
unsafe impl Send for NvidiaDevice {}
// SAFETY: as above; the driver locks for itself, and what is changed here lies behind a mutex or is atomic.
unsafe impl Sync for NvidiaDevice {}

impl NvidiaDevice {
    /// Opens a device and compiles the kernels for it, which takes some seconds.
    ///
    /// # Errors
    /// [`CudaError::Unavailable`] where driver, NVRTC or the device are missing or too old; [`CudaError::Failed`] where the
    /// kernels cannot be compiled or loaded.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self, CudaError> {
        let name = format!("cuda:{ordinal}");
        start_driver(&name)?;
        let count = driver::device::get_count().map_err(|error| unavailable(&name, error))?;
        if ordinal >= count.max(0) as usize {
            let message = format!("the driver knows of {count} devices");
            return Err(CudaError::Unavailable { device: name, message });
        }
        let (device, info) = device_info(ordinal)?;
        if !info.is_new_enough() {
            let ((major, minor), (oldest, _)) = (info.capability, OLDEST);
            let message = format!("its compute capability is {major}.{minor}; {oldest}.0 is needed");
            return Err(CudaError::Unavailable { device: name, message });
        }
        let image = compile(&name, info.capability, precision)?;
        // SAFETY: the device is one that the driver gave; the context is released when this is dropped.
        let context = unsafe { driver::primary_ctx::retain(device) }.map_err(|error| unavailable(&name, error))?;
        let mut opened = Self {
            info,
            precision,
            device,
            context,
            module: std::ptr::null_mut(),
            functions: BTreeMap::new(),
            allocations: Mutex::default(),
            held: AtomicUsize::new(0),
        };
        opened.enter("loading the kernels")?;
        let failed = |error: DriverError| failed(&name, "loading the kernels", error);
        // SAFETY: the image is what NVRTC made, and lives through the call.
        opened.module = unsafe { driver::module::load_data(image.as_ptr().cast::<c_void>()) }.map_err(failed)?;
        for kernel in KERNELS.into_iter().chain(CONVERSIONS) {
            let symbol = CString::new(kernel).unwrap_or_default();
            // SAFETY: the module was loaded above.
            let function = unsafe { driver::module::get_function(opened.module, symbol) }.map_err(failed)?;
            opened.functions.insert(kernel, function);
        }
        Ok(opened)
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Free bytes of memory and all.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn free_memory(&self) -> Result<(usize, usize), CudaError> {
        self.enter("asking for free memory")?;
        driver::mem_get_info().map_err(|error| self.failed("asking for free memory", error))
    }

    fn failed(&self, action: &str, error: DriverError) -> CudaError {
        failed(&self.name(), action, error)
    }

    /// Makes the device's context that of this thread.
    fn enter(&self, action: &str) -> Result<(), CudaError> {
        // SAFETY: the context was retained and not yet released.
        unsafe { driver::ctx::set_current(self.context) }.map_err(|error| self.failed(action, error))
    }
}

impl Drop for NvidiaDevice {
    fn drop(&mut self) {
        if self.enter("closing").is_ok() && !self.module.is_null() {
            // SAFETY: the module was loaded, and nobody has its functions any more. An error has no consequence.
            let _ = unsafe { driver::module::unload(self.module) };
        }
        // SAFETY: retained when opened.
        let _ = unsafe { driver::primary_ctx::release(self.device) };
    }
}

impl Device for NvidiaDevice {
    fn name(&self) -> String {
        format!("cuda:{}", self.info.ordinal)
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.enter("an allocation")?;
        // SAFETY: the memory is freed by `free` alone.
        match unsafe { driver::malloc_sync(bytes) } {
            Ok(address) => {
                self.allocations.lock().unwrap_or_else(PoisonError::into_inner).insert(address, bytes);
                self.held.fetch_add(bytes, Ordering::Relaxed);
                Ok(address)
            }
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(CudaError::OutOfMemory {
                device: self.name(),
                wanted: bytes,
                held: self.held.load(Ordering::Relaxed),
            }),
            Err(error) => Err(self.failed("an allocation", error)),
        }
    }

    fn free(&self, address: u64) {
        let known = self.allocations.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        if let Some(bytes) = known
            && self.enter("freeing").is_ok()
        {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            // SAFETY: it was allocated here and not yet freed. An error has no consequence: the memory is gone either way.
            let _ = unsafe { driver::free_sync(address) };
        }
    }

    fn upload(&self, target: Slice, bytes: &[u8]) -> Result<(), CudaError> {
        self.enter("an upload")?;
        assert_eq!(target.bytes, bytes.len(), "an upload of another length");
        // SAFETY: the target is memory of this device and as long as the bytes.
        unsafe { driver::memcpy_htod_sync(target.address, bytes) }.map_err(|error| self.failed("an upload", error))
    }

    fn download(&self, source: Slice, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.enter("a download")?;
        assert_eq!(source.bytes, bytes.len(), "a download of another length");
        // SAFETY: the source is memory of this device and as long as the bytes.
        unsafe { driver::memcpy_dtoh_sync(bytes, source.address) }.map_err(|error| self.failed("a download", error))
    }

    fn clear(&self, target: Slice) -> Result<(), CudaError> {
        self.enter("clearing")?;
        // SAFETY: the target is memory of this device.
        unsafe { driver::memset_d8_sync(target.address, 0, target.bytes) }
            .map_err(|error| self.failed("clearing", error))
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), CudaError> {
        let action = || format!("kernel `{kernel}`");
        self.enter(&action())?;
        let function = self.functions.get(kernel).ok_or_else(|| CudaError::Failed {
            device: self.name(),
            action: action(),
            message: "there is no such kernel".into(),
        })?;
        let mut parameters: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Memory(slice) => std::ptr::from_ref(&slice.address) as *mut c_void,
                Argument::Int(value) => std::ptr::from_ref(value) as *mut c_void,
                Argument::Index(value) => std::ptr::from_ref(value) as *mut c_void,
                Argument::Float(value) => std::ptr::from_ref(value) as *mut c_void,
                Argument::Numbers(values) => values.as_ptr() as *mut c_void,
            })
            .collect();
        let [grid, block] = [grid, block].map(|[x, y, z]| (x, y, z));
        // SAFETY: the function is of a module that is loaded; the parameters point to values that live through the call,
        // of the number and types that the kernel takes, which the emulator checks for every launch of this engine.
        unsafe { driver::launch_kernel(*function, grid, block, 0, std::ptr::null_mut(), &mut parameters) }
            .map_err(|error| self.failed(&action(), error))
    }
}

fn words(error: DriverError) -> String {
    let text = |words: Result<&CStr, DriverError>| words.map_or_else(|_| String::new(), |w| w.to_string_lossy().into());
    format!("{} ({})", text(error.error_string()), text(error.error_name()))
}

fn unavailable(device: &str, error: DriverError) -> CudaError {
    CudaError::Unavailable { device: device.into(), message: words(error) }
}

fn failed(device: &str, action: &str, error: DriverError) -> CudaError {
    CudaError::Failed { device: device.into(), action: action.into(), message: words(error) }
}

fn start_driver(device: &str) -> Result<(), CudaError> {
    // SAFETY: only looks whether the library can be loaded.
    if !unsafe { is_culib_present() } {
        let message = "there is no NVIDIA driver: `libcuda` cannot be loaded".into();
        return Err(CudaError::Unavailable { device: device.into(), message });
    }
    driver::init().map_err(|error| unavailable(device, error))
}

fn device_info(ordinal: usize) -> Result<(CUdevice, DeviceInfo), CudaError> {
    let asked = || -> Result<(CUdevice, DeviceInfo), DriverError> {
        let device = driver::device::get(ordinal as c_int)?;
        // SAFETY: the device is one that the driver gave.
        let attribute = |attribute| unsafe { driver::device::get_attribute(device, attribute) };
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let info = DeviceInfo {
            ordinal,
            name: driver::device::get_name(device)?,
            capability: (major, minor),
            // SAFETY: as above.
            memory: unsafe { driver::device::total_mem(device) }?,
        };
        Ok((device, info))
    };
    asked().map_err(|error| unavailable(&format!("cuda:{ordinal}"), error))
}

/// The kernels' machine code.
fn compile(device: &str, (major, minor): (i32, i32), precision: Precision) -> Result<Vec<u8>, CudaError> {
    if let Some(message) = compiler_problem() {
        return Err(CudaError::Unavailable { device: device.into(), message });
    }
    let failed = |message: String| CudaError::Failed {
        device: device.into(),
        action: format!("compiling the kernels for compute capability {major}.{minor}"),
        message,
    };
    let text = CString::new(source(precision)).map_err(|error| failed(error.to_string()))?;
    let program = nvrtc::result::create_program(&text, None).map_err(|error| failed(error.to_string()))?;
    let options = [format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".into()];
    // SAFETY: the program was created above and is destroyed below; buffers are as long as NVRTC says.
    let image = unsafe {
        let compiled = nvrtc::result::compile_program(program, &options).map_err(|error| {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log: String = log.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect();
            failed(format!("{error}\n{log}"))
        });
        compiled.and_then(|()| {
            let mut size = 0_usize;
            nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size)
                .result()
                .map_err(|error| failed(error.to_string()))?;
            let mut image = vec![0_u8; size];
            nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
                .result()
                .map_err(|error| failed(error.to_string()))?;
            Ok(image)
        })
    };
    // SAFETY: created above. What it says no longer matters.
    let _ = unsafe { nvrtc::result::destroy_program(program) };
    image
}
