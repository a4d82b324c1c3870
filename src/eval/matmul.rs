//! Matrix products of row-major slices, each computed by one thread.
//!
//! Callers split the work into blocks whose size does not depend on the number of threads; so the bits of a
//! result do not either.

use gemm::{Parallelism, gemm};

/// `out` [m, n] = `a` [m, k] · `b`ᵀ where `b` is [n, k].
pub(crate) fn matmul_nt<T: GemmElement>(out: &mut [T], a: &[T], b: &[T], (m, n, k): (usize, usize, usize)) {
    assert!(out.len() == m * n && a.len() == m * k && b.len() == n * k, "shapes do not fit");
    // SAFETY: the lengths were checked against the strides just above; `out` is borrowed mutably, so it
    // overlaps neither input.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
            T::ZERO,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out` [m, n] += `a`ᵀ · `b` where `a` is [k, m] and `b` is [k, n].
pub(crate) fn add_matmul_tn<T: GemmElement>(out: &mut [T], a: &[T], b: &[T], (m, n, k): (usize, usize, usize)) {
    assert!(out.len() == m * n && a.len() == k * m && b.len() == k * n, "shapes do not fit");
    // SAFETY: as above.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            m as isize,
            1,
            b.as_ptr(),
            1,
            n as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Numbers that `gemm` multiplies.
pub(crate) trait GemmElement: Copy + 'static {
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
}

impl GemmElement for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl GemmElement for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_as_by_hand() {
        // a = [[1, 2, 3], [4, 5, 6]], b = [[1, 0, 1], [0, 1, 0]]
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let mut out = [9.0_f64; 4];
        matmul_nt(&mut out, &a, &b, (2, 2, 3));
        assert_eq!(out, [4.0, 2.0, 10.0, 5.0]);
        // aᵀ · b, each as [2, 3]
        let mut out = [1.0_f64; 9];
        add_matmul_tn(&mut out, &a, &b, (3, 3, 2));
        assert_eq!(out, [2.0, 5.0, 2.0, 3.0, 6.0, 3.0, 4.0, 7.0, 4.0]);
    }
}
