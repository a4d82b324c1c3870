//! Mean or maximum over all positions of an image.

use super::super::cpu::pool;
use super::Dims;

/// How an image becomes one feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalPool {
    /// The mean.
    Average,
    /// The maximum.
    Maximum,
}

impl GlobalPool {
    /// One position, all channels.
    pub fn output_dims(input: Dims) -> Dims {
        Dims { height: 1, width: 1, channels: input.channels }
    }

    /// Forward.
    pub(crate) fn forward(self, input: Dims, x: &[f32], y: &mut [f32]) {
        match self {
            GlobalPool::Average => pool::global_average_forward(input, x, y),
            GlobalPool::Maximum => pool::global_max_forward(input, x, y),
        }
    }

    /// Backward; the mean does not need `x` and `y`.
    pub(crate) fn backward(self, input: Dims, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
        match self {
            GlobalPool::Average => pool::global_average_backward(input, dy, dx, accumulate),
            GlobalPool::Maximum => pool::global_max_backward(input, x, y, dy, dx, accumulate),
        }
    }
}
