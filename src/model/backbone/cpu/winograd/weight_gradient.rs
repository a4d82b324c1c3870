//! The weight gradient: transformed pixels times transformed gradients, summed over all tiles.

use rayon::prelude::*;

use super::super::conv::ConvShape;
use super::super::direct::add_in_order;
use super::strided::{
    StridedFilterGradient2, StridedFilterGradient3, StridedFilterGradient4, StridedInput2, StridedInput3,
    StridedInput4, StridedOutputGradient2, StridedOutputGradient3, StridedOutputGradient4,
};
use super::tiles::{Layout, Scheme, Tiling, rows_of_task, spread, transform_pixels};
use super::transform::{
    FilterGradient2, FilterGradient3, FilterGradient4, FilterGradientPair, Input2, Input3, Input4, InputPair,
    OutputGradient2, OutputGradient3, OutputGradient4, OutputGradientPair, Tile, Transform, transform_tile,
};
use crate::kernels::matrix::{Matrix, multiply_packed};
use crate::kernels::scratch::{Scratch, with_scratch};
use crate::kernels::shared_mut::SharedMut;

/// `dw = dL/dw`, or `dw += dL/dw`.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(in super::super) fn weight_gradient(
    tiling: &Tiling,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let call = match tiling.scheme {
        Scheme::Four => gradient_of_weights::<6, Input4, OutputGradient4, FilterGradient4>,
        Scheme::Three => gradient_of_weights::<5, Input3, OutputGradient3, FilterGradient3>,
        Scheme::Two => gradient_of_weights::<4, Input2, OutputGradient2, FilterGradient2>,
        Scheme::Pair => gradient_of_weights::<3, InputPair, OutputGradientPair, FilterGradientPair>,
        Scheme::StridedFour => gradient_of_weights::<9, StridedInput4, StridedOutputGradient4, StridedFilterGradient4>,
        Scheme::StridedThree => gradient_of_weights::<7, StridedInput3, StridedOutputGradient3, StridedFilterGradient3>,
        Scheme::StridedTwo => gradient_of_weights::<5, StridedInput2, StridedOutputGradient2, StridedFilterGradient2>,
    };
    call(tiling, cin, cout, x, dy, dw, accumulate, scratch);
}

#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
fn gradient_of_weights<const EDGE: usize, I: Transform<EDGE>, D: Transform<EDGE>, F: Transform<EDGE>>(
    tiling: &Tiling,
    cin: usize,
    cout: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    const VALUES: usize = 1 << 22;
    const MAX_GROUPS: usize = 16;
    /// Input channels of one task where tasks divide the frequencies.
    const CHANNELS: usize = 128;
    let (frequencies, kernels) = (tiling.frequencies(), tiling.num_kernels());
    let sums_of = spread(cin * cout);
    let sums_len = kernels * sums_of;
    let task = 2 * rows_of_task(tiling);
    let groups = (VALUES / sums_len).min(MAX_GROUPS).min(tiling.tile_rows().div_ceil(task));
    if groups >= 4 {
        // Each task sums over its share of the tiles.
        let share = tiling.tile_rows().div_ceil(task).div_ceil(groups) * task;
        let groups = tiling.tile_rows().div_ceil(share);
        let [sums] = scratch.parts([groups * sums_len]);
        sums.par_chunks_mut(sums_len).enumerate().for_each(|(group, sums)| {
            let tiles = task * tiling.columns;
            let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
            let lengths = [frequencies * a.frequency, frequencies * b.frequency, cin.max(cout)];
            with_scratch(lengths, |[pixels, gradients, zeros]| {
                zeros.fill(0.0);
                let begin = group * share;
                let end = tiling.tile_rows().min(begin + share);
                for first in (begin..end).step_by(task) {
                    let rows = first..end.min(first + task);
                    // The panels of a shorter block lie closer together.
                    let tiles = rows.len() * tiling.columns;
                    let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
                    // SAFETY: both buffers hold all frequencies and belong to this thread.
                    unsafe {
                        let (x_rows, to) = (rows.clone(), pixels.as_mut_ptr());
                        transform_pixels::<EDGE, I>(tiling, tiling.input(), x, x_rows, zeros, a, first, to);
                        let to = gradients.as_mut_ptr();
                        transform_pixels::<EDGE, D>(tiling, tiling.output(), dy, rows, zeros, b, first, to);
                    }
                    for f in 0..frequencies {
                        let kernel = tiling.kernel_of(f);
                        let sums = &mut sums[kernel * sums_of..][..sums_of];
                        let add = first > begin || tiling.first_of(kernel) < f;
                        let a = Matrix::transposed(&pixels[f * a.frequency..], cin);
                        let b = &gradients[f * b.frequency..][..b.frequency];
                        multiply_packed([cin, cout, tiles], a, b, sums, cout, add);
                    }
                }
            });
        });
        let (sums, others) = sums.split_at_mut(sums_len);
        add_in_order(others, sums, true);
        transform_sums::<EDGE, F>(sums, cin, cout, dw, accumulate);
        return;
    }

    let tiles = (2 * VALUES / (frequencies * (cin + cout))).max(112);
    let rows = tiling.equal_blocks(tiles);
    let tiles = rows * tiling.columns;
    let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
    let lengths = [sums_len, frequencies * a.frequency, frequencies * b.frequency, cin.max(cout)];
    let [sums, pixels, gradients, zeros] = scratch.parts(lengths);
    zeros.fill(0.0);
    let zeros = &*zeros;
    for first in (0..tiling.tile_rows()).step_by(rows) {
        let range = first..tiling.tile_rows().min(first + rows);
        let tiles = range.len() * tiling.columns;
        let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
        let (to_pixels, to_gradients) = (SharedMut::new(pixels), SharedMut::new(gradients));
        let task = rows_of_task(tiling);
        let starts: Vec<usize> = range.clone().step_by(task).collect();
        starts.par_iter().for_each(|&start| {
            let rows = start..range.end.min(start + task);
            // SAFETY: both buffers hold all frequencies; tasks have tiles of their own.
            unsafe {
                let (x_rows, to) = (rows.clone(), to_pixels.pointer(0));
                transform_pixels::<EDGE, I>(tiling, tiling.input(), x, x_rows, zeros, a, first, to);
                let to = to_gradients.pointer(0);
                transform_pixels::<EDGE, D>(tiling, tiling.output(), dy, rows, zeros, b, first, to);
            }
        });
        let (pixels, gradients) = (&*pixels, &*gradients);
        sums.par_chunks_mut(sums_of).enumerate().for_each(|(kernel, sums)| {
            // More tasks than kernels, for machines with many cores.
            sums[..cin * cout].par_chunks_mut(CHANNELS * cout).enumerate().for_each(|(idx, sums)| {
                let mut add = first > 0;
                for f in (0..frequencies).filter(|&f| tiling.kernel_of(f) == kernel) {
                    let a = Matrix::transposed(&pixels[f * a.frequency + idx * CHANNELS..], cin);
                    let b = &gradients[f * b.frequency..][..b.frequency];
                    multiply_packed([sums.len() / cout, cout, tiles], a, b, sums, cout, add);
                    add = true;
                }
            });
        });
    }
    transform_sums::<EDGE, F>(sums, cin, cout, dw, accumulate);
}

/// Transforms the sums into the gradient of the kernel.
fn transform_sums<const EDGE: usize, T: Transform<EDGE>>(
    sums: &[f32],
    cin: usize,
    cout: usize,
    dw: &mut [f32],
    accumulate: bool,
) {
    const ROWS: usize = 8;
    let (edge, sums_of) = (T::INPUTS, spread(cin * cout));
    assert!(sums.len() >= edge * edge * sums_of && dw.len() == 9 * cin * cout);
    let shared = SharedMut::new(dw);
    (0..cin.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        for row in task * ROWS..cin.min((task + 1) * ROWS) {
            let mut source = [[std::ptr::null(); EDGE]; EDGE];
            for (i, source) in source.iter_mut().enumerate().take(edge) {
                for (j, source) in source.iter_mut().enumerate().take(edge) {
                    *source = sums[(i * edge + j) * sums_of + row * cout..][..cout].as_ptr();
                }
            }
            let mut target = [[std::ptr::null_mut(); EDGE]; EDGE];
            for (ky, target) in target.iter_mut().enumerate().take(3) {
                for (kx, target) in target.iter_mut().enumerate().take(3) {
                    *target = shared.pointer(((ky * 3 + kx) * cin + row) * cout);
                }
            }
            let tile = Tile { source, target, channels: cout, panel: cout, panel_stride: 0, accumulate };
            // SAFETY: sources are rows of `sums`; a target row belongs to one `row`, hence to one task.
            unsafe { transform_tile::<EDGE, T, true>(&tile) };
        }
    });
}
