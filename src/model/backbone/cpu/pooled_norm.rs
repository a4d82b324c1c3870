//! Batch norm, ReLU and max-pool in one. What the norm gives would be the largest activation of a network and is only
//! looked at once, by the pool: here it is never written. Forward reads the convolution's output once and remembers
//! which pixel won each window, and its value; the sums of the way back then need the winners alone, and one more sweep
//! turns the convolution's output into its gradient in place.

use std::ops::Range;

use rayon::prelude::*;

use super::super::layers::{Dims, MaxPool};
use super::batch_norm::{self, Affine, BackwardInput, NormGradient};
use crate::kernels::multiversion;

/// The winner of each window and channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Winners {
    /// Its place in the window, row by row; those outside the image count.
    pub(crate) places: Vec<u8>,
    /// What the convolution gave there.
    pub(crate) values: Vec<f32>,
}

impl Winners {
    /// Makes room for `len` windows and channels.
    pub(crate) fn fit(&mut self, len: usize) {
        if self.places.len() < len {
            self.places = vec![0; len];
            self.values = vec![0.0; len];
        }
    }
}

/// Shapes of a pool over a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolShape {
    pub(crate) pool: MaxPool,
    pub(crate) input: Dims,
    pub(crate) output: Dims,
}

/// Pixels of one dimension in the window at `o`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn window(pool: MaxPool, o: usize, len: usize) -> Range<usize> {
    let begin = (o * pool.stride).saturating_sub(pool.padding);
    begin..(o * pool.stride + pool.kernel).saturating_sub(pool.padding).min(len)
}

/// Windows of one dimension, out of `count`, that hold pixel `i`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn windows_with(pool: MaxPool, i: usize, count: usize) -> Range<usize> {
    let begin = (i + pool.padding + 1).saturating_sub(pool.kernel).div_ceil(pool.stride);
    begin..count.min((i + pool.padding) / pool.stride + 1)
}

/// `out = maxpool(relu(y * scale + shift))` at inference.
pub(crate) fn forward(shape: PoolShape, y: &[f32], affine: &Affine, relu: bool, out: &mut [f32]) {
    let images = y.par_chunks(shape.input.len());
    out.par_chunks_mut(shape.output.len()).zip(images).for_each(|(out, y)| {
        pool_image(shape, y, &affine.scale, &affine.shift, relu, out);
    });
}

/// The same in training: remembers the winners.
pub(crate) fn forward_train(
    shape: PoolShape,
    y: &[f32],
    affine: &Affine,
    relu: bool,
    out: &mut [f32],
    places: &mut [u8],
    values: &mut [f32],
) {
    let len = shape.output.len();
    let winners = places.par_chunks_mut(len).zip(values.par_chunks_mut(len));
    let images = y.par_chunks(shape.input.len());
    out.par_chunks_mut(len).zip(images).zip(winners).for_each(|((out, y), (places, values))| {
        pool_image_train(shape, y, &affine.scale, &affine.shift, relu, out, places, values);
    });
}

multiversion! {
    fn pool_image(shape: PoolShape, y: &[f32], scale: &[f32], shift: &[f32], relu: bool, out: &mut [f32]) {
        let PoolShape { pool, input, output } = shape;
        let channels = scale.len();
        let shift = &shift[..channels];
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        for (at, out) in out.chunks_exact_mut(channels).enumerate() {
            out.fill(f32::NEG_INFINITY);
            for iy in window(pool, at / output.width, input.height) {
                for ix in window(pool, at % output.width, input.width) {
                    let y = &y[(iy * input.width + ix) * channels..][..channels];
                    for c in 0..channels {
                        let v = y[c] * scale[c] + shift[c];
                        // Written so that NaN wins and stays.
                        out[c] = if v > out[c] || v.is_nan() { v } else { out[c] };
                    }
                }
            }
            for v in out {
                *v = if *v < floor { floor } else { *v };
            }
        }
    }
}

multiversion! {
    fn pool_image_train(
        shape: PoolShape,
        y: &[f32],
        scale: &[f32],
        shift: &[f32],
        relu: bool,
        out: &mut [f32],
        places: &mut [u8],
        values: &mut [f32],
    ) {
        let PoolShape { pool, input, output } = shape;
        let channels = scale.len();
        let shift = &shift[..channels];
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        // As wide as the values, so that one comparison decides for all three.
        let mut winners = vec![0_u32; channels];
        let winners = &mut winners[..channels];
        let outputs = out.chunks_exact_mut(channels).zip(places.chunks_exact_mut(channels));
        for (at, ((out, places), values)) in outputs.zip(values.chunks_exact_mut(channels)).enumerate() {
            let (oy, ox) = (at / output.width, at % output.width);
            out.fill(f32::NEG_INFINITY);
            values.fill(0.0);
            winners.fill(0);
            for iy in window(pool, oy, input.height) {
                for ix in window(pool, ox, input.width) {
                    let place = place_in_window(pool, [oy, ox], [iy, ix]);
                    let y = &y[(iy * input.width + ix) * channels..][..channels];
                    for c in 0..channels {
                        let v = y[c] * scale[c] + shift[c];
                        let wins = v > out[c] || v.is_nan();
                        out[c] = if wins { v } else { out[c] };
                        values[c] = if wins { y[c] } else { values[c] };
                        winners[c] = if wins { place } else { winners[c] };
                    }
                }
            }
            for v in out {
                *v = if *v < floor { floor } else { *v };
            }
            for (place, winner) in places.iter_mut().zip(&*winners) {
                *place = *winner as u8;
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn place_in_window(pool: MaxPool, [oy, ox]: [usize; 2], [iy, ix]: [usize; 2]) -> u32 {
    let (row, column) = (iy + pool.padding - oy * pool.stride, ix + pool.padding - ox * pool.stride);
    (row * pool.kernel + column) as u32
}

/// Turns `y` from the convolution's output into its gradient, given the gradient `d` of the pool's output, and adds to
/// the gradients of scale and shift. `values` and `places` are those of the winners.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(crate) fn backward(
    shape: PoolShape,
    winners: BackwardInput<'_>,
    values: &[f32],
    places: &[u8],
    relu: bool,
    d: &mut [f32],
    y: &mut [f32],
    d_scale: &mut [f32],
    d_shift: &mut [f32],
) {
    let BackwardInput { affine, mean, .. } = winners;
    let positions = y.len() / mean.len();
    let NormGradient { mean_d, slope } =
        batch_norm::gradient_of_norm(winners, relu, d, values, positions, d_scale, d_shift);
    let len = shape.output.len();
    let images = d.par_chunks(len).zip(places.par_chunks(len));
    y.par_chunks_mut(shape.input.len()).zip(images).for_each(|(y, (d, places))| {
        unpool_image(shape, d, places, relu, &affine.scale, &affine.shift, mean, &mean_d, &slope, y);
    });
}

multiversion! {
    fn unpool_image(
        shape: PoolShape,
        d: &[f32],
        places: &[u8],
        relu: bool,
        scale: &[f32],
        shift: &[f32],
        mean: &[f32],
        mean_d: &[f32],
        slope: &[f32],
        y: &mut [f32],
    ) {
        let PoolShape { pool, input, output } = shape;
        let channels = scale.len();
        let (shift, mean, mean_d, slope) =
            (&shift[..channels], &mean[..channels], &mean_d[..channels], &slope[..channels]);
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        let mut dz = vec![0.0_f32; channels];
        let dz = &mut dz[..channels];
        for (at, y) in y.chunks_exact_mut(channels).enumerate() {
            let (iy, ix) = (at / input.width, at % input.width);
            dz.fill(0.0);
            for oy in windows_with(pool, iy, output.height) {
                for ox in windows_with(pool, ix, output.width) {
                    let place = place_in_window(pool, [oy, ox], [iy, ix]);
                    let window = (oy * output.width + ox) * channels;
                    let (d, places) = (&d[window..][..channels], &places[window..][..channels]);
                    for c in 0..channels {
                        dz[c] += if u32::from(places[c]) == place { d[c] } else { 0.0 };
                    }
                }
            }
            for c in 0..channels {
                let dz = if y[c] * scale[c] + shift[c] > floor { dz[c] } else { 0.0 };
                y[c] = scale[c] * (dz - mean_d[c] - (y[c] - mean[c]) * slope[c]);
            }
        }
    }
}
