//! What the machine can do, and a watch.

use std::time::Instant;

use gemm::{Parallelism, gemm};

use crate::kernels::{matrix::Matrix, product::multiply};

/// Edge of the matrices: large enough that memory does not matter.
const EDGE: usize = 2048;
/// Timed products; the fastest counts.
const PRODUCTS: u32 = 3;

/// Runs `work` and says how many seconds it took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed().as_secs_f64())
}

/// 10⁹ operations a second of a large matrix product on all threads of the pool: the faster of the `gemm` crate, which
/// uses AVX2 at most as built here, and of this engine's own product.
pub fn gemm_peak_gflops() -> f64 {
    let a: Vec<f32> = (0..EDGE * EDGE).map(|idx| (idx * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let mut c = vec![0.0; EDGE * EDGE];
    let matrix = Matrix::row_major(&a, EDGE);
    let mut fastest = f64::INFINITY;
    // The first of each finds cold caches, and does not hurt.
    for _ in 0..=PRODUCTS {
        fastest = fastest.min(timed(|| product(&mut c, &a, &a, EDGE)).1);
        fastest = fastest.min(timed(|| multiply([EDGE; 3], matrix, matrix, &mut c, false)).1);
    }
    2.0 * (EDGE as f64).powi(3) / fastest.max(1e-9) / 1e9
}

/// `c` = `a` · `b`, all [n, n] and row-major.
fn product(c: &mut [f32], a: &[f32], b: &[f32], n: usize) {
    assert!(c.len() == n * n && a.len() == n * n && b.len() == n * n, "shapes do not fit");
    let row = n as isize;
    // SAFETY: the lengths were checked against the strides just above; `c` is borrowed mutably, so it overlaps
    // neither input.
    unsafe {
        gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            1,
            row,
            false,
            a.as_ptr(),
            1,
            row,
            b.as_ptr(),
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            // 0: as many as the pool has.
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_that_is_timed_is_a_product() {
        let mut c = [0.0; 4];
        product(&mut c, &[1.0, 2.0, 3.0, 4.0], &[0.0, 1.0, 1.0, 1.0], 2);
        assert_eq!(c, [2.0, 3.0, 4.0, 7.0]);
    }
}
