//! What the engine asks of a device: memory, copies, kernels. One stream; everything happens in the order it was asked
//! for.

use std::{fmt::Debug, sync::Arc};

use super::{cuda_error::CudaError, precision::Precision};

/// A device with kernels that were compiled for one precision.
pub trait Device: Debug + Send + Sync {
    /// Such as `cuda:0`.
    fn name(&self) -> String;

    /// What its kernels were compiled for.
    fn precision(&self) -> Precision;

    /// Memory of `bytes` bytes, at least one, that begins at a multiple of 256 (the emulator: 16). What it holds is
    /// anything.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;

    /// Gives memory back that [`Self::allocate`] gave.
    fn free(&self, address: u64);

    /// Copies to the device.
    ///
    /// # Errors
    /// Where the device fails.
    fn upload(&self, target: Slice, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies from the device, after everything that was asked for before.
    ///
    /// # Errors
    /// Where the device fails, now or in a kernel before.
    fn download(&self, source: Slice, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Fills with zeros.
    ///
    /// # Errors
    /// Where the device fails.
    fn clear(&self, target: Slice) -> Result<(), CudaError>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// Where it cannot be started.
    fn launch(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), CudaError>;
}

/// A part of a device's memory. It does not keep the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where it begins.
    pub address: u64,
    /// Its length.
    pub bytes: usize,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A pointer.
    Memory(Slice),
    /// `int`
    Int(i32),
    /// `long long`
    Index(i64),
    /// `float`
    Float(f32),
    /// A struct of `int`s.
    Numbers(&'a [i32]),
}

/// Owned memory of a device.
#[derive(Debug)]
pub struct Memory {
    device: Arc<dyn Device>,
    slice: Slice,
}

impl Memory {
    /// Memory of so many bytes, whatever it holds.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, CudaError> {
        let address = device.allocate(bytes.max(1))?;
        Ok(Self { device: Arc::clone(device), slice: Slice { address, bytes } })
    }

    /// Memory of so many bytes full of zeros.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn zeros(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, CudaError> {
        let memory = Self::new(device, bytes)?;
        if bytes > 0 {
            device.clear(memory.slice)?;
        }
        Ok(memory)
    }

    /// Memory that holds these numbers.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(device: &Arc<dyn Device>, values: &[f32]) -> Result<Self, CudaError> {
        let memory = Self::new(device, size_of_val(values))?;
        device.upload(memory.slice, bytemuck::cast_slice(values))?;
        Ok(memory)
    }

    /// All of it.
    pub fn all(&self) -> Slice {
        self.slice
    }

    /// Values from `first` on, `len` of them, each of so many bytes.
    ///
    /// # Panics
    /// Where that reaches beyond the end, which only this engine could ask for.
    pub fn part(&self, value_bytes: usize, first: usize, len: usize) -> Slice {
        let (begin, bytes) = (first * value_bytes, len * value_bytes);
        assert!(begin + bytes <= self.slice.bytes, "a part of {bytes} bytes at {begin} of {}", self.slice.bytes);
        Slice { address: self.slice.address + begin as u64, bytes }
    }

    /// Numbers from `first` on.
    ///
    /// # Errors
    /// As [`Device::download`].
    pub fn read(&self, first: usize, values: &mut [f32]) -> Result<(), CudaError> {
        self.device.download(self.part(4, first, values.len()), bytemuck::cast_slice_mut(values))
    }

    /// Numbers to `first` and after.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn write(&self, first: usize, values: &[f32]) -> Result<(), CudaError> {
        self.device.upload(self.part(4, first, values.len()), bytemuck::cast_slice(values))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.free(self.slice.address);
    }
}
