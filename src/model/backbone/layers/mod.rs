//! The layers: what each is, its shape arithmetic, its forward and its backward pass.

pub(super) mod conv_bn;
mod global_pool;
mod max_pool;

pub use conv_bn::ConvBn;
pub use global_pool::GlobalPool;
pub use max_pool::MaxPool;

/// Shape of one image's activation; memory order is height, width, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Dims {
    /// Values of one image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there is nothing.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Positions of one image.
    pub fn positions(self) -> usize {
        self.height * self.width
    }
}

/// Output edge of a window of `kernel` with `stride` and `padding`, or nothing where the window does not fit.
fn window_output(input: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    Some((input + 2 * padding).checked_sub(kernel)? / stride + 1)
}
