//! Batch norm, ReLU and max-pool in one, against their slow twins and finite differences.

use super::super::layers::{Dims, MaxPool};
use super::super::op::Residual;
use super::batch_norm::{Affine, BackwardInput};
use super::norm_tests::{Case, case, layer, wide};
use super::pooled_norm::{self, PoolShape, Winners};
use crate::kernels::reference::{deviation, numbers};

const CHANNELS: usize = 5;
const IMAGES: usize = 2;

fn shapes() -> Vec<PoolShape> {
    let mut shapes = vec![];
    for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)] {
        for (height, width) in [(1, 2), (2, 5), (8, 8), (9, 7)] {
            let pool = MaxPool { kernel, stride, padding };
            let input = Dims { height, width, channels: CHANNELS };
            shapes.extend(pool.output_dims(input).map(|output| PoolShape { pool, input, output }));
        }
    }
    shapes
}

/// For each output the place in `x` of its first maximum.
fn winners(shape: PoolShape, x: &[f64]) -> Vec<usize> {
    let PoolShape { pool: MaxPool { kernel, stride, padding }, input, output } = shape;
    (0..IMAGES * output.len())
        .map(|at| {
            let (c, ox) = (at % CHANNELS, at / CHANNELS % output.width);
            let (oy, n) = (at / CHANNELS / output.width % output.height, at / output.len());
            let mut best: Option<usize> = None;
            for iy in (oy * stride).saturating_sub(padding)..(oy * stride + kernel - padding).min(input.height) {
                for ix in (ox * stride).saturating_sub(padding)..(ox * stride + kernel - padding).min(input.width) {
                    let here = ((n * input.height + iy) * input.width + ix) * CHANNELS + c;
                    best = best.filter(|b| x[*b] >= x[here]).or(Some(here));
                }
            }
            best.unwrap()
        })
        .collect()
}

fn forward(shape: PoolShape, y: &[f32], affine: &Affine, relu: bool) -> (Vec<f32>, Winners) {
    let len = IMAGES * shape.output.len();
    let mut found = Winners::default();
    found.fit(len);
    let mut out = vec![f32::NAN; len];
    pooled_norm::forward_train(shape, y, affine, relu, &mut out, &mut found.places, &mut found.values);
    (out, found)
}

#[test]
fn forward_is_the_norm_and_then_the_pool() {
    for shape in shapes() {
        for relu in [false, true] {
            let k = case(IMAGES * shape.input.positions(), CHANNELS, 0.5);
            let normed = layer(&wide(&k.y), &wide(&k.gamma), &wide(&k.beta), &[], Residual::None, relu);
            let expected: Vec<f64> = winners(shape, &normed).into_iter().map(|at| normed[at]).collect();
            let (out, _) = forward(shape, &k.y, &k.affine, relu);
            assert!(deviation(&out, &expected) < 1e-5, "{shape:?}");
            let mut inference = vec![f32::NAN; out.len()];
            pooled_norm::forward(shape, &k.y, &k.affine, relu, &mut inference);
            assert_eq!(inference, out);
        }
    }
}

#[test]
fn backward_is_the_slope_of_forward() {
    for shape in shapes() {
        for relu in [false, true] {
            let k = case(IMAGES * shape.input.positions(), CHANNELS, 0.5);
            let weights = numbers(9, IMAGES * shape.output.len());
            let inputs = [wide(&k.y), wide(&k.gamma), wide(&k.beta)];
            let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
                let [y, gamma, beta] = inputs;
                let normed = layer(y, gamma, beta, &[], Residual::None, relu);
                winners(shape, &normed).into_iter().zip(&weights).map(|(at, w)| normed[at] * f64::from(*w)).sum()
            };
            let slopes = |which: usize| -> Vec<f64> {
                let slope = |at: usize| {
                    let moved = |step: f64| {
                        let mut inputs = inputs.clone();
                        inputs[which][at] += step;
                        loss(&inputs)
                    };
                    (moved(1e-6) - moved(-1e-6)) / 2e-6
                };
                (0..inputs[which].len()).map(slope).collect()
            };
            let (output, found) = forward(shape, &k.y, &k.affine, relu);
            let Case { y, affine, mean, inv_std, .. } = &k;
            let won = BackwardInput { output: &output, affine, mean, inv_std };
            let (mut d, mut dy) = (weights.clone(), y.clone());
            let (mut d_gamma, mut d_beta) = (vec![2.0; CHANNELS], vec![3.0; CHANNELS]);
            let Winners { places, values } = &found;
            pooled_norm::backward(shape, won, values, places, relu, &mut d, &mut dy, &mut d_gamma, &mut d_beta);
            let plus = |slopes: Vec<f64>, before: f64| slopes.into_iter().map(|s| s + before).collect::<Vec<_>>();
            assert!(deviation(&dy, &slopes(0)) < 1e-3, "{shape:?} {relu}");
            assert!(deviation(&d_gamma, &plus(slopes(1), 2.0)) < 1e-4, "{shape:?} {relu}");
            assert!(deviation(&d_beta, &plus(slopes(2), 3.0)) < 1e-4, "{shape:?} {relu}");
        }
    }
}

#[test]
fn the_first_of_equal_values_wins() {
    for shape in shapes() {
        let len = IMAGES * shape.input.len();
        let y: Vec<f32> = numbers(1, len).iter().map(|v| (v * 3.0).round()).collect();
        let affine = Affine { scale: vec![1.0; CHANNELS], shift: vec![10.0; CHANNELS] };
        let (output, found) = forward(shape, &y, &affine, true);
        let expected = winners(shape, &wide(&y));
        for (at, winner) in expected.iter().enumerate() {
            assert_eq!(output[at], y[*winner] + 10.0);
            assert_eq!(found.values[at], y[*winner]);
        }
        // With no slope what remains is what each pixel won, less the mean.
        let d = numbers(2, output.len());
        let mut sums = vec![0.0_f64; len];
        for (winner, d) in expected.iter().zip(&d) {
            sums[*winner] += f64::from(*d);
        }
        let positions = (len / CHANNELS) as f64;
        let mut mean_d = [0.0_f64; CHANNELS];
        for (at, sum) in sums.iter().enumerate() {
            mean_d[at % CHANNELS] += sum / positions;
        }
        // No slope: the deviation is taken as infinite.
        let (mean, inv_std) = (vec![0.0; CHANNELS], vec![0.0; CHANNELS]);
        let won = BackwardInput { output: &output, affine: &affine, mean: &mean, inv_std: &inv_std };
        let (mut dy, mut left) = (y.clone(), d.clone());
        let (mut d_scale, mut d_shift) = (vec![0.0; CHANNELS], vec![0.0; CHANNELS]);
        let Winners { places, values } = &found;
        pooled_norm::backward(shape, won, values, places, true, &mut left, &mut dy, &mut d_scale, &mut d_shift);
        for (at, (dy, sum)) in dy.iter().zip(&sums).enumerate() {
            assert!((f64::from(*dy) - (sum - mean_d[at % CHANNELS])).abs() < 1e-5, "{shape:?}");
        }
    }
}

#[test]
fn not_a_number_wins_every_window() {
    let pool = MaxPool { kernel: 2, stride: 2, padding: 0 };
    let dims = |edge| Dims { height: edge, width: edge, channels: 1 };
    let shape = PoolShape { pool, input: dims(2), output: dims(1) };
    let affine = Affine { scale: vec![1.0], shift: vec![0.0] };
    for at in 0..4 {
        let mut y = vec![1.0, 2.0, 3.0, 4.0];
        y[at] = f32::NAN;
        let mut out = vec![0.0];
        pooled_norm::forward(shape, &y, &affine, true, &mut out);
        assert!(out[0].is_nan());
        let (mut places, mut values) = (vec![9], vec![0.0]);
        pooled_norm::forward_train(shape, &y, &affine, true, &mut out, &mut places, &mut values);
        assert!(out[0].is_nan() && values[0].is_nan());
        assert_eq!(usize::from(places[0]), at);
    }
}
