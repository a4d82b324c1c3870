//! A network's values in a device's memory: one flat buffer each for what is trained, for gradients and for velocities.

use super::{
    cuda_error::CudaError,
    device::{Memory, Slice},
    launch::{Kernels, RunningSlices},
};

/// Tensors begin at multiples of so many values, so that every one can be read 16 bytes at a time.
const ALIGNMENT: usize = 64;

/// Where a tensor lies in the flat buffers, in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Hands out places one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    len: usize,
}

impl Layout {
    pub(super) fn place(&mut self, len: usize) -> Place {
        let offset = self.len;
        self.len = (offset + len).next_multiple_of(ALIGNMENT);
        Place { offset, len }
    }

    pub(super) fn len(self) -> usize {
        self.len
    }
}

/// What only training needs.
#[derive(Debug)]
struct Training {
    gradients: Memory,
    velocity: Memory,
}

/// The flat buffers. Between tensors lie zeros.
#[derive(Debug)]
pub(super) struct Parameters {
    kernels: Kernels,
    len: usize,
    values: Memory,
    /// The values as kernels multiply by them, if that is another type.
    weights: Option<Memory>,
    training: Option<Training>,
}

impl Parameters {
    /// Zeros; without `is_trained` no memory for gradients and velocities.
    pub(super) fn new(kernels: &Kernels, layout: Layout, is_trained: bool) -> Result<Self, CudaError> {
        let (device, len) = (kernels.device(), layout.len());
        let zeros = || Memory::zeros(device, 4 * len);
        let is_half_width = kernels.precision().is_half_width();
        Ok(Self {
            kernels: kernels.clone(),
            len,
            values: zeros()?,
            weights: if is_half_width { Some(Memory::zeros(device, 2 * len)?) } else { None },
            training: if is_trained { Some(Training { gradients: zeros()?, velocity: zeros()? }) } else { None },
        })
    }

    fn training(&self) -> Result<&Training, CudaError> {
        self.training.as_ref().ok_or(CudaError::Network("it was loaded for inference only"))
    }

    /// Values of the whole buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn value(&self, place: Place) -> Slice {
        self.values.part(4, place.offset, place.len)
    }

    /// As kernels multiply by it.
    pub(super) fn weight(&self, place: Place) -> Slice {
        match &self.weights {
            Some(weights) => weights.part(2, place.offset, place.len),
            None => self.value(place),
        }
    }

    /// The weights of a range, if they are another type than the values.
    pub(super) fn half_width_weights(&self, place: Place) -> Option<Slice> {
        self.weights.as_ref().map(|weights| weights.part(2, place.offset, place.len))
    }

    pub(super) fn gradient(&self, place: Place) -> Result<Slice, CudaError> {
        Ok(self.training()?.gradients.part(4, place.offset, place.len))
    }

    pub(super) fn velocity(&self, place: Place) -> Result<Slice, CudaError> {
        Ok(self.training()?.velocity.part(4, place.offset, place.len))
    }

    /// All gradients.
    pub(super) fn gradients(&self) -> Result<Slice, CudaError> {
        Ok(self.training()?.gradients.all())
    }

    pub(super) fn write(&self, place: Place, values: &[f32]) -> Result<(), CudaError> {
        self.values.write(place.offset, values)
    }

    pub(super) fn read(&self, place: Place, values: &mut [f32]) -> Result<(), CudaError> {
        self.values.read(place.offset, values)
    }

    pub(super) fn read_gradient(&self, place: Place, values: &mut [f32]) -> Result<(), CudaError> {
        self.training()?.gradients.read(place.offset, values)
    }

    pub(super) fn write_velocity(&self, place: Place, values: &[f32]) -> Result<(), CudaError> {
        self.training()?.velocity.write(place.offset, values)
    }

    pub(super) fn read_velocity(&self, place: Place, values: &mut [f32]) -> Result<(), CudaError> {
        self.training()?.velocity.read(place.offset, values)
    }

    /// To be called when values were written.
    pub(super) fn refresh_weights(&self) -> Result<(), CudaError> {
        match &self.weights {
            Some(weights) if self.len > 0 => self.kernels.to_elements(self.len, self.values.all(), weights.all()),
            _ => Ok(()),
        }
    }
}

/// Running statistics of several batch norms.
#[derive(Debug)]
pub(super) struct Running {
    memory: Memory,
    places: Vec<(Place, Place)>,
    /// Batches that each has seen.
    pub(super) counts: Vec<i64>,
}

impl Running {
    /// For batch norms of so many channels each.
    pub(super) fn new(kernels: &Kernels, channels: &[usize]) -> Result<Self, CudaError> {
        let mut layout = Layout::default();
        let places = channels.iter().map(|channels| (layout.place(*channels), layout.place(*channels))).collect();
        let memory = Memory::zeros(kernels.device(), 4 * layout.len())?;
        Ok(Self { memory, places, counts: vec![0; channels.len()] })
    }

    pub(super) fn slices(&self, norm: usize) -> RunningSlices {
        let slice = |place: Place| self.memory.part(4, place.offset, place.len);
        let (mean, var) = self.places[norm];
        RunningSlices { mean: slice(mean), var: slice(var) }
    }

    pub(super) fn write(&mut self, norm: usize, mean: &[f32], var: &[f32], count: i64) -> Result<(), CudaError> {
        let places = self.places[norm];
        self.memory.write(places.0.offset, mean)?;
        self.memory.write(places.1.offset, var)?;
        self.counts[norm] = count;
        Ok(())
    }

    pub(super) fn read(&self, norm: usize, mean: &mut [f32], var: &mut [f32]) -> Result<i64, CudaError> {
        let places = self.places[norm];
        self.memory.read(places.0.offset, mean)?;
        self.memory.read(places.1.offset, var)?;
        Ok(self.counts[norm])
    }
}
