//! Maximum over windows.

use super::super::cpu::pool;
use super::{Dims, window_output};

/// A max-pool; padding never wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// Edge of the window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Positions around the image that count as absent.
    pub padding: usize,
}

impl MaxPool {
    /// Shape of the output, or nothing where the window does not fit.
    pub fn output_dims(&self, input: Dims) -> Option<Dims> {
        Some(Dims {
            height: window_output(input.height, self.kernel, self.stride, self.padding)?,
            width: window_output(input.width, self.kernel, self.stride, self.padding)?,
            channels: input.channels,
        })
    }

    /// Forward.
    pub(crate) fn forward(self, input: Dims, output: Dims, x: &[f32], y: &mut [f32]) {
        pool::max_forward(self, input, output, x, y);
    }

    /// Backward: the first maximum in reading order gets the gradient.
    #[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
    pub(crate) fn backward(
        self,
        input: Dims,
        output: Dims,
        x: &[f32],
        y: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        accumulate: bool,
    ) {
        pool::max_backward(self, input, output, x, y, dy, dx, accumulate);
    }
}
