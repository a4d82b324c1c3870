//! `embedding_std`: how far the outputs of different images lie apart (paper, section 4.1 and figure 2).

use dfdx::prelude::HasShape;

use crate::ops::{Matrix, matrix_values};

/// Mean over dimensions of the (unbiased) standard deviation over the batch of the L2-normalised first n rows of z
/// [at least n, d]. 0 is collapse; about 1/√d is healthy. NaN where these rows hold NaN, 0 for a single row.
pub fn embedding_std(z: &Matrix, n: usize) -> f64 {
    let d = z.shape().1;
    let mut rows = matrix_values(z);
    rows.truncate(n * d);
    for row in rows.chunks_exact_mut(d) {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        let scale = if norm < 1e-12 { 1e12 } else { 1.0 / norm };
        for x in row {
            *x = (f64::from(*x) * scale) as f32;
        }
    }
    let (mut sum, mut sum_sq) = (vec![0.0_f64; d], vec![0.0_f64; d]);
    for row in rows.chunks_exact(d) {
        for ((sum, sum_sq), x) in sum.iter_mut().zip(&mut sum_sq).zip(row) {
            *sum += f64::from(*x);
            *sum_sq += f64::from(*x) * f64::from(*x);
        }
    }
    if n < 2 {
        return 0.0;
    }
    let n = n as f64;
    let deviation = |(sum, sum_sq): (&f64, &f64)| {
        let variance = (sum_sq - sum * sum / n) / (n - 1.0);
        // Rounding can leave a tiny negative number; NaN must stay.
        if variance < 0.0 { 0.0 } else { variance.sqrt() }
    };
    sum.iter().zip(&sum_sq).map(deviation).sum::<f64>() / d as f64
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::*;
    use crate::ops::matrix_from_values;

    fn std_of(rows: &[[f32; 2]]) -> f64 {
        let values = rows.iter().flatten().copied().collect();
        embedding_std(&matrix_from_values(&Cpu::default(), values, rows.len(), 2), rows.len())
    }

    #[test]
    fn equal_directions_have_none() {
        assert!(std_of(&[[3.0, 4.0], [6.0, 8.0], [0.3, 0.4]]) < 1e-6);
    }

    #[test]
    fn opposite_directions_have_the_known_value() {
        // Rows (1, 0) and (−1, 0): deviations √2 and 0.
        assert!((std_of(&[[2.0, 0.0], [-5.0, 0.0]]) - 2.0_f64.sqrt() / 2.0).abs() < 1e-9);
    }

    #[test]
    fn nan_stays_nan() {
        assert!(std_of(&[[f32::NAN, 0.0], [1.0, 0.0]]).is_nan());
    }
}
