//! The two directions in which embeddings differ most: principal components by block power iteration.
//!
//! The covariance (d × d) is never formed: with d = 2048 that alone would cost more than the whole iteration.
//! Everything runs in a fixed order in f64, so the same embeddings always give the same map.

/// Directions that are followed at once; more than two, so that the first two converge fast.
const BLOCK: usize = 8;
/// Most rounds of the iteration.
const MAX_ROUNDS: usize = 100;
/// Stop when the leading variances change by less than this share in one round.
const TOLERANCE: f64 = 1e-11;

/// Two principal directions of a set of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// Mean of each dimension.
    pub mean: Vec<f64>,
    /// Unit vectors of length d, the one with more variance first; the largest component of each is positive.
    pub directions: [Vec<f64>; 2],
    /// Share of the whole variance along each.
    pub explained: [f64; 2],
}

impl Pca {
    /// Fits on `rows` (each `dim` long, one after the other). `None` where there are fewer than three rows or
    /// two dimensions, where a value is not finite, or where all rows are equal.
    pub fn fit(rows: &[f32], dim: usize) -> Option<Self> {
        if dim < 2 || rows.len() / dim < 3 || rows.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let num_rows = rows.len() / dim;
        let mut mean = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        for sum in &mut mean {
            *sum /= num_rows as f64;
        }
        let total: f64 = rows
            .chunks_exact(dim)
            .map(|row| row.iter().zip(&mean).map(|(&value, mean)| (f64::from(value) - mean).powi(2)).sum::<f64>())
            .sum();
        if total <= 0.0 || !total.is_finite() {
            return None;
        }
        let block = BLOCK.min(dim);
        let mut basis = start_basis(block, dim);
        let mut variances = vec![0.0; block];
        for _ in 0..MAX_ROUNDS {
            let product = covariance_times(rows, &mean, &basis, dim);
            let before = variances.clone();
            // Rayleigh–Ritz: the best directions within the span, by the eigenvectors of basisᵀ · C · basis.
            let (values, rotation) = jacobi_eigen(&gram(&basis, &product));
            variances = values;
            basis = rotation
                .iter()
                .map(|weights| {
                    let mut sum = vec![0.0; dim];
                    for (weight, column) in weights.iter().zip(&product) {
                        sum.iter_mut().zip(column).for_each(|(sum, value)| *sum += weight * value);
                    }
                    sum
                })
                .collect();
            orthonormalize(&mut basis);
            let moved = (0..2).any(|idx| (variances[idx] - before[idx]).abs() > TOLERANCE * total);
            if !moved {
                break;
            }
        }
        let mut directions = basis.into_iter().take(2).map(with_fixed_sign);
        let directions = [directions.next()?, directions.next()?];
        let explained = [0, 1].map(|idx| (variances[idx] / total).clamp(0.0, 1.0));
        Some(Self { mean, directions, explained })
    }

    /// Coordinates of one row along both directions.
    pub fn project(&self, row: &[f32]) -> [f64; 2] {
        [0, 1].map(|idx| {
            row.iter()
                .zip(&self.mean)
                .zip(&self.directions[idx])
                .map(|((&value, mean), weight)| (f64::from(value) - mean) * weight)
                .sum()
        })
    }
}

/// A fixed start with something of every dimension in it; which start it is hardly matters.
fn start_basis(block: usize, dim: usize) -> Vec<Vec<f64>> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // Marsaglia's xorshift64: only the start of an iteration, so quality is beside the point.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let mut basis: Vec<Vec<f64>> = (0..block).map(|_| (0..dim).map(|_| next()).collect()).collect();
    orthonormalize(&mut basis);
    basis
}

/// (X − mean)ᵀ (X − mean) · basis, one vector for each vector of the basis.
fn covariance_times(rows: &[f32], mean: &[f64], basis: &[Vec<f64>], dim: usize) -> Vec<Vec<f64>> {
    let mut product = vec![vec![0.0; dim]; basis.len()];
    let mut centred = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        centred.iter_mut().zip(row.iter().zip(mean)).for_each(|(c, (&value, mean))| *c = f64::from(value) - mean);
        for (direction, sums) in basis.iter().zip(&mut product) {
            let along = dot(&centred, direction);
            sums.iter_mut().zip(&centred).for_each(|(sum, value)| *sum += along * value);
        }
    }
    product
}

/// Dot product with four running sums, in a fixed order that compilers can vectorise.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// basisᵀ · product, made symmetric.
fn gram(basis: &[Vec<f64>], product: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let raw: Vec<Vec<f64>> = basis.iter().map(|a| product.iter().map(|b| dot(a, b)).collect()).collect();
    (0..raw.len()).map(|i| (0..raw.len()).map(|j| f64::midpoint(raw[i][j], raw[j][i])).collect()).collect()
}

/// Gram–Schmidt, twice for accuracy. A vector that vanishes becomes zero and stays out of the way.
fn orthonormalize(basis: &mut [Vec<f64>]) {
    for _ in 0..2 {
        for idx in 0..basis.len() {
            let (done, rest) = basis.split_at_mut(idx);
            let current = &mut rest[0];
            let before = dot(current, current).sqrt();
            for other in done.iter() {
                let along = dot(current, other);
                current.iter_mut().zip(other).for_each(|(value, o)| *value -= along * o);
            }
            let length = dot(current, current).sqrt();
            let scale = if length > 1e-12 * before && length > 0.0 { 1.0 / length } else { 0.0 };
            for value in current.iter_mut() {
                *value *= scale;
            }
        }
    }
}

/// Eigenvalues, the largest first, and unit eigenvectors of a small symmetric matrix: cyclic Jacobi rotations.
fn jacobi_eigen(matrix: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut a = matrix.to_vec();
    // Row i of `vectors` is the eigenvector that belongs to a[i][i].
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..50 {
        let off: f64 = (0..size).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j].abs()).sum();
        let diagonal: f64 = (0..size).map(|i| a[i][i].abs()).sum();
        if off <= 1e-15 * diagonal {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = if theta >= 0.0 { 1.0 } else { -1.0 } / (theta.abs() + theta.hypot(1.0));
                let cos = 1.0 / t.hypot(1.0);
                let sin = t * cos;
                for row in &mut a {
                    let (x, y) = (row[p], row[q]);
                    (row[p], row[q]) = (cos * x - sin * y, sin * x + cos * y);
                }
                for rows in [&mut a, &mut vectors] {
                    let (above, below) = rows.split_at_mut(q);
                    for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    (order.iter().map(|&i| a[i][i]).collect(), order.iter().map(|&i| vectors[i].clone()).collect())
}

/// Eigenvectors have no sign of their own: the component of the largest size becomes positive.
fn with_fixed_sign(mut direction: Vec<f64>) -> Vec<f64> {
    let mut largest = 0.0_f64;
    for &value in &direction {
        if value.abs() > largest.abs() + 1e-9 {
            largest = value;
        }
    }
    if largest < 0.0 {
        for value in &mut direction {
            *value = -*value;
        }
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that `scripts/goldens/report_pca.py` builds.
    fn golden_rows(num_rows: usize, dim: usize) -> Vec<f32> {
        (0..num_rows * dim)
            .map(|idx| {
                let (row, column) = ((idx / dim) as f64, (idx % dim) as f64);
                (((row * 37.0 + column * 17.0) % 101.0) / 101.0 * (1.0 + (column % 5.0))
                    + (row % 7.0) * 0.3 * column / dim as f64) as f32
            })
            .collect()
    }

    #[test]
    fn agrees_with_scikit_learn() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/report/pca.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let (num_rows, dim) = (case["rows"].as_u64().unwrap() as usize, case["dim"].as_u64().unwrap() as usize);
            let rows = golden_rows(num_rows, dim);
            let pca = Pca::fit(&rows, dim).unwrap();
            for idx in 0..2 {
                let expected = case["explained"][idx].as_f64().unwrap();
                assert!((pca.explained[idx] - expected).abs() < 1e-7, "{} against {expected}", pca.explained[idx]);
                for (row, values) in rows.chunks_exact(dim).zip(case["projected"].as_array().unwrap()) {
                    let expected = values[idx].as_f64().unwrap();
                    assert!((pca.project(row)[idx] - expected).abs() < 1e-4, "{:?} {expected}", pca.project(row));
                }
            }
        }
    }

    #[test]
    fn a_line_is_one_direction() {
        let rows: Vec<f32> = (0..20).flat_map(|i| [i as f32 * 3.0, i as f32 * 4.0, 1.0]).collect();
        let pca = Pca::fit(&rows, 3).unwrap();
        assert!((pca.explained[0] - 1.0).abs() < 1e-9 && pca.explained[1].abs() < 1e-9);
        assert!((pca.directions[0][0] - 0.6).abs() < 1e-9 && (pca.directions[0][1] - 0.8).abs() < 1e-9);
    }

    #[test]
    fn two_dimensions_are_enough() {
        let pca = Pca::fit(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 1.0, 0.5], 2).unwrap();
        assert!((pca.explained[0] - 0.8).abs() < 1e-9 && (pca.explained[1] - 0.2).abs() < 1e-9);
    }

    #[test]
    fn nothing_to_spread_gives_nothing() {
        assert_eq!(Pca::fit(&[1.0; 30], 3), None);
        assert_eq!(Pca::fit(&[1.0, 2.0, 3.0], 1), None);
        assert_eq!(Pca::fit(&[1.0, 2.0, 3.0, 4.0], 2), None);
        assert_eq!(Pca::fit(&[f32::NAN; 12], 3), None);
        assert_eq!(Pca::fit(&[], 0), None);
    }
}
