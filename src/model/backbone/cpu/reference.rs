//! The slow obvious twins of the convolution kernels, in f64.

use super::super::layers::Dims;
use super::conv::ConvShape;

/// A square convolution over a batch.
pub(super) fn shape(
    n: usize,
    [height, width]: [usize; 2],
    [cin, cout]: [usize; 2],
    [kernel, stride, padding]: [usize; 3],
) -> ConvShape {
    let out = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    ConvShape {
        n,
        input: Dims { height, width, channels: cin },
        output: Dims { height: out(height), width: out(width), channels: cout },
        kernel,
        stride,
        padding,
    }
}

/// Calls `f` with the indices of x, w and y of every product of the convolution.
fn products(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    for n in 0..s.n {
        for oy in 0..s.output.height {
            for ox in 0..s.output.width {
                for ky in 0..s.kernel {
                    for kx in 0..s.kernel {
                        let (iy, ix) = (oy * s.stride + ky, ox * s.stride + kx);
                        let inside = |i: usize, len: usize| i >= s.padding && i - s.padding < len;
                        if !(inside(iy, s.input.height) && inside(ix, s.input.width)) {
                            continue;
                        }
                        let at = (n * s.input.height + iy - s.padding) * s.input.width + ix - s.padding;
                        let to = (n * s.output.height + oy) * s.output.width + ox;
                        for ci in 0..s.input.channels {
                            for co in 0..s.output.channels {
                                f(
                                    at * s.input.channels + ci,
                                    ((ky * s.kernel + kx) * s.input.channels + ci) * s.output.channels + co,
                                    to * s.output.channels + co,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn forward(s: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; s.n * s.output.len()];
    products(s, |xi, wi, yi| y[yi] += f64::from(x[xi]) * f64::from(w[wi]));
    y
}

pub(super) fn weight_gradient(s: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut dw = vec![0.0; s.depth() * s.output.channels];
    products(s, |xi, wi, yi| dw[wi] += f64::from(x[xi]) * f64::from(dy[yi]));
    dw
}

pub(super) fn data_gradient(s: &ConvShape, dy: &[f32], w: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; s.n * s.input.len()];
    products(s, |xi, wi, yi| dx[xi] += f64::from(dy[yi]) * f64::from(w[wi]));
    dx
}
