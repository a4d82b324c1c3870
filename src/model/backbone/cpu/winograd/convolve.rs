//! Forward, and the data gradient, which is the same with the kernel turned.

use std::ops::Range;

use rayon::prelude::*;

use super::super::conv::ConvShape;
use super::super::prepared::{Form, PreparedWeights, Weights};
use super::strided::{
    StridedDataInput2, StridedDataInput3, StridedDataInput4, StridedDataOutput2, StridedDataOutput3,
    StridedDataOutput4, StridedFilter2, StridedFilter3, StridedFilter4, StridedInput2, StridedInput3, StridedInput4,
    StridedOutput2, StridedOutput3, StridedOutput4,
};
use super::tiles::{Grid, Layout, Scheme, Tiling, cut, rows_of_task, spread, transform_pixels, transform_products};
use super::transform::{
    Filter2, Filter3, Filter4, FilterPair, Input2, Input3, Input4, InputPair, Output2, Output3, Output4, OutputPair,
    Tile, Transform, transform_tile,
};
use crate::kernels::matrix::{Matrix, multiply_packed};
use crate::kernels::scratch::{Scratch, with_scratch};
use crate::kernels::shared_mut::SharedMut;
use crate::kernels::transpose::transpose;

/// Transformed weights up to this many values stay near enough for every task to read all of them; more where each
/// serves several frequencies.
const MAX_FUSED_WEIGHTS: usize = 40 << 14;

/// `y = conv(x, w)`; `finish` gets each finished block of positions and where it begins.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(in super::super) fn forward<T: Send>(
    tiling: &Tiling,
    shape: &ConvShape,
    x: &[f32],
    w: Weights<'_>,
    y: &mut [f32],
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
    finish: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let (call, weights): (Convolve<T, _>, TransformWeights) = match tiling.scheme {
        Scheme::Four => (convolve::<6, Input4, Output4, T, _>, transform_weights::<6, Filter4>),
        Scheme::Three => (convolve::<5, Input3, Output3, T, _>, transform_weights::<5, Filter3>),
        Scheme::Two => (convolve::<4, Input2, Output2, T, _>, transform_weights::<4, Filter2>),
        Scheme::Pair => (convolve::<3, InputPair, OutputPair, T, _>, transform_weights::<3, FilterPair>),
        Scheme::StridedFour => {
            (convolve::<9, StridedInput4, StridedOutput4, T, _>, transform_weights::<9, StridedFilter4>)
        }
        Scheme::StridedThree => {
            (convolve::<7, StridedInput3, StridedOutput3, T, _>, transform_weights::<7, StridedFilter3>)
        }
        Scheme::StridedTwo => {
            (convolve::<5, StridedInput2, StridedOutput2, T, _>, transform_weights::<5, StridedFilter2>)
        }
    };
    let form = Form::Transformed(tiling.frequencies());
    let weights =
        prepared.get(w.version, form, weights_len(tiling, cin, cout), |out| weights(w.values, cin, cout, out));
    call(tiling, [tiling.input(), tiling.output()], [cin, cout], x, weights, y, false, scratch, finish)
}

/// `dx = dL/dx`, or `dx += dL/dx`: the convolution of `dy` with the turned kernel.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(in super::super) fn data_gradient(
    tiling: &Tiling,
    shape: &ConvShape,
    dy: &[f32],
    w: Weights<'_>,
    dx: &mut [f32],
    accumulate: bool,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let (call, weights): (Convolve<(), _>, TransformWeights) = match tiling.scheme {
        Scheme::Four => (convolve::<6, Input4, Output4, (), _>, transform_weights::<6, Filter4>),
        Scheme::Three => (convolve::<5, Input3, Output3, (), _>, transform_weights::<5, Filter3>),
        Scheme::Two => (convolve::<4, Input2, Output2, (), _>, transform_weights::<4, Filter2>),
        Scheme::Pair => (convolve::<3, InputPair, OutputPair, (), _>, transform_weights::<3, FilterPair>),
        Scheme::StridedFour => {
            (convolve::<9, StridedDataInput4, StridedDataOutput4, (), _>, transform_weights::<9, StridedFilter4>)
        }
        Scheme::StridedThree => {
            (convolve::<7, StridedDataInput3, StridedDataOutput3, (), _>, transform_weights::<7, StridedFilter3>)
        }
        Scheme::StridedTwo => {
            (convolve::<5, StridedDataInput2, StridedDataOutput2, (), _>, transform_weights::<5, StridedFilter2>)
        }
    };
    let form = Form::Transformed(tiling.frequencies());
    let weights = prepared.get(w.version, form, weights_len(tiling, cout, cin), |out| {
        let [turned] = scratch.parts([w.values.len()]);
        turn_weights(w.values, cin, cout, turned);
        weights(turned, cout, cin, out);
    });
    let grids = [tiling.output_around(), tiling.input()];
    call(tiling, grids, [cout, cin], dy, weights, dx, accumulate, scratch, nothing);
}

/// Gradients are not looked at while they are in the cache.
fn nothing(_: usize, _: &mut [f32]) {}

/// Values of the transformed weights for `k` channels in and `n` channels out.
fn weights_len(tiling: &Tiling, k: usize, n: usize) -> usize {
    tiling.num_kernels() * Layout::packed(k, n).frequency
}

/// `transform_weights` for one of the schemes.
type TransformWeights = fn(&[f32], usize, usize, &mut [f32]);

/// `convolve` for one of the schemes.
type Convolve<T, F> = fn(&Tiling, [Grid; 2], [usize; 2], &[f32], &[f32], &mut [f32], bool, &mut Scratch, F) -> Vec<T>;

#[allow(clippy::too_many_arguments, reason = "the two directions share it")]
fn convolve<
    const EDGE: usize,
    I: Transform<EDGE>,
    O: Transform<EDGE>,
    T: Send,
    F: Fn(usize, &mut [f32]) -> T + Sync,
>(
    tiling: &Tiling,
    [source, target]: [Grid; 2],
    [cin, cout]: [usize; 2],
    x: &[f32],
    weights: &[f32],
    y: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
    finish: F,
) -> Vec<T> {
    let (frequencies, weights_of) = (tiling.frequencies(), Layout::packed(cin, cout).frequency);
    if weights.len() * tiling.num_kernels() <= MAX_FUSED_WEIGHTS * frequencies {
        let rows = rows_of_task(tiling);
        let tiles = rows * tiling.columns;
        // Products of a frequency overwrite the transformed pixels of the one before it.
        let slot = spread(tiles * cin.max(cout));
        let task = |(range, y): (Range<usize>, &mut [f32])| {
            with_scratch([(frequencies + 1) * slot, cin], |[slots, zeros]| {
                zeros.fill(0.0);
                let tiles_here = range.len() * tiling.columns;
                let from = Layout { frequency: slot, ..Layout::plain(tiles, cin) };
                let to = Layout { frequency: slot, ..Layout::plain(tiles, cout) };
                // SAFETY: all frequencies of `from` begin one slot late and fit; this thread owns the slots.
                unsafe {
                    let to = slots[slot..].as_mut_ptr();
                    transform_pixels::<EDGE, I>(tiling, source, x, range.clone(), zeros, from, range.start, to);
                }
                for f in 0..frequencies {
                    let weights = &weights[tiling.kernel_of(f) * weights_of..][..weights_of];
                    let (products, pixels) = slots[f * slot..].split_at_mut(slot);
                    let pixels = Matrix::row_major(pixels, cin);
                    multiply_packed([tiles_here, cout, cin], pixels, weights, products, cout, false);
                }
                let products = slots.as_ptr();
                // SAFETY: all frequencies of `to` fit into the slots.
                unsafe {
                    let rows = range.clone();
                    transform_products::<EDGE, O>(tiling, target, products, rows, to, range.start, y, accumulate);
                }
            });
            finish(tiling.positions_before(target, range.start), y)
        };
        return cut(tiling, target, 0..tiling.tile_rows(), rows, cout, y).into_par_iter().map(task).collect();
    }

    // Rows of tiles that are worked on at once: as many as a few million values hold, and not too few.
    const VALUES: usize = 1 << 22;
    const MIN_TILES: usize = 112;
    let tiles = (VALUES / (frequencies * (cin + cout))).max(MIN_TILES);
    let rows = tiling.equal_blocks(tiles);
    let tiles = rows * tiling.columns;
    let (from, to) = (Layout::plain(tiles, cin), Layout::plain(tiles, cout));
    let lengths = [frequencies * from.frequency, frequencies * to.frequency, cin];
    let [pixels, products, zeros] = scratch.parts(lengths);
    zeros.fill(0.0);
    let zeros = &*zeros;
    let mut done = Vec::new();
    let mut rest = y;
    for first in (0..tiling.tile_rows()).step_by(rows) {
        let range = first..tiling.tile_rows().min(first + rows);
        let tiles_here = range.len() * tiling.columns;
        let len = (tiling.positions_before(target, range.end) - tiling.positions_before(target, first)) * cout;
        let (y, other) = std::mem::take(&mut rest).split_at_mut(len);
        rest = other;

        let transformed = SharedMut::new(pixels);
        let task = rows_of_task(tiling);
        let starts: Vec<usize> = range.clone().step_by(task).collect();
        starts.par_iter().for_each(|&start| {
            let rows = start..range.end.min(start + task);
            // SAFETY: `pixels` holds all frequencies of `from`; tasks have tiles of their own.
            unsafe {
                transform_pixels::<EDGE, I>(tiling, source, x, rows, zeros, from, first, transformed.pointer(0));
            }
        });
        let pixels = &*pixels;
        products.par_chunks_mut(to.frequency).enumerate().take(frequencies).for_each(|(f, products)| {
            // More tasks than frequencies, for machines with many cores.
            products[..tiles_here * cout].par_chunks_mut(MIN_TILES * cout).enumerate().for_each(|(idx, products)| {
                let pixels = Matrix::row_major(&pixels[f * from.frequency + idx * MIN_TILES * cin..], cin);
                let tiles = products.len() / cout;
                multiply_packed(
                    [tiles, cout, cin],
                    pixels,
                    &weights[tiling.kernel_of(f) * weights_of..],
                    products,
                    cout,
                    false,
                );
            });
        });
        let products = SharedMut::new(products);
        let task = |(rows, y): (Range<usize>, &mut [f32])| {
            let begin = tiling.positions_before(target, rows.start);
            // SAFETY: `products` holds all frequencies of `to`, and nobody writes it now.
            unsafe {
                transform_products::<EDGE, O>(tiling, target, products.pointer(0), rows, to, first, y, accumulate);
            }
            finish(begin, y)
        };
        done.par_extend(cut(tiling, target, range.clone(), rows_of_task(tiling), cout, y).into_par_iter().map(task));
    }
    done
}

/// Transformed weights for `k` channels in and `n` channels out: packed, one matrix for each frequency.
fn transform_weights<const EDGE: usize, T: Transform<EDGE>>(w: &[f32], k: usize, n: usize, out: &mut [f32]) {
    const ROWS: usize = 8;
    let layout = Layout::packed(k, n);
    assert!(layout.frequency * T::OUTPUTS * T::OUTPUTS <= out.len() && w.len() == 9 * k * n);
    let shared = SharedMut::new(out);
    (0..k.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        for row in task * ROWS..k.min((task + 1) * ROWS) {
            let mut source = [[std::ptr::null(); EDGE]; EDGE];
            for (ky, source) in source.iter_mut().enumerate().take(3) {
                for (kx, source) in source.iter_mut().enumerate().take(3) {
                    *source = w[((ky * 3 + kx) * k + row) * n..][..n].as_ptr();
                }
            }
            let target = layout.targets(shared.pointer(0), row, T::OUTPUTS);
            let (panel, panel_stride) = (layout.panel, k * layout.panel);
            let tile = Tile { source, target, channels: n, panel, panel_stride, accumulate: false };
            // SAFETY: sources are rows of `w`; a target row belongs to one `row`, hence to one task.
            unsafe { transform_tile::<EDGE, T, true>(&tile) };
        }
    });
}

/// The kernel of the data gradient: turned by 180°, channels in and out exchanged.
fn turn_weights(w: &[f32], cin: usize, cout: usize, turned: &mut [f32]) {
    turned.par_chunks_mut(cin * cout).zip(w.par_chunks(cin * cout).rev()).for_each(|(turned, w)| {
        transpose([cin, cout], w, cout, turned, cin);
    });
}
