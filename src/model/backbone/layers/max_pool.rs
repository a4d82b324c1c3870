//! Maximum over windows.

use super::{Dims, window_output};

/// A max-pool; padding never wins, and of equal values the first in reading order gets the gradient. It follows a
/// batch norm, and both are computed in one.
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
}
