//! Convolution by im2col and matrix products: any kernel, stride and padding. A 1×1 convolution with stride 1 is
//! a matrix product as it stands.

use rayon::prelude::*;

use super::conv::ConvShape;
use super::im2col::{col2im, gather, im2col};
use super::prepared::{Form, PreparedWeights, Weights};
use crate::kernels::matrix::{Matrix, multiply_packed, pack, pack_here, packed_len};
use crate::kernels::scratch::{Scratch, with_scratch};

/// Rows of a block are a multiple of this, the height of the kernel's strips.
const STRIP: usize = 14;

/// Positions of one task when each needs `depth` values: few enough for the second-level cache, many enough to
/// amortise reading the weights, and at least a few tasks in all.
fn block(positions: usize, depth: usize) -> usize {
    const VALUES: usize = 1 << 18;
    const MIN_TASKS: usize = 8;
    let block = (VALUES / depth).clamp(2 * STRIP, 32 * STRIP).min(positions.div_ceil(MIN_TASKS));
    block.next_multiple_of(STRIP)
}

fn is_pointwise(shape: &ConvShape) -> bool {
    shape.kernel == 1 && shape.stride == 1 && shape.padding == 0
}

/// The weights as the right-hand side of the forward product.
pub(super) fn packed_weights<'a>(shape: &ConvShape, w: Weights<'_>, prepared: &'a mut PreparedWeights) -> &'a [f32] {
    let (depth, cout) = (shape.depth(), shape.output.channels);
    prepared.get(w.version, Form::Packed, packed_len(depth, cout), |packed| {
        pack(Matrix::row_major(w.values, cout), depth, cout, packed);
    })
}

/// `y = conv(x, w)`; `finish` gets each finished block of positions and where it begins.
pub(super) fn forward<T: Send>(
    shape: &ConvShape,
    x: &[f32],
    w: Weights<'_>,
    y: &mut [f32],
    prepared: &mut PreparedWeights,
    finish: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    let (depth, cout) = (shape.depth(), shape.output.channels);
    let block = block(shape.positions(), depth);
    let packed = packed_weights(shape, w, prepared);
    let task = |(idx, y): (usize, &mut [f32])| {
        let (first, rows) = (idx * block, y.len() / cout);
        if is_pointwise(shape) {
            let x = Matrix::row_major(&x[first * depth..], depth);
            multiply_packed([rows, cout, depth], x, packed, y, cout, false);
        } else {
            with_scratch([rows * depth], |[columns]| {
                im2col(shape, x, first..first + rows, columns);
                let columns = Matrix::row_major(columns, depth);
                multiply_packed([rows, cout, depth], columns, packed, y, cout, false);
            });
        }
        finish(first, y)
    };
    y.par_chunks_mut(block * cout).enumerate().map(task).collect()
}

/// `dw = dL/dw`, or `dw += dL/dw`.
pub(super) fn weight_gradient(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    const MAX_VALUES: usize = 1 << 23;
    const MAX_GROUPS: usize = 16;
    let groups = (shape.positions() / 1024).clamp(1, MAX_GROUPS);
    if groups >= 4 && groups * dw.len() <= MAX_VALUES {
        weight_gradient_by_positions(shape, groups, x, dy, dw, accumulate, scratch);
    } else {
        weight_gradient_by_columns(shape, x, dy, dw, accumulate, scratch);
    }
}

/// Many positions, few weights: each task sums over its share of the positions; the sums are added in order.
fn weight_gradient_by_positions(
    shape: &ConvShape,
    groups: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    let (depth, cout, positions) = (shape.depth(), shape.output.channels, shape.positions());
    let share = positions.div_ceil(groups);
    let block = block(positions, depth + cout).min(share);
    let groups = positions.div_ceil(share);
    let [sums] = scratch.parts([groups * dw.len()]);
    sums.par_chunks_mut(dw.len()).enumerate().for_each(|(group, sums)| {
        let end = positions.min((group + 1) * share);
        let copied = if is_pointwise(shape) { 0 } else { block * depth };
        with_scratch([copied, packed_len(block, cout)], |[columns, packed]| {
            for first in (group * share..end).step_by(block) {
                let rows = block.min(end - first);
                pack_here(Matrix::row_major(&dy[first * cout..], cout), rows, cout, packed);
                let x = if is_pointwise(shape) {
                    &x[first * depth..]
                } else {
                    im2col(shape, x, first..first + rows, columns);
                    &*columns
                };
                let add = first > group * share;
                multiply_packed([depth, cout, rows], Matrix::transposed(x, depth), packed, sums, cout, add);
            }
        });
    });
    add_in_order(sums, dw, accumulate);
}

/// The sum of the parts of `sums` in order, written to `target` or added to it.
pub(super) fn add_in_order(sums: &[f32], target: &mut [f32], accumulate: bool) {
    const BLOCK: usize = 1 << 12;
    let len = target.len();
    target.par_chunks_mut(BLOCK).enumerate().for_each(|(idx, target)| {
        if !accumulate {
            target.fill(0.0);
        }
        for part in sums.chunks_exact(len) {
            for (t, s) in target.iter_mut().zip(&part[idx * BLOCK..]) {
                *t += s;
            }
        }
    });
}

/// Few positions, many weights: a task owns some patch columns (rows of `dw`) and goes through all positions.
fn weight_gradient_by_columns(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    const BLOCK: usize = 512;
    let (depth, cout, positions) = (shape.depth(), shape.output.channels, shape.positions());
    let row = shape.kernel * shape.input.channels;
    // Columns of one task: they stay inside one kernel row.
    let width = if row <= 64 { row } else { largest_divisor(shape.input.channels, 64) };
    let block_len = packed_len(BLOCK, cout);
    let [packed] = scratch.parts([positions.div_ceil(BLOCK) * block_len]);
    packed.par_chunks_mut(block_len).zip(dy.par_chunks(BLOCK * cout)).for_each(|(packed, dy)| {
        pack_here(Matrix::row_major(dy, cout), dy.len() / cout, cout, packed);
    });
    dw.par_chunks_mut(width * cout).enumerate().for_each(|(idx, dw)| {
        let (ky, first_column) = (idx * width / row, idx * width % row);
        for (first, packed) in (0..positions).step_by(BLOCK).zip(packed.chunks(block_len)) {
            let rows = BLOCK.min(positions - first);
            let add = accumulate || first > 0;
            if is_pointwise(shape) {
                let x = Matrix::transposed(&x[first * depth + first_column..], depth);
                multiply_packed([width, cout, rows], x, packed, dw, cout, add);
            } else {
                with_scratch([rows * width], |[columns]| {
                    let range = first_column..first_column + width;
                    gather(shape, x, first..first + rows, ky, range, columns, width);
                    multiply_packed([width, cout, rows], Matrix::transposed(columns, width), packed, dw, cout, add);
                });
            }
        }
    });
}

fn largest_divisor(value: usize, at_most: usize) -> usize {
    (1..=value.min(at_most)).rev().find(|d| value.is_multiple_of(*d)).unwrap_or(1)
}

/// `dx = dL/dx`, or `dx += dL/dx`. A task owns a few images, or some positions of a pointwise convolution.
pub(super) fn data_gradient(
    shape: &ConvShape,
    dy: &[f32],
    w: Weights<'_>,
    dx: &mut [f32],
    accumulate: bool,
    prepared: &mut PreparedWeights,
) {
    let (depth, cout) = (shape.depth(), shape.output.channels);
    let packed = prepared.get(w.version, Form::Packed, packed_len(cout, depth), |packed| {
        pack(Matrix::transposed(w.values, cout), cout, depth, packed);
    });
    if is_pointwise(shape) {
        let block = block(shape.positions(), depth.max(cout));
        dx.par_chunks_mut(block * depth).enumerate().for_each(|(idx, dx)| {
            let dy = Matrix::row_major(&dy[idx * block * cout..], cout);
            multiply_packed([dx.len() / depth, depth, cout], dy, packed, dx, depth, accumulate);
        });
        return;
    }
    let per_image = shape.output.positions();
    let images = (4 * STRIP).div_ceil(per_image);
    let tasks = dx.par_chunks_mut(images * shape.input.len()).zip(dy.par_chunks(images * per_image * cout));
    tasks.for_each(|(dx, dy)| {
        let part = ConvShape { n: dx.len() / shape.input.len(), ..*shape };
        let block = block(part.positions(), depth).max(4 * STRIP);
        if !accumulate {
            dx.fill(0.0);
        }
        with_scratch([block * depth], |[columns]| {
            for first in (0..part.positions()).step_by(block) {
                let rows = block.min(part.positions() - first);
                let dy = Matrix::row_major(&dy[first * cout..], cout);
                multiply_packed([rows, depth, cout], dy, packed, columns, depth, false);
                col2im(&part, columns, first..first + rows, dx);
            }
        });
    });
}
