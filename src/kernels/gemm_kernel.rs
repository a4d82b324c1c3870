//! The innermost loops of a matrix product for AVX-512 and AVX2: a strip of rows of `a` times a packed panel of `b`,
//! held in registers. Both give the same bits: each element is one chain of fused multiply-adds over each block of
//! the depth.

use std::arch::x86_64::{__m256, __m512, _MM_HINT_T0, _mm_prefetch};
const AHEAD: usize = 16;

use super::vector::Vector;

/// Vectors side by side in a panel.
const VECTORS: usize = 2;
/// Rows of a strip with AVX-512: 28 of 32 registers accumulate.
const ROWS_512: usize = 14;
/// Rows of a strip with AVX2: 12 of 16 registers accumulate.
const ROWS_256: usize = 6;
/// Columns of a panel with AVX-512.
pub(super) const PANEL_512: usize = VECTORS * <__m512 as Vector>::LANES;
/// Columns of a panel with AVX2.
pub(super) const PANEL_256: usize = VECTORS * <__m256 as Vector>::LANES;
/// Depth of one block: a panel of it stays in the second-level cache, a strip in the first.
pub(super) const DEPTH: usize = 512;

/// Pointers and strides of one product `c = a b` or `c += a b`; `b` is packed in panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) a_row: usize,
    pub(super) a_depth: usize,
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) accumulate: bool,
    /// The depth may be cut into this many equal segments, `a_segment` values apart in `a`; it then fits one block.
    pub(super) segments: usize,
    pub(super) a_segment: usize,
}

/// The depth of a tile.
#[derive(Clone, Copy, Debug)]
struct Segments {
    count: usize,
    depth: usize,
    stride: usize,
}

/// The product with AVX-512.
///
/// # Safety
///
/// All elements that the shape and strides imply must be readable, those of `c` writable and not shared.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
pub(super) unsafe fn product_512(p: Product) {
    // SAFETY: the caller vouches for the pointers; the features are enabled here.
    unsafe { product::<__m512, ROWS_512>(p) }
}

/// The product with AVX2.
///
/// # Safety
///
/// As `product_512`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn product_256(p: Product) {
    // SAFETY: the caller vouches for the pointers; the features are enabled here.
    unsafe { product::<__m256, ROWS_256>(p) }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
unsafe fn product<V: Vector, const ROWS: usize>(p: Product) {
    let panel = VECTORS * V::LANES;
    // Strips of nearly the same height instead of full ones and a rest.
    let strips = p.m.div_ceil(ROWS);
    let (height, higher) = (p.m / strips, p.m % strips);
    for first in (0..p.k).step_by(DEPTH) {
        let depth = DEPTH.min(p.k - first);
        let accumulate = p.accumulate || first > 0;
        for column in (0..p.n).step_by(panel) {
            // SAFETY: the offsets stay inside what the caller vouches for; `edge` holds a whole tile.
            unsafe {
                let b = p.b.add(column * p.k + first * panel);
                let segments = Segments { count: p.segments, depth: depth / p.segments, stride: p.a_segment };
                let mut row = 0;
                for strip in 0..strips {
                    let rows = height + usize::from(strip < higher);
                    let a = p.a.add(row * p.a_row + first * p.a_depth);
                    let c = p.c.add(row * p.c_row + column);
                    let columns = p.n - column;
                    if columns >= panel {
                        strip_of::<V>(rows, segments, a, p.a_row, p.a_depth, b, c, p.c_row, accumulate);
                    } else {
                        let mut edge = [0.0_f32; ROWS_512 * PANEL_512];
                        strip_of::<V>(rows, segments, a, p.a_row, p.a_depth, b, edge.as_mut_ptr(), panel, false);
                        for i in 0..rows {
                            for j in 0..columns {
                                let (c, v) = (c.add(i * p.c_row + j), edge[i * panel + j]);
                                *c = if accumulate { *c + v } else { v };
                            }
                        }
                    }
                    row += rows;
                }
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, clippy::too_many_arguments, reason = "see `product`")]
unsafe fn strip_of<V: Vector>(
    rows: usize,
    segments: Segments,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: passed on.
                $($rows => unsafe { tile::<V, $rows>(segments, a, a_row, a_depth, b, c, c_row, accumulate) },)*
                _ => {}
            }
        };
    }
    if V::LANES == 16 {
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    } else {
        by_rows!(1 2 3 4 5 6);
    }
}

#[inline(always)]
#[allow(clippy::inline_always, clippy::too_many_arguments, reason = "see `product`")]
unsafe fn tile<V: Vector, const ROWS: usize>(
    segments: Segments,
    a: *const f32,
    a_row: usize,
    a_depth: usize,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
) {
    // SAFETY: passed on.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for segment in 0..segments.count {
            let a = a.add(segment * segments.stride);
            let b = b.add(segment * segments.depth * VECTORS * V::LANES);
            for p in 0..segments.depth {
                let ahead = b.wrapping_add((p + AHEAD) * VECTORS * V::LANES).cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                let b0 = V::load(b.add(p * VECTORS * V::LANES));
                let b1 = V::load(b.add(p * VECTORS * V::LANES + V::LANES));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(*a.add(i * a_row + p * a_depth));
                    sums[0] = x.mul_add(b0, sums[0]);
                    sums[1] = x.mul_add(b1, sums[1]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let c = c.add(i * c_row + j * V::LANES);
                let sum = if accumulate { V::load(c).add(*sum) } else { *sum };
                sum.store(c);
            }
        }
    }
}
