//! Eigenvalues of a symmetric matrix: Householder's reduction to tridiagonal form, then the implicit QL
//! method (Golub & Van Loan, *Matrix Computations*, algorithms 8.3.1 and 8.3.3).

use rayon::prelude::*;

/// Eigenvalues of the symmetric `matrix` [n, n], ascending. The matrix is used up.
pub(crate) fn eigenvalues(matrix: &mut [f64], n: usize) -> Vec<f64> {
    assert_eq!(matrix.len(), n * n, "the matrix is not square");
    let (mut diagonal, mut beside) = tridiagonalize(matrix, n);
    implicit_ql(&mut diagonal, &mut beside);
    diagonal.sort_unstable_by(f64::total_cmp);
    diagonal
}

/// The diagonal `[n]` and the numbers beside it `[n]`, the last of which is 0.
///
/// One pass over the matrix for each column: what a reflection changes in a row is worked in just before the row is
/// multiplied by the vector of the next. Each row is computed by one task in a fixed order, so that the number of
/// threads changes no bit.
fn tridiagonalize(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n]);
    // The reflection whose change A − v wᵀ − w vᵀ is still to be worked into the rows from k on.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    let mut next = vec![0.0; n];
    let mut pending = false;
    for k in 0..n {
        let (row, trailing) = a[k * n..].split_at_mut(n);
        if pending {
            subtract_rank_two(&mut row[k..], (v[k], w[k]), (&v[k..], &w[k..]));
        }
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        // Reflect row k behind the diagonal, which by symmetry is its column, onto its first entry:
        // I − v vᵀ · 2 / ‖v‖².
        next[k + 1..].copy_from_slice(&row[k + 1..]);
        let tail = dot(&next[k + 2..], &next[k + 2..]);
        let reflects = tail != 0.0;
        let mut scale = 0.0;
        if reflects {
            let norm = (next[k + 1] * next[k + 1] + tail).sqrt();
            beside[k] = if next[k + 1] > 0.0 { -norm } else { norm };
            next[k + 1] -= beside[k];
            scale = 2.0 / (next[k + 1] * next[k + 1] + tail);
        } else {
            beside[k] = next[k + 1];
        }
        let mut product = vec![0.0; n - k - 1];
        if pending || reflects {
            let rest = k + 1..n;
            let (v, w, next) = (&v[rest.clone()], &w[rest.clone()], &next[rest]);
            product.par_iter_mut().zip(trailing.par_chunks_exact_mut(n)).enumerate().with_min_len(32).for_each(
                |(i, (product, row))| {
                    let row = &mut row[k + 1..];
                    if pending {
                        subtract_rank_two(row, (v[i], w[i]), (v, w));
                    }
                    *product = scale * dot(row, next);
                },
            );
        }
        if reflects {
            let half = 0.5 * scale * dot(&product, &next[k + 1..]);
            for ((w, p), v) in w[k + 1..].iter_mut().zip(&product).zip(&next[k + 1..]) {
                *w = p - half * v;
            }
            v[k + 1..].copy_from_slice(&next[k + 1..]);
        }
        pending = reflects;
    }
    (diagonal, beside)
}

/// row −= v wᵀ + w vᵀ for one row, of which v and w have the entries `of_row`.
fn subtract_rank_two(row: &mut [f64], of_row: (f64, f64), (v, w): (&[f64], &[f64])) {
    for ((x, v), w) in row.iter_mut().zip(v).zip(w) {
        *x -= of_row.0 * w + of_row.1 * v;
    }
}

/// Σ aᵢ bᵢ, in eight sums side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// Diagonalises in place; off-diagonal entries become 0.
fn implicit_ql(d: &mut [f64], e: &mut [f64]) {
    let n = d.len();
    for l in 0..n {
        // Two or three rounds are usual; the bound only guards against values that are not finite.
        for _ in 0..100 {
            let negligible = |i: usize| e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs());
            let m = (l..n - 1).find(|&i| negligible(i)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut shift) = (1.0, 1.0, 0.0);
            let mut split = None;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= shift;
                    e[m] = 0.0;
                    split = Some(i);
                    break;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - shift;
                r = (d[i] - g) * s + 2.0 * c * b;
                shift = s * r;
                d[i + 1] = g + shift;
                g = c * r - b;
            }
            if split.is_none() {
                d[l] -= shift;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_matrices_have_their_eigenvalues() {
        assert_eq!(eigenvalues(&mut [3.0], 1), [3.0]);
        let two = eigenvalues(&mut [2.0, 1.0, 1.0, 2.0], 2);
        assert!((two[0] - 1.0).abs() < 1e-12 && (two[1] - 3.0).abs() < 1e-12, "{two:?}");
        assert_eq!(eigenvalues(&mut [0.0; 9], 3), [0.0; 3]);
        // Second differences: 2 − 2 cos(k π / (n + 1))
        let n = 30;
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            a[i * n + i] = 2.0;
            if i > 0 {
                a[i * n + i - 1] = -1.0;
                a[(i - 1) * n + i] = -1.0;
            }
        }
        for (k, ours) in (1..).zip(eigenvalues(&mut a, n)) {
            let exact = 2.0 - 2.0 * (f64::from(k) * std::f64::consts::PI / 31.0).cos();
            assert!((ours - exact).abs() < 1e-12, "{ours} is not {exact}");
        }
    }

    proptest! {
        #[test]
        fn sums_of_powers_agree_with_traces(n in 1..24_usize, raw in prop::collection::vec(-1.0..1.0_f64, 24 * 24)) {
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    a[i * n + j] = raw[i * 24 + j];
                    a[j * n + i] = raw[i * 24 + j];
                }
            }
            let trace: f64 = (0..n).map(|i| a[i * n + i]).sum();
            let squares: f64 = a.iter().map(|x| x * x).sum();
            let mut cubes = 0.0;
            for i in 0..n { for j in 0..n { for k in 0..n { cubes += a[i * n + j] * a[j * n + k] * a[k * n + i]; } } }
            let values = eigenvalues(&mut a, n);
            let power = |p: i32| values.iter().map(|x| x.powi(p)).sum::<f64>();
            prop_assert!((power(1) - trace).abs() < 1e-10);
            prop_assert!((power(2) - squares).abs() < 1e-9);
            prop_assert!((power(3) - cubes).abs() < 1e-8);
        }
    }
}
