//! A device for tests: the kernels compiled as C++ and run on the CPU, every thread a fiber, every access checked
//! (`emulator/emulator.h` says what for).

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    fmt::Debug,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{
    cuda_error::CudaError,
    device::{Argument, Device, Slice},
    kernels::{CONVERSIONS, KERNELS, source},
    precision::Precision,
};
use crate::digest::Digest;

const EMULATOR: &str = include_str!("emulator/emulator.h");
const INTERFACE: &str = include_str!("emulator/interface.h");

/// An argument as the C++ side reads it.
#[repr(C)]
struct RawArgument {
    kind: u64,
    value: u64,
    bytes: u64,
}

/// The functions of one library.
#[derive(Debug)]
struct Library {
    new: unsafe extern "C" fn() -> *mut c_void,
    delete: unsafe extern "C" fn(*mut c_void),
    set_order: unsafe extern "C" fn(*mut c_void, c_int),
    allocate: unsafe extern "C" fn(*mut c_void, usize) -> u64,
    free: unsafe extern "C" fn(*mut c_void, u64) -> c_int,
    owns: unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int,
    #[allow(clippy::type_complexity, reason = "a C function as it is")]
    launch: unsafe extern "C" fn(
        *mut c_void,
        *const c_char,
        *const c_uint,
        *const c_uint,
        *const RawArgument,
        usize,
    ) -> *const c_char,
}

/// An emulated device.
#[derive(Debug)]
pub(crate) struct Emulator {
    library: &'static Library,
    handle: Mutex<Handle>,
    precision: Precision,
}

#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: the C++ object is bound to no thread, and the mutex lets one at a time use it.
unsafe impl Send for Handle {}

impl Emulator {
    /// A device with nothing in it.
    pub(crate) fn open(precision: Precision) -> Arc<Self> {
        static LIBRARIES: [OnceLock<Library>; 4] = [const { OnceLock::new() }; 4];
        let library = LIBRARIES[precision.number()].get_or_init(|| Library::build(precision));
        // SAFETY: the library is loaded and never unloaded.
        let handle = Mutex::new(Handle(unsafe { (library.new)() }));
        Arc::new(Self { library, handle, precision })
    }

    /// The same device, which runs blocks, warps and threads in the opposite order: what depends on the order shows.
    pub(crate) fn open_backwards(precision: Precision) -> Arc<Self> {
        let emulator = Self::open(precision);
        // SAFETY: the handle is this device's.
        unsafe { (emulator.library.set_order)(emulator.handle().0, 1) };
        emulator
    }

    fn handle(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: impl Into<String>, message: impl Into<String>) -> CudaError {
        CudaError::Failed { device: self.name(), action: action.into(), message: message.into() }
    }

    fn check(&self, action: &str, slice: Slice, len: usize) -> Result<(), CudaError> {
        // SAFETY: the handle is this device's.
        let owns = unsafe { (self.library.owns)(self.handle().0, slice.address, slice.bytes) };
        if owns == 0 || slice.bytes != len {
            let message =
                format!("{len} bytes and {slice:?}, which is {} memory", if owns == 0 { "no" } else { "its" });
            return Err(self.failed(action, message));
        }
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // SAFETY: the handle is this device's, and nobody has it any more.
        unsafe { (self.library.delete)(self.handle().0) };
    }
}

impl Device for Emulator {
    fn name(&self) -> String {
        "emulator".into()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        // SAFETY: the handle is this device's.
        let address = unsafe { (self.library.allocate)(self.handle().0, bytes) };
        if address == 0 {
            return Err(CudaError::OutOfMemory { device: self.name(), wanted: bytes, held: 0 });
        }
        Ok(address)
    }

    fn free(&self, address: u64) {
        // SAFETY: the handle is this device's; an address that is not memory is noticed.
        let known = unsafe { (self.library.free)(self.handle().0, address) };
        assert!(known == 1, "what was never allocated was freed");
    }

    fn upload(&self, target: Slice, bytes: &[u8]) -> Result<(), CudaError> {
        self.check("an upload", target, bytes.len())?;
        // SAFETY: the range was found to be live memory of this length.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, source: Slice, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.check("a download", source, bytes.len())?;
        // SAFETY: the range was found to be live memory of this length.
        unsafe { std::ptr::copy_nonoverlapping(source.address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&self, target: Slice) -> Result<(), CudaError> {
        self.check("clearing", target, target.bytes)?;
        // SAFETY: the range was found to be live memory of this length.
        unsafe { std::ptr::write_bytes(target.address as *mut u8, 0, target.bytes) };
        Ok(())
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), CudaError> {
        let raw = |argument: &Argument<'_>| match argument {
            Argument::Memory(slice) => RawArgument { kind: 0, value: slice.address, bytes: slice.bytes as u64 },
            Argument::Int(value) => RawArgument { kind: 1, value: i64::from(*value) as u64, bytes: 0 },
            Argument::Index(value) => RawArgument { kind: 2, value: *value as u64, bytes: 0 },
            Argument::Float(value) => RawArgument { kind: 3, value: u64::from(value.to_bits()), bytes: 0 },
            Argument::Numbers(values) => {
                RawArgument { kind: 4, value: values.as_ptr() as u64, bytes: size_of_val(*values) as u64 }
            }
        };
        let raw: Vec<RawArgument> = arguments.iter().map(raw).collect();
        let name = CString::new(kernel).map_err(|error| self.failed("a launch", error.to_string()))?;
        let handle = self.handle();
        // SAFETY: grid, block and arguments live through the call; the message is copied before the next one.
        let error = unsafe {
            let message =
                (self.library.launch)(handle.0, name.as_ptr(), grid.as_ptr(), block.as_ptr(), raw.as_ptr(), raw.len());
            (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
        };
        match error {
            Some(message) => Err(self.failed(format!("kernel `{kernel}`"), message)),
            None => Ok(()),
        }
    }
}

impl Library {
    /// Compiles and loads it; what was compiled before is used again.
    fn build(precision: Precision) -> Self {
        let mut names: Vec<&str> = KERNELS.to_vec();
        names.extend(CONVERSIONS);
        let table = names.iter().fold(String::new(), |table, name| table + "ENTRY(" + name + ") ");
        let (define, kernels) = {
            let source = source(precision);
            let (first, rest) = source.split_once('\n').unwrap();
            (first.to_owned(), rest.to_owned())
        };
        let source = format!("{define}\n{EMULATOR}\n{kernels}\n#define EMULATOR_TABLE {table}\n{INTERFACE}");
        let folder = std::env::current_exe().unwrap().parent().unwrap().join("cuda-emulator");
        let name = format!("{}-{}", precision.name(), &Digest::of(source.as_bytes()).to_string()[..16]);
        let library = folder.join(format!("{name}.so"));
        if !library.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            compile(&source, &folder, &name, &library);
        }
        load(&library)
    }
}

fn compile(source: &str, folder: &Path, name: &str, library: &Path) {
    let own = |ending: &str| folder.join(format!("{name}.{}.{ending}", std::process::id()));
    let (text, made): (PathBuf, PathBuf) = (own("cpp"), own("so"));
    std::fs::write(&text, source).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let flags = "-std=c++17 -O3 -march=native -fPIC -shared -ftls-model=initial-exec -w";
    let result = Command::new(&compiler).args(flags.split(' ')).arg(&text).arg("-o").arg(&made).output();
    let output = result.unwrap_or_else(|error| {
        panic!("the tests of the CUDA kernels need a C++ compiler; `{compiler}` cannot be run: {error}; set CXX")
    });
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&text).unwrap();
    // Another process may have been quicker; its library is the same.
    std::fs::rename(&made, library).unwrap();
}

fn load(library: &Path) -> Library {
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: the library was compiled from the sources above, runs nothing when loaded, and has these functions with
    // these parameters.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null(), "`{}` cannot be loaded: {:?}", library.display(), CStr::from_ptr(libc::dlerror()));
        let symbol = |name: &str| {
            let name = CString::new(format!("emulator_{name}")).unwrap();
            let address = libc::dlsym(handle, name.as_ptr());
            assert!(!address.is_null(), "{name:?} is missing");
            address
        };
        Library {
            new: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut c_void>(symbol("new")),
            delete: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(symbol("delete")),
            set_order: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int)>(symbol(
                "set_order",
            )),
            allocate: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, usize) -> u64>(symbol(
                "allocate",
            )),
            free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u64) -> c_int>(symbol("free")),
            owns: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int>(symbol(
                "owns",
            )),
            launch: std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(
                    *mut c_void,
                    *const c_char,
                    *const c_uint,
                    *const c_uint,
                    *const RawArgument,
                    usize,
                ) -> *const c_char,
            >(symbol("launch")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{checks, device::Memory};
    use super::*;

    fn open(precision: Precision) -> Arc<dyn Device> {
        Emulator::open(precision)
    }

    crate::cuda_checks!(open);

    #[test]
    fn backbones_are_pytorchs() {
        for file in ["darknet_tiny_own_3x27", "resnet18_cifar_3x19", "resnet50_imagenet_8x33"] {
            checks::backbone_is_pytorchs(&open, file);
        }
    }

    #[test]
    fn a_step_is_pytorchs() {
        checks::a_step_is_pytorchs(&open, 1);
    }

    #[test]
    fn the_order_of_blocks_and_threads_changes_no_bit() {
        for precision in Precision::ALL {
            let backwards: Arc<dyn Device> = Emulator::open_backwards(precision);
            assert_eq!(checks::train_a_little(&backwards), checks::train_a_little(&open(precision)));
        }
    }

    fn launch(device: &Arc<dyn Device>, arguments: &[Argument<'_>]) -> String {
        device
            .launch("sum_parts", [1, 1, 1], [256, 1, 1], arguments)
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_a_gpu_might_let_pass_is_an_error() {
        let device = open(Precision::F32);
        let (x, y) = (Memory::new(&device, 80).unwrap(), Memory::new(&device, 40).unwrap());
        let with = |x: Slice, len: i64, parts: i32| {
            [
                Argument::Memory(x),
                Argument::Memory(y.all()),
                Argument::Index(len),
                Argument::Int(parts),
                Argument::Int(0),
            ]
        };
        assert_eq!(launch(&device, &with(x.all(), 10, 2)), "");
        let mut sums = [0.0; 10];
        y.read(0, &mut sums).unwrap();
        assert!(sums.iter().all(|sum| sum.is_nan()), "what was never written must show: {sums:?}");
        let message = launch(&device, &with(x.all(), 10, 3));
        assert!(message.contains("reaches elements from 20 of 20"), "{message}");
        let message = launch(&device, &with(x.part(4, 0, 19), 10, 2));
        assert!(message.contains("reaches elements from 19 of 19"), "{message}");
        let message = launch(&device, &with(Slice { bytes: 84, ..x.all() }, 10, 2));
        assert!(message.contains("never allocated"), "{message}");
        let message = launch(&device, &with(x.all(), 10, 2)[..4]);
        assert!(message.contains("takes 5 arguments"), "{message}");
        let mut swapped = with(x.all(), 10, 2);
        swapped.swap(2, 3);
        let message = launch(&device, &swapped);
        assert!(message.contains("arguments of other types"), "{message}");
        let freed = x.all();
        drop(x);
        let message = launch(&device, &with(freed, 10, 2));
        assert!(message.contains("was freed"), "{message}");
        assert!(device.upload(freed, &[0; 80]).is_err());
        let message = device.launch("sum_parts", [1, 65536, 1], [256, 1, 1], &with(y.all(), 1, 1)).unwrap_err();
        assert!(message.to_string().contains("no device can launch"), "{message}");
        let message = device.launch("sum_part", [1, 1, 1], [256, 1, 1], &[]).unwrap_err();
        assert!(message.to_string().contains("no such kernel"), "{message}");
    }

    #[test]
    fn a_barrier_that_some_threads_miss_is_an_error() {
        let device = open(Precision::F32);
        let memory = Memory::new(&device, 4 * 64).unwrap();
        let launch = |threads: i32| {
            let arguments = [Argument::Memory(memory.all()), Argument::Int(threads)];
            device.launch("half_a_barrier", [1, 1, 1], [64, 1, 1], &arguments)
        };
        launch(64).unwrap();
        launch(0).unwrap();
        let message = launch(40).unwrap_err().to_string();
        assert!(message.contains("not all threads of the block reach"), "{message}");
    }

    #[test]
    fn shared_memory_begins_as_nan() {
        let device = open(Precision::F32);
        let memory = Memory::zeros(&device, 8 * 8).unwrap();
        let (values, result) = (memory.part(8, 0, 4), memory.part(8, 4, 1));
        let arguments = [
            Argument::Memory(values),
            Argument::Memory(result),
            Argument::Int(4),
            Argument::Float(1.0),
            Argument::Int(0),
        ];
        // Written for 256 threads: of 64 it misses what the others bring.
        device.launch("sum_scaled", [1, 1, 1], [64, 1, 1], &arguments).unwrap();
        let mut sum = [0.0_f64];
        device.download(result, bytemuck::cast_slice_mut(&mut sum)).unwrap();
        assert!(sum[0].is_nan());
    }
}
