//! Convolution of few channels, such as those of an image: a kernel row of a patch is contiguous in a padded image row,
//! and the patches of neighbouring outputs overlap there. The products read them where they lie; im2col would copy
//! every pixel kernel²/stride² times.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::ConvShape;
use super::direct::{add_in_order, packed_weights};
use super::prepared::{PreparedWeights, Weights};
use crate::kernels::matrix::{Matrix, Patches, multiply_packed, multiply_patches, pack_here, packed_len};
use crate::kernels::scratch::{Scratch, with_scratch};

/// Output positions of one task of the forward pass, about.
const POSITIONS: usize = 448;
/// Parts of the batch whose weight gradients are summed apart.
const MAX_GROUPS: usize = 16;

/// Whether patches are worth reading in place.
pub(super) fn fits(shape: &ConvShape) -> bool {
    shape.input.channels <= 4 && shape.kernel > 1
}

/// Values from one padded image row to the next.
fn pitch(shape: &ConvShape) -> usize {
    (shape.input.width + 2 * shape.padding) * shape.input.channels
}

/// Padded image rows that `rows` of output rows read.
fn num_padded(shape: &ConvShape, rows: usize) -> usize {
    (rows - 1) * shape.stride + shape.kernel
}

/// Writes the image rows that the output rows `rows` of an image read, with zeros around them.
fn pad(shape: &ConvShape, image: &[f32], rows: &Range<usize>, padded: &mut [f32]) {
    let row_len = shape.input.width * shape.input.channels;
    let side = shape.padding * shape.input.channels;
    for (idx, out) in padded.chunks_exact_mut(pitch(shape)).enumerate().take(num_padded(shape, rows.len())) {
        let y = (rows.start * shape.stride + idx).checked_sub(shape.padding).filter(|&y| y < shape.input.height);
        let Some(y) = y else {
            out.fill(0.0);
            continue;
        };
        out[..side].fill(0.0);
        out[side..side + row_len].copy_from_slice(&image[y * row_len..][..row_len]);
        out[side + row_len..].fill(0.0);
    }
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
    let (cout, width) = (shape.output.channels, shape.output.width);
    let packed = packed_weights(shape, w, prepared);
    let rows_of_task = (POSITIONS / width).clamp(1, shape.output.height);
    let mut blocks = vec![];
    let mut rest = y;
    for image in 0..shape.n {
        for first in (0..shape.output.height).step_by(rows_of_task) {
            let rows = first..shape.output.height.min(first + rows_of_task);
            let (block, other) = std::mem::take(&mut rest).split_at_mut(rows.len() * width * cout);
            blocks.push((image, rows, block));
            rest = other;
        }
    }
    let task = |(image, rows, y): (usize, Range<usize>, &mut [f32])| {
        with_scratch([num_padded(shape, rows.len()) * pitch(shape)], |[padded]| {
            pad(shape, &x[image * shape.input.len()..][..shape.input.len()], &rows, padded);
            for (idx, y) in y.chunks_exact_mut(width * cout).enumerate() {
                let patches = Patches {
                    data: &padded[idx * shape.stride * pitch(shape)..],
                    step: shape.stride * shape.input.channels,
                    rows: shape.kernel,
                    row_len: shape.kernel * shape.input.channels,
                    pitch: pitch(shape),
                };
                multiply_patches([width, cout], patches, packed, y);
            }
        });
        finish((image * shape.output.height + rows.start) * width, y)
    };
    blocks.into_par_iter().map(task).collect()
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
    let (cout, width, height) = (shape.output.channels, shape.output.width, shape.output.height);
    let row_len = shape.kernel * shape.input.channels;
    let share = shape.n.div_ceil(MAX_GROUPS);
    let groups = shape.n.div_ceil(share);
    let [sums] = scratch.parts([groups * dw.len()]);
    sums.par_chunks_mut(dw.len()).enumerate().for_each(|(group, sums)| {
        let lengths = [num_padded(shape, height) * pitch(shape), packed_len(width, cout)];
        with_scratch(lengths, |[padded, packed]| {
            let first = group * share;
            for image in first..shape.n.min(first + share) {
                pad(shape, &x[image * shape.input.len()..][..shape.input.len()], &(0..height), padded);
                let dy = &dy[image * shape.output.len()..][..shape.output.len()];
                for (row, dy) in dy.chunks_exact(width * cout).enumerate() {
                    pack_here(Matrix::row_major(dy, cout), width, cout, packed);
                    for (ky, sums) in sums.chunks_exact_mut(row_len * cout).enumerate() {
                        let source = &padded[(row * shape.stride + ky) * pitch(shape)..];
                        let x = Matrix::transposed(source, shape.stride * shape.input.channels);
                        let add = image > first || row > 0;
                        multiply_packed([row_len, cout, width], x, packed, sums, cout, add);
                    }
                }
            }
        });
    });
    add_in_order(sums, dw, accumulate);
}
