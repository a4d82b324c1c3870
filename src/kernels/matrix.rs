//! Matrix products of one task. On x86-64 with AVX2 or AVX-512 they are ours: the right-hand side is packed once and
//! used by many tasks, the left-hand side is read where it lies. Elsewhere `gemm` does them, on a single thread.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::gemm_kernel::{DEPTH, PANEL_256, PANEL_512, Product, product_256, product_512};
use super::shared_mut::SharedMut;
use super::transpose::transpose;
use super::{Simd, simd};

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

    /// The matrix without its first rows and columns.
    pub(crate) fn part(&self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.row_stride + column * self.column_stride..], ..*self }
    }

    /// Copies `rows` of `columns` values to `out`, rows `stride` apart.
    pub(crate) fn copied_rows<'b>(
        &self,
        rows: Range<usize>,
        columns: usize,
        stride: usize,
        out: &'b mut [f32],
    ) -> Matrix<'b> {
        let source = &self.data[rows.start * self.row_stride..];
        if self.column_stride == 1 {
            for (row, out) in out.chunks_mut(stride).enumerate().take(rows.len()) {
                out[..columns].copy_from_slice(&source[row * self.row_stride..][..columns]);
            }
        } else if self.row_stride == 1 {
            transpose([columns, rows.len()], source, self.column_stride, out, stride);
        } else {
            for (row, out) in out.chunks_mut(stride).enumerate().take(rows.len()) {
                for (column, out) in out.iter_mut().enumerate().take(columns) {
                    *out = source[row * self.row_stride + column * self.column_stride];
                }
            }
        }
        Matrix::row_major(out, stride)
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
    shape: [usize; 3],
    a: Matrix<'_>,
    b: &[f32],
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    // SAFETY: `c` is borrowed exclusively.
    unsafe { SharedMut::new(c).multiply_into(shape, a, b, 0, c_stride, accumulate) }
}

impl SharedMut<'_> {
    /// [`multiply_packed`] into rows that begin `offset` into this slice.
    ///
    /// # Safety
    ///
    /// No other task may use the m rows of n values that begin there and lie `c_stride` apart.
    pub(crate) unsafe fn multiply_into(
        &self,
        [m, n, k]: [usize; 3],
        a: Matrix<'_>,
        b: &[f32],
        offset: usize,
        c_stride: usize,
        accumulate: bool,
    ) {
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        a.check(m, k);
        assert!(packed_len(k, n) <= b.len(), "packed matrix of {k}×{n} does not fit its slice");
        assert!(offset + (m - 1) * c_stride + n <= self.len(), "product of {m}×{n} does not fit its slice");
        let c = self.pointer(offset);
        #[cfg(target_arch = "x86_64")]
        let product = Product {
            m,
            n,
            k,
            a: a.data.as_ptr(),
            a_row: a.row_stride,
            a_depth: a.column_stride,
            b: b.as_ptr(),
            c,
            c_row: c_stride,
            accumulate,
            segments: 1,
            a_segment: 0,
        };
        // SAFETY: the three accesses were checked above, the caller vouches that the rows of `c` are not shared, the
        // machine has the features.
        unsafe {
            match simd() {
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => product_512(product),
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => product_256(product),
                Simd::Baseline => {
                    portable([m, n, k], a, Matrix::row_major(b, n), c, c_stride, accumulate);
                }
            }
        }
    }
}

/// Rows of a left-hand side that lie in an image: each is made of `rows` image rows, `pitch` values apart, of which it
/// takes `row_len` values; the next begins `step` values later, so they may overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patches<'a> {
    /// The image, beginning with the first patch.
    pub(crate) data: &'a [f32],
    /// From a patch to the next.
    pub(crate) step: usize,
    /// Image rows of a patch.
    pub(crate) rows: usize,
    /// Values of an image row in a patch.
    pub(crate) row_len: usize,
    /// From an image row to the next.
    pub(crate) pitch: usize,
}

/// `c = a b` for m patches `a`: `b` has `rows · row_len` rows and n columns and is packed, `c` is m×n and contiguous.
pub(crate) fn multiply_patches([m, n]: [usize; 2], a: Patches<'_>, b: &[f32], c: &mut [f32]) {
    let k = a.rows * a.row_len;
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let last = (m - 1) * a.step + (a.rows - 1) * a.pitch + a.row_len;
    assert!(last <= a.data.len(), "{m} patches do not fit their image");
    assert!(packed_len(k, n) <= b.len(), "packed matrix of {k}×{n} does not fit its slice");
    assert!(m * n <= c.len(), "product of {m}×{n} does not fit its slice");
    #[cfg(target_arch = "x86_64")]
    if k <= DEPTH && simd() != Simd::Baseline {
        let product = Product {
            m,
            n,
            k,
            a: a.data.as_ptr(),
            a_row: a.step,
            a_depth: 1,
            b: b.as_ptr(),
            c: c.as_mut_ptr(),
            c_row: n,
            accumulate: false,
            segments: a.rows,
            a_segment: a.pitch,
        };
        // SAFETY: the three accesses were checked above, `c` is borrowed exclusively, the machine has the features.
        unsafe {
            match simd() {
                Simd::Avx512 => product_512(product),
                _ => product_256(product),
            }
        }
        return;
    }
    // Elsewhere a row must be contiguous.
    let mut gathered = vec![0.0; m * k];
    for (patch, out) in gathered.chunks_exact_mut(k).enumerate() {
        for (row, out) in out.chunks_exact_mut(a.row_len).enumerate() {
            out.copy_from_slice(&a.data[patch * a.step + row * a.pitch..][..a.row_len]);
        }
    }
    multiply_packed([m, n, k], Matrix::row_major(&gathered, k), b, c, n, false);
}

/// [`multiply_packed`] by `gemm`, with `b` as it is.
#[cfg(test)]
fn multiply_portable(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    assert!((m - 1) * c_stride + n <= c.len(), "product of {m}×{n} does not fit its slice");
    // SAFETY: `c` is long enough and borrowed exclusively.
    unsafe { portable([m, n, k], a, b, c.as_mut_ptr(), c_stride, accumulate) }
}

/// # Safety
///
/// The m rows of n values, `c_stride` apart, that `c` points to must be writable and not shared.
unsafe fn portable(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
) {
    /// Short enough for `gemm` not to cut it once more, where it cuts depending on m.
    const DEPTH: usize = 128;
    a.check(m, k);
    b.check(k, n);
    if m == 1 {
        // `gemm` would sum in another order than for two rows.
        let row: Vec<f32> = (0..2 * k).map(|at| a.data[at % k * a.column_stride]).collect();
        let mut rows = vec![0.0; 2 * n];
        // SAFETY: `rows` is ours, the caller vouches for the row at `c`.
        unsafe {
            if accumulate {
                std::ptr::copy_nonoverlapping(c, rows.as_mut_ptr(), n);
            }
            portable([2, n, k], Matrix::row_major(&row, k), b, rows.as_mut_ptr(), n, accumulate);
            std::ptr::copy_nonoverlapping(rows.as_ptr(), c, n);
        }
        return;
    }
    for first in (0..k).step_by(DEPTH) {
        // SAFETY: `a` and `b` were checked, the caller vouches for `c`.
        unsafe {
            gemm::gemm(
                m,
                n,
                DEPTH.min(k - first),
                c,
                1,
                c_stride as isize,
                accumulate || first > 0,
                a.data[first * a.column_stride..].as_ptr(),
                a.column_stride as isize,
                a.row_stride as isize,
                b.data[first * b.row_stride..].as_ptr(),
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
    fn overlapping_patches_agree_with_the_definition() {
        for [m, n, rows, row_len, step, pitch] in
            [[48, 64, 7, 21, 6, 300], [5, 33, 3, 9, 3, 27], [1, 1, 1, 4, 2, 4], [3, 8, 40, 20, 4, 30]]
        {
            let k = rows * row_len;
            let (image, b) = (numbers(1, (m - 1) * step + (rows - 1) * pitch + row_len), numbers(2, k * n));
            let mut packed = vec![f32::NAN; packed_len(k, n)];
            pack(Matrix::row_major(&b, n), k, n, &mut packed);
            let mut c = vec![f32::NAN; m * n];
            multiply_patches([m, n], Patches { data: &image, step, rows, row_len, pitch }, &packed, &mut c);
            let mut expected = vec![0.0; m * n];
            for (at, expected) in expected.iter_mut().enumerate() {
                let (i, j) = (at / n, at % n);
                let pixel = |p: usize| image[i * step + p / row_len * pitch + p % row_len];
                *expected = (0..k).map(|p| f64::from(pixel(p)) * f64::from(b[p * n + j])).sum();
            }
            assert!(deviation(&c, &expected) < 1e-5, "{m} {n} {rows} {row_len}");
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
            product(Product {
                m,
                n,
                k,
                a,
                a_row: k,
                a_depth: 1,
                b,
                c: out,
                c_row: n,
                accumulate: false,
                segments: 1,
                a_segment: 0,
            });
            c
        };
        // SAFETY: the slices hold what the shapes say, the machine has both instruction sets.
        let wide = run(PANEL_512, &|p| unsafe { product_512(p) });
        // SAFETY: as above.
        let narrow = run(PANEL_256, &|p| unsafe { product_256(p) });
        assert!(wide == narrow);
    }
}
