//! Convolution: which algorithm computes which shape.
//!
//! Weights are `[kernel row, kernel column, in, out]`, activations `[n, height, width, channels]`.

use super::super::layers::Dims;
use super::prepared::{PreparedWeights, Weights};
use super::winograd::{self, Tiling};
use super::{direct, stem};
use crate::kernels::scratch::Scratch;

/// The numbers of one convolution over one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) n: usize,
    pub(crate) input: Dims,
    pub(crate) output: Dims,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl ConvShape {
    /// Values of one patch.
    pub(crate) fn depth(&self) -> usize {
        self.kernel * self.kernel * self.input.channels
    }

    /// Operations of direct convolution; a multiply-add is two.
    pub(crate) fn flop(&self) -> f64 {
        2.0 * (self.positions() * self.depth() * self.output.channels) as f64
    }

    /// Output positions of the batch.
    pub(crate) fn positions(&self) -> usize {
        self.n * self.output.positions()
    }
}

/// Values of the weights as the kernels of this shape want them, at the most.
pub(crate) fn prepared_len(shape: &ConvShape) -> usize {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let kernels = |tiling: Option<Tiling>| tiling.map_or(shape.kernel * shape.kernel, |tiling| tiling.num_kernels());
    kernels(Tiling::of(shape)).max(kernels(Tiling::of_gradients(shape))) * cin * cout
}

/// `y = conv(x, w)`. While a block of positions is still in the cache, `finish` gets it and the position it begins
/// at; what it returns comes back in the order of the blocks.
pub(crate) fn forward<T: Send>(
    shape: &ConvShape,
    x: &[f32],
    w: Weights<'_>,
    y: &mut [f32],
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
    finish: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    if let Some(tiling) = Tiling::of(shape) {
        return winograd::forward(&tiling, shape, x, w, y, prepared, scratch, finish);
    }
    if stem::fits(shape) {
        return stem::forward(shape, x, w, y, prepared, finish);
    }
    direct::forward(shape, x, w, y, prepared, finish)
}

/// `dw = dL/dw`, or `dw += dL/dw`.
pub(crate) fn weight_gradient(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    if let Some(tiling) = Tiling::of_gradients(shape) {
        return winograd::weight_gradient(&tiling, shape, x, dy, dw, accumulate, scratch);
    }
    if stem::fits(shape) {
        return stem::weight_gradient(shape, x, dy, dw, accumulate, scratch);
    }
    direct::weight_gradient(shape, x, dy, dw, accumulate, scratch);
}

/// `dx = dL/dx`, or `dx += dL/dx`.
pub(crate) fn data_gradient(
    shape: &ConvShape,
    dy: &[f32],
    w: Weights<'_>,
    dx: &mut [f32],
    accumulate: bool,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    if let Some(tiling) = Tiling::of_gradients(shape) {
        return winograd::data_gradient(&tiling, shape, dy, w, dx, accumulate, prepared, scratch);
    }
    direct::data_gradient(shape, dy, w, dx, accumulate, prepared);
}
