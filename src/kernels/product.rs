//! A whole matrix product with all threads, for operands that change at every call: nothing is packed ahead of time.

use rayon::prelude::*;

use super::matrix::{Matrix, multiply_packed, pack, pack_here, packed_len};
use super::scratch::with_scratch;
use super::shared_mut::SharedMut;

/// Rows above which `b` is packed once for all tasks; below, each task packs the columns that it needs.
const MANY_ROWS: usize = 512;
/// Rows of a task, a multiple of the height of the kernels' strips.
const ROWS: usize = 56;
/// Columns of a task, a multiple of the kernels' panels.
const COLUMNS: usize = 128;
/// Depth that a task packs at a time: with `COLUMNS` it fills a part of the second-level cache.
const DEPTH: usize = 512;

/// `c = a b`, or `c += a b`: `a` is m×k, `b` is k×n, `c` is m×n and contiguous.
pub(crate) fn multiply([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    assert_eq!(c.len(), m * n, "product of {m}×{n}");
    if m == 0 || n == 0 || k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    if m >= MANY_ROWS {
        many_rows([n, k], a, b, c, accumulate);
    } else {
        few_rows([m, n, k], a, b, c, accumulate);
    }
}

/// A task owns some rows of `c` and writes them from end to end.
fn many_rows([n, k]: [usize; 2], a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    let mut packed = vec![0.0; packed_len(k, n)];
    pack(b, k, n, &mut packed);
    c.par_chunks_mut(ROWS * n).enumerate().for_each(|(idx, c)| {
        let rows = c.len() / n;
        with_scratch([rows * row_stride(k)], |[strip]| {
            let a = a.copied_rows(idx * ROWS..idx * ROWS + rows, k, row_stride(k), strip);
            multiply_packed([rows, n, k], a, &packed, c, n, accumulate);
        });
    });
}

/// A task owns some columns of `c`.
fn few_rows([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    let stride = row_stride(k);
    let mut rows = vec![0.0; m * stride];
    rows.par_chunks_mut(ROWS * stride).enumerate().for_each(|(idx, rows)| {
        a.copied_rows(idx * ROWS..idx * ROWS + rows.len() / stride, k, stride, rows);
    });
    let c = SharedMut::new(c);
    (0..n.div_ceil(COLUMNS)).into_par_iter().for_each(|task| {
        let first = task * COLUMNS;
        let width = COLUMNS.min(n - first);
        with_scratch([packed_len(DEPTH.min(k), width)], |[packed]| {
            for begin in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - begin);
                pack_here(b.part(begin, first), depth, width, packed);
                let a = Matrix::row_major(&rows[begin..], stride);
                // SAFETY: rows of `c` from column `first`, `width` columns of each: those of this task.
                unsafe { c.multiply_into([m, width, depth], a, packed, first, n, accumulate || begin > 0) };
            }
        });
    });
}

/// Rows of `k` values that do not all begin in the same set of the cache.
fn row_stride(k: usize) -> usize {
    const LINE: usize = 16;
    (k.div_ceil(LINE) | 1) * LINE
}

#[cfg(test)]
mod tests {
    use super::super::reference::{deviation, numbers};
    use super::*;

    #[test]
    fn products_agree_with_the_definition_for_any_shape_and_layout() {
        for [m, n, k] in [[1, 1, 1], [64, 130, 513], [3, 300, 7], [600, 33, 20], [57, 128, 1030], [512, 1, 3]] {
            let (a, b) = (numbers(1, m * k), numbers(2, k * n));
            let mut expected = vec![0.0; m * n];
            for i in 0..m {
                for j in 0..n {
                    expected[i * n + j] = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
                }
            }
            let turned = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            for a in [Matrix::row_major(&a, k), Matrix::transposed(&a_turned, m)] {
                for b in [Matrix::row_major(&b, n), Matrix::transposed(&b_turned, k)] {
                    let mut c = vec![f32::NAN; m * n];
                    multiply([m, n, k], a, b, &mut c, false);
                    assert!(deviation(&c, &expected) < 1e-5, "{m} {n} {k}");
                    multiply([m, n, k], a, b, &mut c, true);
                    let doubled: Vec<f64> = expected.iter().map(|v| 2.0 * v).collect();
                    assert!(deviation(&c, &doubled) < 1e-5, "{m} {n} {k}");
                }
            }
        }
    }

    #[test]
    fn no_depth_is_a_sum_of_nothing() {
        let mut c = vec![3.0; 4];
        multiply([2, 2, 0], Matrix::row_major(&[], 0), Matrix::row_major(&[], 2), &mut c, true);
        assert_eq!(c, [3.0; 4]);
        multiply([2, 2, 0], Matrix::row_major(&[], 0), Matrix::row_major(&[], 2), &mut c, false);
        assert_eq!(c, [0.0; 4]);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        for [m, n, k] in [[128, 500, 700], [700, 300, 64]] {
            let (a, b) = (numbers(1, m * k), numbers(2, k * n));
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut c = vec![0.0; m * n];
                pool.install(|| multiply([m, n, k], Matrix::row_major(&a, k), Matrix::row_major(&b, n), &mut c, false));
                c
            };
            assert_eq!(with(1), with(3));
        }
    }
}
