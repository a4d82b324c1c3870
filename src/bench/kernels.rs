//! The kernels one by one, on the shapes that ResNet-18 gives them, so that a regression shows which kernel it is in.
//! `cargo bench --bench kernels` runs them.

use crate::kernels::{matrix::Matrix, product::multiply, scratch::Scratch};
use crate::model::backbone::cpu::{
    batch_norm::{self, Affine, BackwardInput, Moments},
    conv::{self, ConvShape},
    pooled_norm::{self, PoolShape},
    prepared::{PreparedWeights, Weights},
};
use crate::model::backbone::layers::{Dims, MaxPool};
use crate::model::backbone::op::Residual;

/// One kernel on one shape.
pub struct KernelCase {
    /// What it is, such as `conv3x3/64c16/forward`.
    pub name: String,
    /// Operations of a call by the definition of the work (a multiply-add is two), or bytes that it must move where it
    /// hardly computes.
    pub work: u64,
    /// Whether `work` is bytes.
    pub is_bytes: bool,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

/// Images in a call.
const BATCH: usize = 32;

/// All cases.
pub fn cases() -> Vec<KernelCase> {
    let mut cases = vec![];
    // name, input edge, channels in and out, kernel, stride, padding
    let convolutions = [
        ("stem7x7s2", 64, [3, 64], [7, 2, 3]),
        ("stem3x3", 32, [3, 64], [3, 1, 1]),
        ("conv3x3", 32, [64, 64], [3, 1, 1]),
        ("conv3x3", 16, [64, 64], [3, 1, 1]),
        ("conv3x3", 8, [128, 128], [3, 1, 1]),
        ("conv3x3", 6, [256, 256], [3, 1, 1]),
        ("conv3x3", 4, [256, 256], [3, 1, 1]),
        ("conv3x3", 2, [512, 512], [3, 1, 1]),
        ("conv3x3s2", 16, [64, 128], [3, 2, 1]),
        ("conv3x3s2", 8, [128, 256], [3, 2, 1]),
        ("conv1x1", 16, [64, 256], [1, 1, 0]),
        ("conv1x1s2", 16, [64, 128], [1, 2, 0]),
    ];
    for (name, edge, channels, [kernel, stride, padding]) in convolutions {
        convolution(&mut cases, &format!("{name}/{}c{edge}", channels[1]), edge, channels, [kernel, stride, padding]);
    }
    norms(&mut cases);
    pooling(&mut cases);
    // Projector and predictor of a batch of 64: rows of both views.
    for (name, [m, n, k]) in [
        ("linear/forward", [128, 2048, 2048]),
        ("linear/weight_gradient", [2048, 2048, 128]),
        ("linear/large", [1024, 1024, 1024]),
    ] {
        let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0; m * n]);
        let run = move || multiply([m, n, k], Matrix::row_major(&a, k), Matrix::row_major(&b, n), &mut c, false);
        cases.push(KernelCase {
            name: format!("{name}/{m}x{n}x{k}"),
            work: 2 * (m * n * k) as u64,
            is_bytes: false,
            run: Box::new(run),
        });
    }
    cases
}

fn convolution(
    cases: &mut Vec<KernelCase>,
    name: &str,
    edge: usize,
    [cin, cout]: [usize; 2],
    [kernel, stride, padding]: [usize; 3],
) {
    let out = (edge + 2 * padding - kernel) / stride + 1;
    let shape = ConvShape {
        n: BATCH,
        input: Dims { height: edge, width: edge, channels: cin },
        output: Dims { height: out, width: out, channels: cout },
        kernel,
        stride,
        padding,
    };
    let (x_len, y_len, w_len) = (BATCH * edge * edge * cin, BATCH * out * out * cout, shape.depth() * cout);
    let mut add = |direction: &str, run: Box<dyn FnMut()>| {
        cases.push(KernelCase { name: format!("{name}/{direction}"), work: shape.flop() as u64, is_bytes: false, run });
    };
    // Weights change from step to step, so each call prepares them anew.
    let (x, w, mut y) = (numbers(x_len), numbers(w_len), vec![0.0; y_len]);
    let (mut prepared, mut scratch, mut version) = (PreparedWeights::default(), Scratch::default(), 0);
    add(
        "forward",
        Box::new(move || {
            version += 1;
            let weights = Weights { values: &w, version };
            conv::forward(&shape, &x, weights, &mut y, &mut prepared, &mut scratch, |_, _| ());
        }),
    );
    let (x, dy, mut dw) = (numbers(x_len), numbers(y_len), vec![0.0; w_len]);
    let mut scratch = Scratch::default();
    add("weight_gradient", Box::new(move || conv::weight_gradient(&shape, &x, &dy, &mut dw, false, &mut scratch)));
    if cin == 3 {
        // Nobody wants the gradient of an image.
        return;
    }
    let (dy, w, mut dx) = (numbers(y_len), numbers(w_len), vec![0.0; x_len]);
    let (mut prepared, mut scratch, mut version) = (PreparedWeights::default(), Scratch::default(), 0);
    add(
        "data_gradient",
        Box::new(move || {
            version += 1;
            let weights = Weights { values: &w, version };
            conv::data_gradient(&shape, &dy, weights, &mut dx, false, &mut prepared, &mut scratch);
        }),
    );
}

fn norms(cases: &mut Vec<KernelCase>) {
    let (channels, positions) = (64, BATCH * 32 * 32);
    let len = channels * positions;
    let affine = || Affine { scale: vec![1.1; 64], shift: vec![0.1; 64] };
    let mut add = |name: &str, streams: usize, run: Box<dyn FnMut()>| {
        let work = (streams * len * size_of::<f32>()) as u64;
        cases.push(KernelCase { name: format!("batch_norm/{name}/64c32"), work, is_bytes: true, run });
    };
    let y = numbers(len);
    add("moments", 1, Box::new(move || drop(Moments::of(&y, channels))));
    let (y, mut out, forward) = (numbers(len), vec![0.0; len], affine());
    add("relu", 2, Box::new(move || batch_norm::normalize(&y, &forward, Residual::None, true, &mut out)));
    let (mut y, output, mut d, backward) = (numbers(len), numbers(len), numbers(len), affine());
    let (mean, inv_std) = (vec![0.0; channels], vec![1.0; channels]);
    let (mut d_scale, mut d_shift) = (vec![0.0; channels], vec![0.0; channels]);
    add(
        "relu_gradient",
        5,
        Box::new(move || {
            let input = BackwardInput { output: &output, affine: &backward, mean: &mean, inv_std: &inv_std };
            batch_norm::backward(input, true, Residual::None, &mut d, &mut y, &mut d_scale, &mut d_shift);
        }),
    );
}

fn pooling(cases: &mut Vec<KernelCase>) {
    let input = Dims { height: 32, width: 32, channels: 64 };
    let output = Dims { height: 16, width: 16, channels: 64 };
    let shape = PoolShape { pool: MaxPool { kernel: 3, stride: 2, padding: 1 }, input, output };
    let (y_len, out_len) = (BATCH * input.len(), BATCH * output.len());
    let bytes = |streams: usize| (streams * size_of::<f32>()) as u64;
    let affine = || Affine { scale: vec![1.1; 64], shift: vec![0.1; 64] };
    let (y, mut out, forward) = (numbers(y_len), vec![0.0; out_len], affine());
    let (mut places, mut values) = (vec![0; out_len], vec![0.0; out_len]);
    cases.push(KernelCase {
        name: "batch_norm/relu_pool/64c32".to_owned(),
        work: bytes(y_len + 2 * out_len) + out_len as u64,
        is_bytes: true,
        run: Box::new(move || {
            pooled_norm::forward_train(shape, &y, &forward, true, &mut out, &mut places, &mut values);
        }),
    });
    let (mut y, mut out, mut d, affine) = (numbers(y_len), vec![0.0; out_len], numbers(out_len), affine());
    let (mut places, mut values) = (vec![0; out_len], vec![0.0; out_len]);
    pooled_norm::forward_train(shape, &y, &affine, true, &mut out, &mut places, &mut values);
    let (mean, inv_std) = (vec![0.0; 64], vec![1.0; 64]);
    let (mut d_scale, mut d_shift) = (vec![0.0; 64], vec![0.0; 64]);
    cases.push(KernelCase {
        name: "batch_norm/relu_pool_gradient/64c32".to_owned(),
        work: bytes(2 * y_len + 3 * out_len) + out_len as u64,
        is_bytes: true,
        run: Box::new(move || {
            let won = BackwardInput { output: &out, affine: &affine, mean: &mean, inv_std: &inv_std };
            pooled_norm::backward(shape, won, &values, &places, true, &mut d, &mut y, &mut d_scale, &mut d_shift);
        }),
    });
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|idx| (idx * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs_and_counts_something() {
        let mut names = vec![];
        for mut case in cases() {
            (case.run)();
            assert!(case.work > 0);
            names.push(case.name);
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
