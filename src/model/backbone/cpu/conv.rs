//! Convolution by im2col and matrix products: any kernel, stride and padding. A 1×1 convolution with stride 1 is
//! a matrix product as it stands.
//!
//! Weights are `[kernel row, kernel column, in, out]`, activations `[n, height, width, channels]`.

use rayon::prelude::*;

use super::super::layers::Dims;
use super::im2col::{col2im, gather, im2col};
use super::matrix::{Matrix, multiply};
use super::scratch::with_scratch;

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

    /// Output positions of the batch.
    pub(crate) fn positions(&self) -> usize {
        self.n * self.output.positions()
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Positions that one task works on: enough to amortise reading the weights, few enough to fit the cache.
    fn block(&self) -> usize {
        const PATCH_VALUES: usize = 1 << 19;
        (PATCH_VALUES / self.depth().max(self.output.channels)).clamp(64, 1024)
    }
}

/// `y = conv(x, w)`.
pub(crate) fn forward(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (block, depth, cout) = (shape.block(), shape.depth(), shape.output.channels);
    let w = Matrix::row_major(w, cout);
    y.par_chunks_mut(block * cout).enumerate().for_each(|(idx, y)| {
        let (first, rows) = (idx * block, y.len() / cout);
        if shape.is_pointwise() {
            multiply([rows, cout, depth], Matrix::row_major(&x[first * depth..], depth), w, y, cout, false);
        } else {
            with_scratch(rows * depth, |columns| {
                im2col(shape, x, first..first + rows, columns);
                multiply([rows, cout, depth], Matrix::row_major(columns, depth), w, y, cout, false);
            });
        }
    });
}

/// `dw += dL/dw`. A task owns some patch columns (rows of `dw`) and goes through all positions in order.
pub(crate) fn weight_gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (block, depth, cout) = (shape.block(), shape.depth(), shape.output.channels);
    let row = shape.kernel * shape.input.channels;
    // Columns of one task: they stay inside one kernel row.
    let width = if row <= 64 { row } else { largest_divisor(shape.input.channels, 128) };
    dw.par_chunks_mut(width * cout).enumerate().for_each(|(idx, dw)| {
        let (ky, first_column) = (idx * width / row, idx * width % row);
        for first in (0..shape.positions()).step_by(block) {
            let rows = block.min(shape.positions() - first);
            let dy = Matrix::row_major(&dy[first * cout..], cout);
            if shape.is_pointwise() {
                let x = Matrix::transposed(&x[first * depth + first_column..], depth);
                multiply([width, cout, rows], x, dy, dw, cout, true);
            } else {
                with_scratch(rows * width, |columns| {
                    let range = first_column..first_column + width;
                    gather(shape, x, first..first + rows, ky, range, columns, width);
                    multiply([width, cout, rows], Matrix::transposed(columns, width), dy, dw, cout, true);
                });
            }
        }
    });
}

fn largest_divisor(value: usize, at_most: usize) -> usize {
    (1..=value.min(at_most)).rev().find(|d| value.is_multiple_of(*d)).unwrap_or(1)
}

/// `dx = dL/dx`, or `dx += dL/dx`. A task owns one image, or some positions of a pointwise convolution.
pub(crate) fn data_gradient(shape: &ConvShape, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
    let (block, depth, cout) = (shape.block(), shape.depth(), shape.output.channels);
    let w = Matrix::transposed(w, cout);
    if shape.is_pointwise() {
        dx.par_chunks_mut(block * depth).enumerate().for_each(|(idx, dx)| {
            let dy = Matrix::row_major(&dy[idx * block * cout..], cout);
            multiply([dx.len() / depth, depth, cout], dy, w, dx, depth, accumulate);
        });
        return;
    }
    let one = ConvShape { n: 1, ..*shape };
    let per_image = one.positions();
    dx.par_chunks_mut(shape.input.len()).zip(dy.par_chunks(per_image * cout)).for_each(|(dx, dy)| {
        if !accumulate {
            dx.fill(0.0);
        }
        for first in (0..per_image).step_by(block) {
            let rows = block.min(per_image - first);
            with_scratch(rows * depth, |columns| {
                let dy = Matrix::row_major(&dy[first * cout..], cout);
                multiply([rows, depth, cout], dy, w, columns, depth, false);
                col2im(&one, columns, first..first + rows, dx);
            });
        }
    });
}
