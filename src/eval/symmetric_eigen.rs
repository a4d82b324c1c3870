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
fn tridiagonalize(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n]);
    let mut v = vec![0.0; n];
    let mut p = vec![0.0; n];
    for k in 0..n {
        diagonal[k] = a[k * n + k];
        if k + 1 >= n {
            break;
        }
        // Reflect column k below the diagonal onto its first entry: I − v vᵀ · 2 / ‖v‖².
        let rest = k + 1..n;
        for i in rest.clone() {
            v[i] = a[i * n + k];
        }
        let tail: f64 = v[k + 2..].iter().map(|x| x * x).sum();
        if tail == 0.0 {
            beside[k] = v[k + 1];
            continue;
        }
        let norm = (v[k + 1] * v[k + 1] + tail).sqrt();
        beside[k] = if v[k + 1] > 0.0 { -norm } else { norm };
        v[k + 1] -= beside[k];
        let scale = 2.0 / (v[k + 1] * v[k + 1] + tail);
        // The trailing block becomes A − v wᵀ − w vᵀ. Each row is computed by one task, so that the number of
        // threads changes no bit.
        let (v, p) = (&v[rest.clone()], &mut p[rest]);
        let trailing = &mut a[(k + 1) * n..];
        p.par_iter_mut().zip(trailing.par_chunks_exact(n)).with_min_len(32).for_each(|(p, row)| {
            *p = scale * row[k + 1..].iter().zip(v).map(|(a, v)| a * v).sum::<f64>();
        });
        let half = 0.5 * scale * p.iter().zip(v).map(|(p, v)| p * v).sum::<f64>();
        for (w, v) in p.iter_mut().zip(v) {
            *w -= half * v;
        }
        let w = &*p;
        trailing.par_chunks_exact_mut(n).enumerate().with_min_len(32).for_each(|(i, row)| {
            for ((a, vj), wj) in row[k + 1..].iter_mut().zip(v).zip(w) {
                *a -= v[i] * wj + w[i] * vj;
            }
        });
    }
    (diagonal, beside)
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
