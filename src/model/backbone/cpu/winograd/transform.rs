//! The small transforms of Winograd's minimal filtering F(m×m, 3×3) (Lavin & Gray 2015, arXiv 1509.09308).
//!
//! `y = Aᵀ [(G g) ⊙ (Bᵀ d)]` gives m outputs of a filter `g` of 3 over m + 2 inputs `d` with m + 2 products; tiles
//! nest it in both directions. F(4) interpolates at 0, ±√½, ±√2, ∞: the rounding error is smaller than with the
//! usual 0, ±1, ±2, ∞, and the two outer coefficients are 1. F(2) interpolates at 0, ±1, ∞. Where the whole image is
//! 2×2, half of a tile is padding, and three products in each direction are enough.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use crate::kernels::vector::Vector;
use crate::kernels::{Simd, simd};

const P: f32 = std::f32::consts::FRAC_1_SQRT_2;
const Q: f32 = std::f32::consts::SQRT_2;
/// Products of differences of the points: what the filter transform is divided by.
const AT_P: f32 = -1.0 / 1.5;
const AT_Q: f32 = 1.0 / 6.0;

/// A linear map of one row or column of a tile with at most `EDGE` entries; unused ones are not looked at.
pub(super) trait Transform<const EDGE: usize> {
    /// Values read.
    const INPUTS: usize;
    /// Values written.
    const OUTPUTS: usize;

    /// The map.
    unsafe fn apply<V: Vector>(x: [V; EDGE]) -> [V; EDGE];
}

macro_rules! transform {
    ($(#[$meta:meta])* $name:ident<$edge:literal>, $inputs:literal => $outputs:literal, |$($x:ident),+| $body:block) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Transform<$edge> for $name {
            const INPUTS: usize = $inputs;
            const OUTPUTS: usize = $outputs;

            #[inline(always)]
            #[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
            unsafe fn apply<V: Vector>(x: [V; $edge]) -> [V; $edge] {
                let [$($x),+, ..] = x;
                // SAFETY: arithmetic on registers; the caller vouches for the instruction set.
                let y = unsafe { $body };
                let mut all = x;
                all[..$outputs].copy_from_slice(&y);
                all
            }
        }
    };
}

pub(super) use transform;

transform! {
    /// Bᵀ of F(4): an input tile.
    Input4<6>, 6 => 6, |d0, d1, d2, d3, d4, d5| {
        let c = V::splat(2.5);
        let even_p = d4.sub(d2.add(d2));
        let odd_p = d3.mul(V::splat(P)).sub(d1.mul(V::splat(Q)));
        let even_q = d4.sub(d2.mul(V::splat(0.5)));
        let odd_q = d3.mul(V::splat(Q)).sub(d1.mul(V::splat(P)));
        [
            d0.add(d4).sub(d2.mul(c)),
            even_p.add(odd_p),
            even_p.sub(odd_p),
            even_q.add(odd_q),
            even_q.sub(odd_q),
            d1.add(d5).sub(d3.mul(c)),
        ]
    }
}

transform! {
    /// G of F(4): a filter.
    Filter4<6>, 3 => 6, |g0, g1, g2| {
        let even_p = g0.add(g2.mul(V::splat(0.5))).mul(V::splat(AT_P));
        let odd_p = g1.mul(V::splat(P * AT_P));
        let even_q = g0.add(g2.add(g2)).mul(V::splat(AT_Q));
        let odd_q = g1.mul(V::splat(Q * AT_Q));
        [g0, even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), g2]
    }
}

transform! {
    /// Gᵀ of F(4): the gradient of a filter.
    FilterGradient4<6>, 6 => 3, |m0, m1, m2, m3, m4, m5| {
        let (even_p, odd_p) = (m1.add(m2).mul(V::splat(AT_P)), m1.sub(m2));
        let (even_q, odd_q) = (m3.add(m4).mul(V::splat(AT_Q)), m3.sub(m4));
        [
            m0.add(even_p).add(even_q),
            odd_p.mul(V::splat(P * AT_P)).add(odd_q.mul(V::splat(Q * AT_Q))),
            even_p.mul(V::splat(0.5)).add(even_q.add(even_q)).add(m5),
        ]
    }
}

transform! {
    /// Aᵀ of F(4): an output tile.
    Output4<6>, 6 => 4, |m0, m1, m2, m3, m4, m5| {
        let (even_p, odd_p) = (m1.add(m2), m1.sub(m2));
        let (even_q, odd_q) = (m3.add(m4), m3.sub(m4));
        [
            m0.add(even_p).add(even_q),
            odd_p.mul(V::splat(P)).add(odd_q.mul(V::splat(Q))),
            even_p.mul(V::splat(0.5)).add(even_q.add(even_q)),
            odd_p.mul(V::splat(P * 0.5)).add(odd_q.mul(V::splat(Q * 2.0))).add(m5),
        ]
    }
}

transform! {
    /// A of F(4): the gradient of an output tile.
    OutputGradient4<6>, 4 => 6, |y0, y1, y2, y3| {
        let even_p = y0.add(y2.mul(V::splat(0.5)));
        let odd_p = y1.add(y3.mul(V::splat(0.5))).mul(V::splat(P));
        let even_q = y0.add(y2.add(y2));
        let odd_q = y1.add(y3.add(y3)).mul(V::splat(Q));
        [y0, even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), y3]
    }
}

transform! {
    /// Bᵀ of F(3), with the points 0, 1, −1, 2: an input tile.
    Input3<5>, 5 => 5, |d0, d1, d2, d3, d4| {
        let odd = d3.sub(d1);
        let even = d0.sub(d2);
        let rest = d3.sub(d2);
        [
            even.add(even).add(odd),
            rest.sub(d1.add(d1)),
            rest.add(d1.sub(d2).add(d1.sub(d2))),
            odd,
            d4.sub(d2).sub(odd.add(odd)),
        ]
    }
}

transform! {
    /// G of F(3): a filter.
    Filter3<5>, 3 => 5, |g0, g1, g2| {
        let even = g0.add(g2);
        let (two_g1, two_g2) = (g1.add(g1), g2.add(g2));
        [
            g0.mul(V::splat(0.5)),
            even.add(g1).mul(V::splat(-0.5)),
            even.sub(g1).mul(V::splat(-1.0 / 6.0)),
            g0.add(two_g1).add(two_g2.add(two_g2)).mul(V::splat(1.0 / 6.0)),
            g2,
        ]
    }
}

transform! {
    /// Gᵀ of F(3): the gradient of a filter.
    FilterGradient3<5>, 5 => 3, |m0, m1, m2, m3, m4| {
        let half = m1.mul(V::splat(0.5));
        let (minus, plus) = (m2.mul(V::splat(1.0 / 6.0)), m3.mul(V::splat(1.0 / 6.0)));
        let twice = plus.add(plus);
        [
            m0.mul(V::splat(0.5)).sub(half).sub(minus).add(plus),
            minus.sub(half).add(twice),
            twice.add(twice).sub(half).sub(minus).add(m4),
        ]
    }
}

transform! {
    /// Aᵀ of F(3): an output tile.
    Output3<5>, 5 => 3, |m0, m1, m2, m3, m4| {
        let (even, odd) = (m1.add(m2), m1.sub(m2));
        let twice = m3.add(m3);
        [m0.add(even).add(m3), odd.add(twice), even.add(twice.add(twice)).add(m4)]
    }
}

transform! {
    /// A of F(3): the gradient of an output tile.
    OutputGradient3<5>, 3 => 5, |y0, y1, y2| {
        let even = y0.add(y2);
        let (two_y1, two_y2) = (y1.add(y1), y2.add(y2));
        [y0, even.add(y1), even.sub(y1), y0.add(two_y1).add(two_y2.add(two_y2)), y2]
    }
}

transform! {
    /// Bᵀ of F(2): an input tile.
    Input2<4>, 4 => 4, |d0, d1, d2, d3| { [d0.sub(d2), d2.add(d1), d2.sub(d1), d3.sub(d1)] }
}

transform! {
    /// G of F(2): a filter.
    Filter2<4>, 3 => 4, |g0, g1, g2| {
        let half = V::splat(0.5);
        let (even, odd) = (g0.add(g2).mul(half), g1.mul(half));
        [g0, even.add(odd), even.sub(odd), g2]
    }
}

transform! {
    /// Gᵀ of F(2): the gradient of a filter.
    FilterGradient2<4>, 4 => 3, |m0, m1, m2, m3| {
        let half = V::splat(0.5);
        let (even, odd) = (m1.add(m2).mul(half), m1.sub(m2).mul(half));
        [m0.add(even), odd, even.add(m3)]
    }
}

transform! {
    /// Aᵀ of F(2): an output tile.
    Output2<4>, 4 => 2, |m0, m1, m2, m3| { [m0.add(m1).add(m2), m1.sub(m2).add(m3)] }
}

transform! {
    /// A of F(2): the gradient of an output tile.
    OutputGradient2<4>, 2 => 4, |y0, y1| { [y0, y0.add(y1), y0.sub(y1), y1] }
}

transform! {
    /// An image of two pixels between zeros needs three products: `y0 = a g1 + b g2`, `y1 = a g0 + b g1`.
    InputPair<3>, 2 => 3, |a, b| { [a.add(b), b, a] }
}

transform! {
    /// The filter for `InputPair`.
    FilterPair<3>, 3 => 3, |g0, g1, g2| { [g1, g2.sub(g1), g0.sub(g1)] }
}

transform! {
    /// The gradient of a filter for `InputPair`.
    FilterGradientPair<3>, 3 => 3, |m0, m1, m2| { [m2, m0.sub(m1).sub(m2), m1] }
}

transform! {
    /// The outputs for `InputPair`.
    OutputPair<3>, 3 => 2, |m0, m1, m2| { [m0.add(m1), m0.add(m2)] }
}

transform! {
    /// The gradient of the outputs for `InputPair`.
    OutputGradientPair<3>, 2 => 3, |y0, y1| { [y0.add(y1), y0, y1] }
}

/// One tile to transform: each entry is a row of channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<const EDGE: usize> {
    /// Where the rows are read.
    pub(super) source: [[*const f32; EDGE]; EDGE],
    /// Where the rows are written; null for those that lie outside.
    pub(super) target: [[*mut f32; EDGE]; EDGE],
    /// Channels of each row.
    pub(super) channels: usize,
    /// Channels that lie together in the target, and the distance from one such group to the next.
    pub(super) panel: usize,
    pub(super) panel_stride: usize,
    /// Whether the result is added to the target.
    pub(super) accumulate: bool,
}

/// Transforms one tile in both directions; `WHOLE` promises that no target row is null.
///
/// # Safety
///
/// `INPUTS` × `INPUTS` source rows must be readable, the `OUTPUTS` × `OUTPUTS` target rows that are not null must be
/// writable in groups of `panel` channels and not be shared with another task.
pub(super) unsafe fn transform_tile<const EDGE: usize, T: Transform<EDGE>, const WHOLE: bool>(tile: &Tile<EDGE>) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    unsafe fn wide<const EDGE: usize, T: Transform<EDGE>, const WHOLE: bool>(tile: &Tile<EDGE>) {
        // SAFETY: passed on.
        unsafe { all_channels::<EDGE, __m512, T, WHOLE>(tile) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn narrow<const EDGE: usize, T: Transform<EDGE>, const WHOLE: bool>(tile: &Tile<EDGE>) {
        // SAFETY: passed on.
        unsafe { all_channels::<EDGE, __m256, T, WHOLE>(tile) }
    }
    // SAFETY: passed on; the machine has what `simd` says.
    unsafe {
        match simd() {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => wide::<EDGE, T, WHOLE>(tile),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => narrow::<EDGE, T, WHOLE>(tile),
            Simd::Baseline => all_channels::<EDGE, f32, T, WHOLE>(tile),
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
unsafe fn all_channels<const EDGE: usize, V: Vector, T: Transform<EDGE>, const WHOLE: bool>(tile: &Tile<EDGE>) {
    for (group, first) in (0..tile.channels).step_by(tile.panel).enumerate() {
        let count = tile.panel.min(tile.channels - first);
        let whole = count / V::LANES * V::LANES;
        // SAFETY: `first + c` stays below `channels`.
        unsafe {
            for c in (0..whole).step_by(V::LANES) {
                some_channels::<EDGE, V, T, WHOLE>(tile, first + c, group * tile.panel_stride + c);
            }
            for c in whole..count {
                some_channels::<EDGE, f32, T, WHOLE>(tile, first + c, group * tile.panel_stride + c);
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, clippy::needless_range_loop, reason = "see `all_channels`; two-dimensional indices")]
unsafe fn some_channels<const EDGE: usize, V: Vector, T: Transform<EDGE>, const WHOLE: bool>(
    tile: &Tile<EDGE>,
    from: usize,
    to: usize,
) {
    // SAFETY: the caller vouches for the rows and the offsets in them.
    unsafe {
        let zero = V::splat(0.0);
        let mut middle = [[zero; EDGE]; EDGE];
        for j in 0..T::INPUTS {
            let mut column = [zero; EDGE];
            for i in 0..T::INPUTS {
                column[i] = V::load(tile.source[i][j].add(from));
            }
            let column = T::apply(column);
            for i in 0..T::OUTPUTS {
                middle[i][j] = column[i];
            }
        }
        for i in 0..T::OUTPUTS {
            let row = T::apply(middle[i]);
            for j in 0..T::OUTPUTS {
                let target = tile.target[i][j];
                if !WHOLE && target.is_null() {
                    continue;
                }
                let target = target.add(to);
                let value = if tile.accumulate { V::load(target).add(row[j]) } else { row[j] };
                value.store(target);
            }
        }
    }
}
