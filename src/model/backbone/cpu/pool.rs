//! Pooling, one image a task. Backward finds the maximum again by comparing with the output: the first position
//! in reading order gets the gradient, as in PyTorch.

use crate::kernels::multiversion;
use std::ops::Range;

use rayon::prelude::*;

use super::super::layers::{Dims, MaxPool};

/// Input rows or columns of the window at output `o`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn window(pool: MaxPool, o: usize, len: usize) -> Range<usize> {
    let begin = (o * pool.stride).saturating_sub(pool.padding);
    begin..(o * pool.stride + pool.kernel).saturating_sub(pool.padding).min(len)
}

/// Elementwise maximum that keeps NaN.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn raise(best: &mut [f32], x: &[f32]) {
    for (b, x) in best.iter_mut().zip(x) {
        *b = if *x > *b || x.is_nan() { *x } else { *b };
    }
}

/// Gives what is left of the gradient to the channels whose value is the maximum, and takes it from the rest.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into functions that have a target feature")]
fn claim(dx: &mut [f32], x: &[f32], best: &[f32], left: &mut [f32]) {
    let len = dx.len();
    let (x, best, left) = (&x[..len], &best[..len], &mut left[..len]);
    for c in 0..len {
        let won = x[c] == best[c];
        dx[c] += if won { left[c] } else { 0.0 };
        left[c] = if won { 0.0 } else { left[c] };
    }
}

multiversion! {
    fn max_image(pool: MaxPool, input: Dims, output: Dims, x: &[f32], y: &mut [f32]) {
        let channels = input.channels;
        for (at, y) in y.chunks_exact_mut(channels).enumerate() {
            y.fill(f32::NEG_INFINITY);
            for iy in window(pool, at / output.width, input.height) {
                for ix in window(pool, at % output.width, input.width) {
                    raise(y, &x[(iy * input.width + ix) * channels..][..channels]);
                }
            }
        }
    }
}

multiversion! {
    fn max_image_backward(pool: MaxPool, input: Dims, output: Dims, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
        let channels = input.channels;
        let mut left = vec![0.0; channels];
        for (at, (y, dy)) in y.chunks_exact(channels).zip(dy.chunks_exact(channels)).enumerate() {
            left.copy_from_slice(dy);
            for iy in window(pool, at / output.width, input.height) {
                for ix in window(pool, at % output.width, input.width) {
                    let begin = (iy * input.width + ix) * channels;
                    claim(&mut dx[begin..begin + channels], &x[begin..begin + channels], y, &mut left);
                }
            }
        }
    }
}

/// `y = maxpool(x)`.
pub(crate) fn max_forward(pool: MaxPool, input: Dims, output: Dims, x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(output.len())
        .zip(x.par_chunks(input.len()))
        .for_each(|(y, x)| max_image(pool, input, output, x, y));
}

/// `dx = dL/dx`, or `dx += dL/dx`.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(crate) fn max_backward(
    pool: MaxPool,
    input: Dims,
    output: Dims,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    let images = x.par_chunks(input.len()).zip(y.par_chunks(output.len())).zip(dy.par_chunks(output.len()));
    dx.par_chunks_mut(input.len()).zip(images).for_each(|(dx, ((x, y), dy))| {
        if !accumulate {
            dx.fill(0.0);
        }
        max_image_backward(pool, input, output, x, y, dy, dx);
    });
}

multiversion! {
    fn max_rows(x: &[f32], y: &mut [f32]) {
        y.fill(f32::NEG_INFINITY);
        for x in x.chunks_exact(y.len()) {
            raise(y, x);
        }
    }
}

multiversion! {
    fn max_rows_backward(x: &[f32], y: &[f32], left: &mut [f32], dx: &mut [f32]) {
        for (dx, x) in dx.chunks_exact_mut(y.len()).zip(x.chunks_exact(y.len())) {
            claim(dx, x, y, left);
        }
    }
}

/// `y[c] = max over positions`.
pub(crate) fn global_max_forward(input: Dims, x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(input.channels).zip(x.par_chunks(input.len())).for_each(|(y, x)| max_rows(x, y));
}

/// `dx = dL/dx`, or `dx += dL/dx`.
pub(crate) fn global_max_backward(input: Dims, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
    let channels = input.channels;
    let images = x.par_chunks(input.len()).zip(y.par_chunks(channels)).zip(dy.par_chunks(channels));
    dx.par_chunks_mut(input.len()).zip(images).for_each(|(dx, ((x, y), dy))| {
        if !accumulate {
            dx.fill(0.0);
        }
        max_rows_backward(x, y, &mut dy.to_vec(), dx);
    });
}

multiversion! {
    /// `y += x * factor`.
    fn add_scaled(y: &mut [f32], x: &[f32], factor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x * factor;
        }
    }
}

/// `y[c] = mean over positions`.
pub(crate) fn global_average_forward(input: Dims, x: &[f32], y: &mut [f32]) {
    let channels = input.channels;
    let factor = 1.0 / input.positions() as f32;
    y.par_chunks_mut(channels).zip(x.par_chunks(input.len())).for_each(|(y, x)| {
        y.fill(0.0);
        for x in x.chunks_exact(channels) {
            add_scaled(y, x, 1.0);
        }
        for y in y {
            *y *= factor;
        }
    });
}

/// `dx = dL/dx`, or `dx += dL/dx`.
pub(crate) fn global_average_backward(input: Dims, dy: &[f32], dx: &mut [f32], accumulate: bool) {
    let channels = input.channels;
    let factor = 1.0 / input.positions() as f32;
    dx.par_chunks_mut(input.len()).zip(dy.par_chunks(channels)).for_each(|(dx, dy)| {
        if !accumulate {
            dx.fill(0.0);
        }
        for dx in dx.chunks_exact_mut(channels) {
            add_scaled(dx, dy, factor);
        }
    });
}
