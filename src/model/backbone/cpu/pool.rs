//! Pooling over all positions, one image a task. Backward finds the maximum again by comparing with the output: the
//! first position in reading order gets the gradient, as in PyTorch.

use crate::kernels::multiversion;

use rayon::prelude::*;

use super::super::layers::Dims;

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
