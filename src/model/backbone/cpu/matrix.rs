//! Matrix products of one task. On x86-64 with AVX2 or AVX-512 they are ours: the right-hand side is packed once and
//! used by many tasks, the left-hand side is read where it lies. Elsewhere `gemm` does them, on a single thread.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::gemm_kernel::{PANEL_256, PANEL_512, Product, product_256, product_512};
use super::multiversion::{Simd, simd};
use super::transpose::transpose;

/// A matrix inside a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `row_stride` values apart.
    pub(crate) fn row_major(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, column_stride: 1 }
    }

    /// The transpose of a row-major matrix.
    pub(crate) fn transposed(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride: 1, column_stride: row_stride }
    }

    fn check(&self, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        assert!(last < self.data.len(), "matrix of {rows}×{columns} does not fit its slice");
    }
}

/// Columns that lie together in a packed matrix of `n` columns.
pub(crate) fn panel_width(n: usize) -> usize {
    match simd() {
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => PANEL_512,
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => PANEL_256,
        // `gemm` packs for itself: a single panel is a row-major matrix.
        Simd::Baseline => n,
    }
}

/// Values of a packed matrix: whole panels.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(panel_width(n))
}

/// Packs all of `b` (k×n) with all threads.
pub(crate) fn pack(b: Matrix<'_>, k: usize, n: usize, packed: &mut [f32]) {
    let panel = panel_width(n);
    packed[..packed_len(k, n)].par_chunks_mut(k * panel).enumerate().for_each(|(idx, packed)| {
        pack_panel(b, k, idx * panel..n.min((idx + 1) * panel), panel, packed);
    });
}

/// Packs all of `b` (k×n) on this thread.
pub(crate) fn pack_here(b: Matrix<'_>, k: usize, n: usize, packed: &mut [f32]) {
    let panel = panel_width(n);
    for (idx, packed) in packed[..packed_len(k, n)].chunks_mut(k * panel).enumerate() {
        pack_panel(b, k, idx * panel..n.min((idx + 1) * panel), panel, packed);
    }
}

fn pack_panel(b: Matrix<'_>, k: usize, columns: Range<usize>, panel: usize, packed: &mut [f32]) {
    let first = columns.start;
    if b.column_stride == 1 {
        for (p, packed) in packed.chunks_exact_mut(panel).enumerate() {
            let row = &b.data[p * b.row_stride + first..][..columns.len()];
            packed[..row.len()].copy_from_slice(row);
            packed[row.len()..].fill(0.0);
        }
        return;
    }
    transpose([columns.len(), k], &b.data[first * b.column_stride..], b.column_stride, packed, panel);
    if columns.len() < panel {
        for packed in packed.chunks_exact_mut(panel) {
            packed[columns.len()..].fill(0.0);
        }
    }
}

/// `c = a b`, or `c += a b`: `a` is m×k, `b` is k×n and packed, `c` is m×n with rows `c_stride` apart.
pub(crate) fn multiply_packed(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: &[f32],
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    a.check(m, k);
    assert!(packed_len(k, n) <= b.len(), "packed matrix of {k}×{n} does not fit its slice");
    assert!((m - 1) * c_stride + n <= c.len(), "product of {m}×{n} does not fit its slice");
    #[cfg(target_arch = "x86_64")]
    let product = Product {
        m,
        n,
        k,
        a: a.data.as_ptr(),
        a_row: a.row_stride,
        a_depth: a.column_stride,
        b: b.as_ptr(),
        c: c.as_mut_ptr(),
        c_row: c_stride,
        accumulate,
    };
    match simd() {
        // SAFETY: the three accesses were checked above, `c` is borrowed exclusively, the machine has the features.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => unsafe { product_512(product) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { product_256(product) },
        Simd::Baseline => multiply_portable([m, n, k], a, Matrix::row_major(b, n), c, c_stride, accumulate),
    }
}

/// The same by `gemm`, with `b` as it is.
pub(crate) fn multiply_portable(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    a.check(m, k);
    b.check(k, n);
    assert!((m - 1) * c_stride + n <= c.len(), "product of {m}×{n} does not fit its slice");
    // SAFETY: the three accesses were checked above, and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{deviation, numbers};
    use super::*;

    #[test]
    fn products_agree_with_the_definition_for_any_shape() {
        for [m, n, k] in [[1, 1, 1], [14, 32, 8], [15, 33, 3], [29, 70, 520], [6, 16, 1030], [3, 5, 7], [43, 31, 64]] {
            let (a, b) = (numbers(1, m * k), numbers(2, k * n));
            for transposed in [false, true] {
                let at = |i: usize, p: usize| if transposed { a[p * m + i] } else { a[i * k + p] };
                let bt = |p: usize, j: usize| if transposed { b[j * k + p] } else { b[p * n + j] };
                let (a, b) = if transposed {
                    (Matrix::transposed(&a, m), Matrix::transposed(&b, k))
                } else {
                    (Matrix::row_major(&a, k), Matrix::row_major(&b, n))
                };
                let mut packed = vec![f32::NAN; packed_len(k, n)];
                pack(b, k, n, &mut packed);
                let mut here = vec![f32::NAN; packed.len()];
                pack_here(b, k, n, &mut here);
                assert!(packed == here);
                for accumulate in [false, true] {
                    // Rows of the result lie apart; what is between them must stay.
                    let mut c = vec![if accumulate { 1.0 } else { -7.0 }; m * (n + 3)];
                    multiply_packed([m, n, k], a, &packed, &mut c, n + 3, accumulate);
                    let mut expected = vec![if accumulate { 1.0 } else { -7.0 }; c.len()];
                    for i in 0..m {
                        for j in 0..n {
                            let sum: f64 = (0..k).map(|p| f64::from(at(i, p)) * f64::from(bt(p, j))).sum();
                            expected[i * (n + 3) + j] = sum + if accumulate { 1.0 } else { 0.0 };
                        }
                    }
                    assert!(deviation(&c, &expected) < 1e-5, "{m} {n} {k} {transposed} {accumulate}");
                    let mut portable = vec![if accumulate { 1.0 } else { -7.0 }; m * (n + 3)];
                    multiply_portable([m, n, k], a, b, &mut portable, n + 3, accumulate);
                    assert!(deviation(&portable, &expected) < 1e-5);
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_instruction_sets_give_the_same_bits() {
        if simd() != Simd::Avx512 {
            return;
        }
        let [m, n, k] = [31, 64, 700];
        let (a, b) = (numbers(1, m * k), numbers(2, k * n));
        let run = |panel: usize, product: &dyn Fn(Product)| {
            let mut packed = vec![0.0; k * n];
            for (idx, packed) in packed.chunks_mut(k * panel).enumerate() {
                pack_panel(Matrix::row_major(&b, n), k, idx * panel..(idx + 1) * panel, panel, packed);
            }
            let mut c = vec![0.0; m * n];
            let (a, b, out) = (a.as_ptr(), packed.as_ptr(), c.as_mut_ptr());
            product(Product { m, n, k, a, a_row: k, a_depth: 1, b, c: out, c_row: n, accumulate: false });
            c
        };
        // SAFETY: the slices hold what the shapes say, the machine has both instruction sets.
        let wide = run(PANEL_512, &|p| unsafe { product_512(p) });
        // SAFETY: as above.
        let narrow = run(PANEL_256, &|p| unsafe { product_256(p) });
        assert!(wide == narrow);
    }
}
