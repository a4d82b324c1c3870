//! Batch norm against its slow twin and finite differences.

use super::super::op::Residual;
use super::batch_norm::{self, Affine, BackwardInput, Moments};
use crate::kernels::reference::{deviation, numbers};

const EPSILON: f64 = 1e-5;
const VARIANTS: [(Residual<()>, bool); 5] = [
    (Residual::None, false),
    (Residual::None, true),
    (Residual::BeforeRelu(()), true),
    (Residual::AfterRelu(()), true),
    (Residual::AfterRelu(()), false),
];

/// Batch norm, residual, ReLU in f64.
pub(super) fn layer(y: &[f64], gamma: &[f64], beta: &[f64], r: &[f64], residual: Residual<()>, relu: bool) -> Vec<f64> {
    let (channels, rows) = (gamma.len(), y.len() / gamma.len());
    let column = |c: usize| y.iter().skip(c).step_by(channels);
    let mut out = vec![0.0; y.len()];
    for c in 0..channels {
        let mean = column(c).sum::<f64>() / rows as f64;
        let variance = column(c).map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64;
        for row in 0..rows {
            let at = row * channels + c;
            let mut v = (y[at] - mean) / (variance + EPSILON).sqrt() * gamma[c] + beta[c];
            v += if matches!(residual, Residual::BeforeRelu(())) { r[at] } else { 0.0 };
            v = if relu { v.max(0.0) } else { v };
            v += if matches!(residual, Residual::AfterRelu(())) { r[at] } else { 0.0 };
            out[at] = v;
        }
    }
    out
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

pub(super) struct Case {
    pub(super) y: Vec<f32>,
    pub(super) r: Vec<f32>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) inv_std: Vec<f32>,
    pub(super) affine: Affine,
}

pub(super) fn case(rows: usize, channels: usize, offset: f32) -> Case {
    let y: Vec<f32> = numbers(1, rows * channels).iter().map(|v| v + offset).collect();
    let (gamma, beta) = (numbers(2, channels), numbers(3, channels));
    let moments = Moments::of(&y, channels);
    let inv: Vec<f64> = moments.squares.iter().map(|s| 1.0 / (s / rows as f64 + EPSILON).sqrt()).collect();
    let scale: Vec<f64> = inv.iter().zip(&gamma).map(|(i, g)| i * f64::from(*g)).collect();
    let shift = scale.iter().zip(&moments.mean).zip(&beta).map(|((s, m), b)| (f64::from(*b) - s * m) as f32).collect();
    Case {
        r: numbers(4, rows * channels),
        mean: moments.mean.iter().map(|m| *m as f32).collect(),
        inv_std: inv.iter().map(|i| *i as f32).collect(),
        affine: Affine { scale: scale.iter().map(|s| *s as f32).collect(), shift },
        y,
        gamma,
        beta,
    }
}

#[test]
fn moments_survive_a_mean_far_from_zero() {
    for (rows, channels) in [(2, 1), (127, 5), (128, 16), (1000, 33)] {
        let y: Vec<f32> = numbers(1, rows * channels).iter().map(|v| v + 1000.0).collect();
        let parts: Vec<Moments> = y.chunks(100 * channels).map(|part| Moments::of(part, channels)).collect();
        let moments = Moments::merge(parts.iter(), channels);
        assert_eq!(moments.count, rows);
        for c in 0..channels {
            let column: Vec<f64> = y.iter().skip(c).step_by(channels).map(|v| f64::from(*v)).collect();
            let mean = column.iter().sum::<f64>() / rows as f64;
            let squares: f64 = column.iter().map(|v| (v - mean).powi(2)).sum();
            assert!((moments.mean[c] - mean).abs() < 1e-3, "{} {mean}", moments.mean[c]);
            assert!((moments.squares[c] / squares - 1.0).abs() < 1e-4, "{} {squares}", moments.squares[c]);
        }
    }
}

#[test]
fn forward_is_the_twins_in_every_variant() {
    for (rows, channels) in [(4, 3), (150, 16), (33, 37)] {
        let k = case(rows, channels, 0.5);
        for (residual, relu) in VARIANTS {
            let mut out = vec![f32::NAN; k.y.len()];
            batch_norm::normalize(&k.y, &k.affine, residual.map(|()| &k.r[..]), relu, &mut out);
            let expected = layer(&wide(&k.y), &wide(&k.gamma), &wide(&k.beta), &wide(&k.r), residual, relu);
            assert!(deviation(&out, &expected) < 1e-5);
            let mut in_place = k.y.clone();
            batch_norm::normalize_block(&mut in_place, &k.affine, residual.map(|()| &k.r[..]), relu);
            assert_eq!(in_place, out);
        }
    }
}

#[test]
fn backward_is_the_slope_of_forward_in_every_variant() {
    let (rows, channels) = (6, 5);
    let k = case(rows, channels, 0.5);
    let weights = numbers(9, rows * channels);
    for (residual, relu) in VARIANTS {
        let inputs = [wide(&k.y), wide(&k.gamma), wide(&k.beta), wide(&k.r)];
        let loss = |inputs: &[Vec<f64>; 4]| -> f64 {
            let [y, gamma, beta, r] = inputs;
            layer(y, gamma, beta, r, residual, relu).iter().zip(&weights).map(|(o, w)| o * f64::from(*w)).sum()
        };
        let slopes: Vec<Vec<f64>> = (0..4)
            .map(|which| {
                let slope = |at: usize| {
                    let moved = |step: f64| {
                        let mut inputs = inputs.clone();
                        inputs[which][at] += step;
                        loss(&inputs)
                    };
                    (moved(1e-6) - moved(-1e-6)) / 2e-6
                };
                (0..inputs[which].len()).map(slope).collect()
            })
            .collect();

        let mut output = vec![0.0; k.y.len()];
        batch_norm::normalize(&k.y, &k.affine, residual.map(|()| &k.r[..]), relu, &mut output);
        let Case { y, affine, mean, inv_std, .. } = &k;
        let input = BackwardInput { output: &output, affine, mean, inv_std };
        for accumulate in [false, true] {
            let before = if accumulate { 1.0 } else { 0.0 };
            let (mut d, mut dy) = (weights.clone(), y.clone());
            let mut d_r = vec![if accumulate { 1.0 } else { f32::NAN }; d.len()];
            let (mut d_gamma, mut d_beta) = (vec![2.0; channels], vec![3.0; channels]);
            let target = residual.map(|()| (&mut d_r[..], accumulate));
            batch_norm::backward(input, relu, target, &mut d, &mut dy, &mut d_gamma, &mut d_beta);
            let plus = |slopes: &[f64], before: f64| slopes.iter().map(|s| s + before).collect::<Vec<_>>();
            assert!(deviation(&dy, &slopes[0]) < 1e-4, "{residual:?} {relu}");
            assert!(deviation(&d_gamma, &plus(&slopes[1], 2.0)) < 1e-4, "{residual:?} {relu}");
            assert!(deviation(&d_beta, &plus(&slopes[2], 3.0)) < 1e-4, "{residual:?} {relu}");
            if residual.added().is_some() {
                assert!(deviation(&d_r, &plus(&slopes[3], before)) < 1e-4, "{residual:?} {relu}");
                assert!(deviation(&d, &slopes[3]) < 1e-4, "{residual:?} {relu}");
            }
        }
    }
}

#[test]
fn not_a_number_passes_the_relu() {
    let mut y = vec![f32::NAN, -1.0];
    let affine = Affine { scale: vec![1.0; 2], shift: vec![0.0; 2] };
    batch_norm::normalize_block(&mut y, &affine, Residual::None, true);
    assert!(y[0].is_nan());
    assert_eq!(y[1], 0.0);
}
