//! Rounding, and convolutions against loops in f64.

use super::{Bench, Open, assert_close, random};
use crate::{
    cuda::{launch::Shape, precision::Precision},
    model::backbone::Dims,
};

/// The number that these 16 bits stand for, as their formats are defined.
fn decoded(precision: Precision, bits: u16) -> f64 {
    let (fraction_bits, bias) = if precision == Precision::Bf16 { (7, 127) } else { (10, 15) };
    let exponent = i32::from(bits >> fraction_bits) & ((1 << (15 - fraction_bits)) - 1);
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
    let magnitude =
        if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Every number of 16 bits, what lies halfway to the next and a little beside that.
pub fn conversions_round_to_nearest(open: Open<'_>) {
    for precision in [Precision::Bf16, Precision::F16] {
        let infinity: u16 = if precision == Precision::Bf16 { 0x7f80 } else { 0x7c00 };
        let (mut values, mut expected) = (vec![], vec![]);
        for bits in 0..infinity - 1 {
            let (low, high) = (decoded(precision, bits), decoded(precision, bits + 1));
            let middle = f64::midpoint(low, high) as f32;
            if f64::from(middle) != f64::midpoint(low, high) || middle < 1e-36 {
                continue;
            }
            // Of two that are equally near, the one whose last bit is 0.
            let even = if bits % 2 == 0 { low } else { high };
            values.extend([low as f32, middle, middle.next_down(), -middle.next_up()]);
            expected.extend([low, even, low, -high]);
        }
        let bench = Bench::new(open, precision);
        let (_, found) = bench.rounded(&values);
        for ((value, found), expected) in values.iter().zip(found).zip(expected) {
            assert_eq!(f64::from(found), expected, "{value:e} in {}", precision.name());
        }
        let (_, odd) = bench.rounded(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -0.0]);
        assert!(odd[0].is_nan() && odd[1] == f32::INFINITY && odd[2] == f32::NEG_INFINITY, "{odd:?}");
        assert!(odd[3].is_infinite() == (precision == Precision::F16) && odd[4].to_bits() == 1 << 31, "{odd:?}");
    }
}

fn shape(n: usize, size: [usize; 2], [cin, cout]: [usize; 2], [kernel, stride, padding]: [usize; 3]) -> Shape {
    let out = |edge: usize| (edge + 2 * padding - kernel) / stride + 1;
    let [height, width] = size;
    Shape {
        n,
        input: Dims { height, width, channels: cin },
        output: Dims { height: out(height), width: out(width), channels: cout },
        kernel,
        stride,
        padding,
    }
}

/// Calls `f` with the indices of every x, w and y that meet.
fn for_each_product(s: &Shape, mut f: impl FnMut(usize, usize, usize)) {
    let Shape { n, input, output, kernel, stride, padding } = *s;
    for (image, oh, ow) in (0..n)
        .flat_map(|image| (0..output.height).map(move |oh| (image, oh)))
        .flat_map(|(image, oh)| (0..output.width).map(move |ow| (image, oh, ow)))
    {
        for (kh, kw) in (0..kernel).flat_map(|kh| (0..kernel).map(move |kw| (kh, kw))) {
            let (Some(h), Some(w)) = ((oh * stride + kh).checked_sub(padding), (ow * stride + kw).checked_sub(padding))
            else {
                continue;
            };
            if h >= input.height || w >= input.width {
                continue;
            }
            let x = ((image * input.height + h) * input.width + w) * input.channels;
            let y = ((image * output.height + oh) * output.width + ow) * output.channels;
            let weight = (kh * kernel + kw) * input.channels * output.channels;
            for i in 0..input.channels {
                for o in 0..output.channels {
                    f(x + i, weight + i * output.channels + o, y + o);
                }
            }
        }
    }
}

/// What a tensor core takes for an f32: ten bits of fraction, ties away from zero.
fn to_tf32(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x1000) & 0xffff_e000)
}

/// Forward, data gradient and weight gradient, written and added to, in tiles of both sizes and all precisions.
pub fn convolutions_agree_with_loops(open: Open<'_>) {
    let shapes = [
        // A stem, whose channels fill no vector.
        shape(2, [9, 7], [3, 64], [7, 2, 3]),
        shape(2, [6, 5], [16, 72], [3, 1, 1]),
        shape(2, [9, 8], [64, 40], [3, 2, 1]),
        shape(1, [5, 5], [8, 8], [1, 2, 0]),
        // Linear layers, narrow and wide, beyond one tile.
        Shape::linear(5, 13, 7),
        Shape::linear(140, 136, 144),
        // A weight gradient in parts.
        shape(2, [20, 17], [8, 16], [3, 1, 1]),
    ];
    for precision in Precision::ALL {
        let bench = Bench::new(open, precision);
        for (idx, s) in shapes.iter().enumerate() {
            for tile in [64, 128] {
                check_convolution(&bench, s, tile, &format!("{} {idx} in tiles of {tile}", precision.name()));
            }
        }
    }
}

fn check_convolution(bench: &Bench, s: &Shape, tile: usize, what: &str) {
    let (x_len, y_len) = (s.n * s.input.len(), s.n * s.output.len());
    let w_len = s.kernel * s.kernel * s.input.channels * s.output.channels;
    let (x_memory, x) = bench.rounded(&random("x", x_len));
    let (w_memory, w) = bench.rounded(&random("w", w_len));
    let (dy_memory, dy) = bench.rounded(&random("dy", y_len));
    let (dx_memory, before) = bench.rounded(&random("dx", x_len));
    let as_multiplied = |values: &[f32]| -> Vec<f64> {
        let is_tf32 = bench.kernels.precision() == Precision::Tf32;
        values.iter().map(|v| f64::from(if is_tf32 { to_tf32(*v) } else { *v })).collect()
    };
    let (x, w, dy) = (as_multiplied(&x), as_multiplied(&w), as_multiplied(&dy));
    let (mut y_twin, mut dx_twin, mut dw_twin) = (vec![0.0; y_len], vec![0.0; x_len], vec![0.0; w_len]);
    for_each_product(s, |i, j, k| {
        y_twin[k] += x[i] * w[j];
        dx_twin[i] += dy[k] * w[j];
        dw_twin[j] += x[i] * dy[k];
    });

    let kernels = &bench.kernels;
    let tolerance = bench.tolerance();
    let y = bench.elements(y_len);
    kernels.conv_forward_by(tile, s, x_memory.all(), w_memory.all(), y.all()).unwrap();
    assert_close(&format!("y of {what}"), &bench.numbers(&y, y_len), &y_twin, tolerance);

    let (dy, w) = (dy_memory.all(), w_memory.all());
    kernels.conv_data_gradient_by(tile, s, dy, w, dx_memory.all(), true).unwrap();
    let sum: Vec<f64> = dx_twin.iter().zip(&before).map(|(new, old)| new + f64::from(*old)).collect();
    assert_close(&format!("dx added for {what}"), &bench.numbers(&dx_memory, x_len), &sum, tolerance);
    let dx = bench.elements(x_len);
    kernels.conv_data_gradient_by(tile, s, dy, w, dx.all(), false).unwrap();
    assert_close(&format!("dx of {what}"), &bench.numbers(&dx, x_len), &dx_twin, tolerance);

    let dw = bench.floats(w_len);
    let partial = bench.floats(s.weight_partial_len_by(tile));
    let x = x_memory.all();
    kernels.conv_weight_gradient_by(tile, s, x, dy, partial.all(), dw.all(), false).unwrap();
    assert_close(&format!("dw of {what}"), &Bench::read(&dw, w_len), &dw_twin, 1e-5);
    kernels.conv_weight_gradient_by(tile, s, x, dy, partial.all(), dw.all(), true).unwrap();
    let twice: Vec<f64> = dw_twin.iter().map(|v| 2.0 * v).collect();
    assert_close(&format!("dw added for {what}"), &Bench::read(&dw, w_len), &twice, 1e-5);
}
