//! Batch norm, pools and the update against loops in f64.

use super::{Bench, Open, assert_close, random};
use crate::{
    cuda::{
        device::Memory,
        launch::{
            AffineSlices, COEFFICIENTS, NormGradient, NormShape, PoolShape, RunningSlices, STATISTICS, SgdBuffers,
            SgdRule,
        },
        precision::Precision,
    },
    model::backbone::{Dims, MaxPool, op::Residual},
};

const EPSILON: f64 = 1e-5;

/// What a batch norm gives, by the book.
struct NormTwin {
    out: Vec<f64>,
    dy: Vec<f64>,
    d_residual: Vec<f64>,
    d_gamma: Vec<f64>,
    d_beta: Vec<f64>,
    running_mean: Vec<f64>,
    running_var: Vec<f64>,
}

#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
fn norm_twin(
    shape: &NormShape,
    y: &[f64],
    gamma: &[f64],
    beta: &[f64],
    residual: Residual<&[f64]>,
    relu: bool,
    d: &[f64],
) -> NormTwin {
    let NormShape { views, rows, channels } = *shape;
    let len = views * rows * channels;
    let mut twin = NormTwin {
        out: vec![0.0; len],
        dy: vec![0.0; len],
        d_residual: vec![0.0; len],
        d_gamma: vec![0.0; channels],
        d_beta: vec![0.0; channels],
        running_mean: vec![0.0; channels],
        running_var: vec![1.0; channels],
    };
    for view in 0..views {
        for c in 0..channels {
            let places: Vec<usize> = (0..rows).map(|row| (view * rows + row) * channels + c).collect();
            let n = rows as f64;
            let mean = places.iter().map(|i| y[*i]).sum::<f64>() / n;
            let var = places.iter().map(|i| (y[*i] - mean).powi(2)).sum::<f64>() / n;
            let inv_std = 1.0 / (var + EPSILON).sqrt();
            twin.running_mean[c] = 0.9 * twin.running_mean[c] + 0.1 * mean;
            twin.running_var[c] = 0.9 * twin.running_var[c] + 0.1 * var * n / (n - 1.0);
            let xhat = |i: usize| (y[i] - mean) * inv_std;
            let mut behind = vec![0.0; rows];
            for (row, i) in places.iter().copied().enumerate() {
                let mut value = gamma[c] * xhat(i) + beta[c];
                if let Residual::BeforeRelu(added) = residual {
                    value += added[i];
                }
                let passes = !relu || value > 0.0;
                behind[row] = if passes { d[i] } else { 0.0 };
                value = if passes { value } else { 0.0 };
                if let Residual::AfterRelu(added) = residual {
                    value += added[i];
                }
                twin.out[i] = value;
                twin.d_residual[i] = if matches!(residual, Residual::AfterRelu(_)) { d[i] } else { behind[row] };
            }
            let sum: f64 = behind.iter().sum();
            let along: f64 = behind.iter().zip(&places).map(|(d, i)| d * xhat(*i)).sum();
            twin.d_beta[c] += sum;
            twin.d_gamma[c] += along;
            for (d, i) in behind.iter().zip(&places) {
                twin.dy[*i] = gamma[c] * inv_std * (d - sum / n - xhat(*i) * along / n);
            }
        }
    }
    twin
}

/// Forward, running statistics and backward in all variants; rows of one part and of several, channels that fill vectors
/// and that do not.
pub fn batch_norm_agrees_with_loops(open: Open<'_>) {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let bench = Bench::new(open, precision);
        for shape in [
            NormShape { views: 2, rows: 7, channels: 5 },
            NormShape { views: 3, rows: 301, channels: 40 },
            NormShape { views: 1, rows: 4, channels: 64 },
        ] {
            for (kind, relu) in [(0, true), (0, false), (1, true), (2, true)] {
                check_norm(&bench, &shape, kind, relu, &format!("{shape:?}, residual {kind}, relu {relu}"));
            }
        }
    }
}

fn check_norm(bench: &Bench, shape: &NormShape, kind: usize, relu: bool, what: &str) {
    let NormShape { views, rows, channels } = *shape;
    let len = views * rows * channels;
    // Far from 0 on average, as behind a ReLU.
    let raw: Vec<f32> =
        random("y", len).iter().enumerate().map(|(i, v)| v * 2.0 + (i % channels) as f32 * 0.1).collect();
    let (y_memory, y) = bench.rounded(&raw);
    let (d_memory, d) = bench.rounded(&random("d", len));
    let (added_memory, added) = bench.rounded(&random("added", len));
    let (before_memory, before) = bench.rounded(&random("before", len));
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (gamma, beta) = (random("gamma", channels), random("beta", channels));
    let (y_wide, d_wide, added_wide) = (wide(&y), wide(&d), wide(&added));
    let residual = |slice| match kind {
        0 => Residual::None,
        1 => Residual::BeforeRelu(slice),
        _ => Residual::AfterRelu(slice),
    };
    let twin =
        norm_twin(shape, &y_wide, &wide(&gamma), &wide(&beta), residual(()).map(|()| &added_wide[..]), relu, &d_wide);

    let kernels = &bench.kernels;
    let of = |values: &[f32]| Memory::of(kernels.device(), values).unwrap();
    let (gamma_memory, beta_memory) = (of(&gamma), of(&beta));
    let (mean, var) = (of(&vec![0.0; channels]), of(&vec![1.0; channels]));
    let statistics = bench.floats(views * STATISTICS * channels);
    let (partial, coefficients) = (bench.floats(shape.partial_len()), bench.floats(views * COEFFICIENTS * channels));
    let affine = AffineSlices { gamma: gamma_memory.all(), beta: beta_memory.all() };
    let running = RunningSlices { mean: mean.all(), var: var.all() };
    kernels.bn_statistics(shape, y_memory.all(), Some(affine), running, partial.all(), statistics.all()).unwrap();
    assert_close(&format!("running mean of {what}"), &Bench::read(&mean, channels), &twin.running_mean, 1e-5);
    assert_close(&format!("running variance of {what}"), &Bench::read(&var, channels), &twin.running_var, 1e-5);
    let out = bench.elements(len);
    let added = residual(()).map(|()| added_memory.all());
    kernels.bn_apply(shape, y_memory.all(), statistics.all(), added, relu, out.all()).unwrap();
    // A row or two make deviations that enlarge every rounding.
    let tolerance = 4.0 * bench.tolerance();
    assert_close(&format!("out of {what}"), &bench.numbers(&out, len), &twin.out, tolerance);

    let (d_gamma, d_beta) = (of(&vec![1.0; channels]), of(&vec![2.0; channels]));
    let trained = AffineSlices { gamma: d_gamma.all(), beta: d_beta.all() };
    let tensors = NormGradient {
        d: d_memory.all(),
        y: y_memory.all(),
        out: (kind == 1).then(|| out.all()),
        statistics: statistics.all(),
    };
    let accumulate = rows != 7;
    let target = residual(()).map(|()| Some((before_memory.all(), accumulate)));
    let gradients = Some((trained, accumulate));
    kernels.bn_gradient(shape, &tensors, target, relu, gradients, partial.all(), coefficients.all()).unwrap();
    assert_close(&format!("dy of {what}"), &bench.numbers(&y_memory, len), &twin.dy, tolerance);
    let plus =
        |values: &[f64], old: f64| values.iter().map(|v| if accumulate { v + old } else { *v }).collect::<Vec<_>>();
    assert_close(&format!("gamma of {what}"), &Bench::read(&d_gamma, channels), &plus(&twin.d_gamma, 1.0), 1e-4);
    assert_close(&format!("beta of {what}"), &Bench::read(&d_beta, channels), &plus(&twin.d_beta, 2.0), 1e-4);
    if kind != 0 {
        let sum: Vec<f64> = twin
            .d_residual
            .iter()
            .zip(&before)
            .map(|(new, old)| if accumulate { new + f64::from(*old) } else { *new })
            .collect();
        assert_close(&format!("residual of {what}"), &bench.numbers(&before_memory, len), &sum, tolerance);
    }
}

/// Max-pools behind a batch norm and global pools, forward and backward.
pub fn pools_agree_with_loops(open: Open<'_>) {
    for precision in [Precision::F32, Precision::F16] {
        let bench = Bench::new(open, precision);
        for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0)] {
            check_pool(&bench, MaxPool { kernel, stride, padding });
        }
        check_global_pool(&bench);
    }
}

fn check_pool(bench: &Bench, pool: MaxPool) {
    let (n, input) = (4, Dims { height: 7, width: 6, channels: 10 });
    let output = pool.output_dims(input).unwrap();
    let shape = PoolShape { n, pool, input, output };
    let (len, out_len, channels) = (n * input.len(), n * output.len(), input.channels);
    // Few different values, so that several are the largest of a window.
    let coarse: Vec<f32> = random("pool", len).iter().map(|v| (v * 4.0).round() / 4.0).collect();
    let (y_memory, y) = bench.rounded(&coarse);
    let (d_memory, d) = bench.rounded(&random("d", out_len));
    // Two views of two images; powers of two, so that f16 and f32 agree to the bit.
    let mut statistics = vec![0.0; 2 * STATISTICS * channels];
    for (idx, value) in statistics.iter_mut().enumerate() {
        *value =
            [0.0, 1.0, 0.5, 0.125][idx / channels % STATISTICS] * if idx >= STATISTICS * channels { 2.0 } else { 1.0 };
    }
    let statistics = Memory::of(bench.kernels.device(), &statistics).unwrap();
    let (out, winners) = (bench.elements(out_len), Memory::new(bench.kernels.device(), out_len).unwrap());
    bench.kernels.bn_pool(&shape, 2, y_memory.all(), statistics.all(), true, out.all(), winners.all()).unwrap();
    let g = bench.elements(len);
    bench.kernels.pool_gradient(&shape, d_memory.all(), winners.all(), g.all()).unwrap();

    let (mut out_twin, mut g_twin) = (vec![0.0; out_len], vec![0.0; len]);
    for image in 0..n {
        let factor = if image < 2 { 1.0 } else { 2.0 };
        for (line, column, channel) in (0..output.height)
            .flat_map(|line| (0..output.width).map(move |column| (line, column)))
            .flat_map(|(line, column)| (0..channels).map(move |channel| (line, column, channel)))
        {
            let mut best = None;
            for (kh, kw) in (0..pool.kernel).flat_map(|kh| (0..pool.kernel).map(move |kw| (kh, kw))) {
                let h = (line * pool.stride + kh).checked_sub(pool.padding).filter(|h| *h < input.height);
                let w = (column * pool.stride + kw).checked_sub(pool.padding).filter(|w| *w < input.width);
                let (Some(h), Some(w)) = (h, w) else { continue };
                let place = ((image * input.height + h) * input.width + w) * channels + channel;
                let value = (f64::from(y[place]) * 0.5 * factor + 0.125 * factor).max(0.0);
                if best.is_none_or(|(_, largest)| value > largest) {
                    best = Some((place, value));
                }
            }
            let (place, value) = best.unwrap();
            let i = ((image * output.height + line) * output.width + column) * channels + channel;
            out_twin[i] = value;
            g_twin[place] += f64::from(d[i]);
        }
    }
    assert_close(&format!("{pool:?}"), &bench.numbers(&out, out_len), &out_twin, bench.tolerance());
    assert_close(&format!("gradient of {pool:?}"), &bench.numbers(&g, len), &g_twin, bench.tolerance());
}

fn check_global_pool(bench: &Bench) {
    let (n, dims) = (3, Dims { height: 3, width: 2, channels: 9 });
    let (len, positions, channels) = (n * dims.len(), dims.positions(), dims.channels);
    let coarse: Vec<f32> = random("global", len).iter().map(|v| (v * 2.0).round() / 2.0).collect();
    let (x_memory, x) = bench.rounded(&coarse);
    let (dy_memory, dy) = bench.rounded(&random("dy", n * channels));
    for maximum in [false, true] {
        let (y, dx) = (bench.elements(n * channels), bench.elements(len));
        bench.kernels.global_pool(n, dims, maximum, x_memory.all(), y.all()).unwrap();
        let (x_slice, d_slice) = (x_memory.all(), dy_memory.all());
        bench.kernels.global_pool_gradient(n, dims, maximum, x_slice, y.all(), d_slice, dx.all()).unwrap();
        let (mut y_twin, mut dx_twin) = (vec![0.0; n * channels], vec![0.0; len]);
        for i in 0..n * channels {
            let places: Vec<usize> =
                (0..positions).map(|p| (i / channels * positions + p) * channels + i % channels).collect();
            let value = |place: &usize| f64::from(x[*place]);
            if maximum {
                y_twin[i] = places.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
                let first = places.iter().find(|place| value(place) == y_twin[i]).unwrap();
                dx_twin[*first] = f64::from(dy[i]);
            } else {
                y_twin[i] = places.iter().map(value).sum::<f64>() / positions as f64;
                for place in places {
                    dx_twin[place] = f64::from(dy[i]) / positions as f64;
                }
            }
        }
        let what = if maximum { "maximum" } else { "mean" };
        assert_close(what, &bench.numbers(&y, n * channels), &y_twin, bench.tolerance());
        assert_close(&format!("gradient of the {what}"), &bench.numbers(&dx, len), &dx_twin, bench.tolerance());
    }
}

/// Two updates of a flat buffer by the rule in f64; and none where the flag is set.
pub fn sgd_is_the_cpus(open: Open<'_>) {
    for precision in [Precision::F32, Precision::Bf16] {
        let bench = Bench::new(open, precision);
        let (kernels, len) = (&bench.kernels, 700);
        let (start, gradients) = (random("p", len), random("g", len));
        let of = |values: &[f32]| Memory::of(kernels.device(), values).unwrap();
        let (values, velocity) = (of(&start), of(&vec![0.0; len]));
        let weights = precision.is_half_width().then(|| bench.elements(len));
        let (gradient, flag) = (of(&gradients), Memory::zeros(kernels.device(), 4).unwrap());
        let buffers = SgdBuffers {
            values: values.all(),
            gradients: gradient.all(),
            velocity: velocity.all(),
            weights: weights.as_ref().map(Memory::all),
            flag: flag.all(),
        };
        let rule = SgdRule { lr: 0.1, momentum: 0.9, weight_decay: 0.01, unscale: 0.25 };
        let (mut p, mut v): (Vec<f64>, Vec<f64>) = (start.iter().map(|p| f64::from(*p)).collect(), vec![0.0; len]);
        for _ in 0..2 {
            kernels.sgd(len, &buffers, &rule).unwrap();
            for i in 0..len {
                v[i] = 0.9 * v[i] + f64::from(gradients[i]) * 0.25 + 0.01 * p[i];
                p[i] -= 0.1 * v[i];
            }
        }
        assert_close("values", &Bench::read(&values, len), &p, 1e-6);
        assert_close("velocities", &Bench::read(&velocity, len), &v, 1e-6);
        if let Some(weights) = &weights {
            let (_, expected) = bench.rounded(&Bench::read(&values, len));
            assert_eq!(bench.numbers(weights, len), expected);
        }
        let mut bad = gradients.clone();
        bad[len - 1] = f32::NAN;
        gradient.write(0, &bad).unwrap();
        kernels.flag_not_finite(len, gradient.all(), flag.all()).unwrap();
        let before = Bench::read(&values, len);
        kernels.sgd(len, &buffers, &rule).unwrap();
        assert_eq!(Bench::read(&values, len), before);
    }
}
