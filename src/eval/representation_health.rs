//! How well embeddings use their space, without labels.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    eval_error::{EvalError, check_length},
    knn::l2_normalize_rows,
    linear_classifier::l2_normalize_row,
    matmul::{add_matmul_tn, matmul_nt},
    symmetric_eigen::eigenvalues,
};

/// Uniformity and rank are measured on this many rows, evenly spaced: pairs grow with the square.
const MAX_ROWS: usize = 2048;
const BLOCK: usize = 256;

/// How well embeddings use their space.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationHealth {
    /// exp of the entropy of the singular values' shares (RankMe, Garrido et al. 2023): how many dimensions
    /// carry something. Between 1 (collapsed) and the length of an embedding.
    pub effective_rank: f64,
    /// log mean exp(−2 ‖u − v‖²) over pairs of embeddings of length 1 (Wang & Isola 2020): 0 where all are
    /// the same, lower where they spread over the sphere.
    pub uniformity: f64,
    /// Mean length.
    pub mean_norm: f64,
    /// Mean over dimensions of the deviation of embeddings of length 1, times √d: about 1 where they spread
    /// evenly, 0 where all are the same.
    pub normalized_std_ratio: f64,
    /// Dimensions with the same value in every row: dead units.
    pub num_constant_dims: u32,
    /// Rows that uniformity and rank were measured on.
    pub num_measured: u64,
}

/// Measures `features` [n, dim].
///
/// # Errors
/// Where there are no rows or the length is no multiple of `dim`.
pub fn measure_health(features: &[f32], dim: usize) -> Result<RepresentationHealth, EvalError> {
    if features.is_empty() || dim == 0 {
        return Err(EvalError::Empty { what: "the table of features" });
    }
    let n = features.len() / dim;
    check_length("the table of features", n * dim, features.len())?;
    let row = |idx: usize| &features[idx * dim..(idx + 1) * dim];

    let num_measured = n.min(MAX_ROWS);
    let sample: Vec<f32> = (0..num_measured).flat_map(|idx| row(idx * n / num_measured)).copied().collect();
    let num_constant_dims = (0..dim).filter(|&column| (1..n).all(|idx| row(idx)[column] == row(0)[column])).count();
    let norms = features.chunks_exact(dim).map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt());
    Ok(RepresentationHealth {
        effective_rank: effective_rank(&sample, dim),
        uniformity: uniformity(&sample, dim),
        mean_norm: norms.sum::<f64>() / n as f64,
        normalized_std_ratio: normalized_std(features, dim) * (dim as f64).sqrt(),
        num_constant_dims: num_constant_dims as u32,
        num_measured: num_measured as u64,
    })
}

/// From the eigenvalues of the smaller of XᵀX and XXᵀ, which are the squares of the singular values.
fn effective_rank(features: &[f32], dim: usize) -> f64 {
    let x: Vec<f64> = features.iter().map(|&x| f64::from(x)).collect();
    let n = x.len() / dim;
    let side = n.min(dim);
    let mut gram = vec![0.0; side * side];
    gram.par_chunks_mut(BLOCK * side).enumerate().for_each(|(block, out)| {
        let (first, rows) = (block * BLOCK, out.len() / side);
        if n <= dim {
            matmul_nt(out, &x[first * dim..(first + rows) * dim], &x, (rows, n, dim));
        } else {
            let columns: Vec<f64> = x.chunks_exact(dim).flat_map(|row| &row[first..first + rows]).copied().collect();
            add_matmul_tn(out, &columns, &x, (rows, dim, n));
        }
    });
    let singular: Vec<f64> = eigenvalues(&mut gram, side).into_iter().map(|value| value.max(0.0).sqrt()).collect();
    let total: f64 = singular.iter().sum();
    if total == 0.0 {
        // All zeros: as collapsed as can be.
        return 1.0;
    }
    let entropy: f64 = singular.iter().map(|s| s / total).filter(|&share| share > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

fn uniformity(features: &[f32], dim: usize) -> f64 {
    let n = features.len() / dim;
    if n < 2 {
        return 0.0;
    }
    let unit = l2_normalize_rows(features, dim);
    let sums: Vec<f64> = unit
        .par_chunks(BLOCK * dim)
        .enumerate()
        .map(|(block, rows)| {
            // Each pair once: with the rows from the first of the block on.
            let (num_rows, from_block) = (rows.len() / dim, &unit[block * BLOCK * dim..]);
            let num_columns = from_block.len() / dim;
            let mut cosines = vec![0.0; num_rows * num_columns];
            matmul_nt(&mut cosines, rows, from_block, (num_rows, num_columns, dim));
            let mut sum = 0.0;
            for (idx, row) in cosines.chunks_exact(num_columns).enumerate() {
                // ‖u − v‖² = 2 − 2 u·v
                for &cosine in &row[idx + 1..] {
                    sum += (-2.0 * (2.0 - 2.0 * f64::from(cosine)).max(0.0)).exp();
                }
            }
            sum
        })
        .collect();
    (sums.iter().sum::<f64>() / (n * (n - 1) / 2) as f64).ln()
}

fn normalized_std(features: &[f32], dim: usize) -> f64 {
    let n = (features.len() / dim) as f64;
    let (mut mean, mut square, mut unit) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
    for row in features.chunks_exact(dim) {
        for (unit, &x) in unit.iter_mut().zip(row) {
            *unit = f64::from(x);
        }
        l2_normalize_row(&mut unit);
        for ((mean, square), unit) in mean.iter_mut().zip(&mut square).zip(&unit) {
            *mean += unit / n;
            *square += unit * unit / n;
        }
    }
    mean.iter().zip(&square).map(|(mean, square)| (square - mean * mean).max(0.0).sqrt()).sum::<f64>() / dim as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        dim: usize,
        features: Vec<f32>,
        effective_rank: f64,
        uniformity: f64,
        mean_norm: f64,
        normalized_std: f64,
    }

    #[test]
    fn figures_equal_their_definitions_in_numpy_and_torch() {
        let golden: Golden = serde_json::from_str(include_str!("../../tests/golden/eval/health.json")).unwrap();
        let ours = measure_health(&golden.features, golden.dim).unwrap();
        assert!((ours.effective_rank - golden.effective_rank).abs() < 1e-6, "{ours:?}");
        assert!((ours.uniformity - golden.uniformity).abs() < 1e-6, "{ours:?}");
        assert!((ours.mean_norm - golden.mean_norm).abs() < 1e-9, "{ours:?}");
        assert!((ours.normalized_std_ratio - golden.normalized_std * (golden.dim as f64).sqrt()).abs() < 1e-6);
        assert_eq!(ours.num_constant_dims, 1);
        // The other Gram matrix has the same eigenvalues.
        let wide = &golden.features[..5 * golden.dim];
        let square: Vec<f32> = wide.iter().copied().chain(std::iter::repeat_n(0.0, 4 * golden.dim)).collect();
        assert!((effective_rank(wide, golden.dim) - effective_rank(&square, golden.dim)).abs() < 1e-6);
    }

    #[test]
    fn collapse_shows() {
        let same = [0.5, -1.0, 2.0].repeat(50);
        let health = measure_health(&same, 3).unwrap();
        assert!((health.effective_rank - 1.0).abs() < 1e-5 && health.uniformity.abs() < 1e-5, "{health:?}");
        assert!(health.normalized_std_ratio < 1e-6);
        assert_eq!(health.num_constant_dims, 3);
        assert_eq!(measure_health(&[0.0; 12], 3).unwrap().effective_rank, 1.0);
    }

    #[test]
    fn even_spread_shows() {
        let mut identity = vec![0.0; 16 * 16];
        for i in 0..16 {
            identity[i * 17] = 2.0;
        }
        let health = measure_health(&identity, 16).unwrap();
        assert!((health.effective_rank - 16.0).abs() < 1e-9, "{health:?}");
        assert!((health.uniformity + 4.0).abs() < 1e-6, "all pairs are √2 apart: {health:?}");
        assert!(matches!(measure_health(&[], 16), Err(EvalError::Empty { .. })));
    }
}
