//! Pooling against the definition.

use super::super::layers::Dims;
use super::pool;
use crate::kernels::reference::numbers;

/// Coarse values, so that windows hold ties.
fn coarse(seed: u64, len: usize) -> Vec<f32> {
    numbers(seed, len).iter().map(|v| (v * 3.0).round()).collect()
}

#[test]
fn global_pools_follow_the_definition() {
    let input = Dims { height: 3, width: 5, channels: 7 };
    let (x, dy) = (coarse(1, 2 * input.len()), numbers(2, 14));
    let (mut max, mut mean) = (vec![0.0; 14], vec![0.0; 14]);
    pool::global_max_forward(input, &x, &mut max);
    pool::global_average_forward(input, &x, &mut mean);
    let (mut d_max, mut d_mean) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
    pool::global_max_backward(input, &x, &max, &dy, &mut d_max, false);
    pool::global_average_backward(input, &dy, &mut d_mean, false);
    for (at, dy) in dy.iter().enumerate() {
        let (n, c) = (at / 7, at % 7);
        let column: Vec<usize> = (0..15).map(|p| n * input.len() + p * 7 + c).collect();
        let first = column.iter().copied().reduce(|a, b| if x[b] > x[a] { b } else { a }).unwrap();
        assert_eq!(max[at], x[first]);
        assert!((mean[at] - column.iter().map(|i| x[*i]).sum::<f32>() / 15.0).abs() < 1e-6);
        for i in column {
            assert_eq!(d_max[i], if i == first { *dy } else { 0.0 });
            assert!((d_mean[i] - dy / 15.0).abs() < 1e-7);
        }
    }
}

#[test]
fn not_a_number_wins() {
    for at in 0..4 {
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        x[at] = f32::NAN;
        let mut y = vec![0.0];
        pool::global_max_forward(Dims { height: 2, width: 2, channels: 1 }, &x, &mut y);
        assert!(y[0].is_nan());
    }
}
