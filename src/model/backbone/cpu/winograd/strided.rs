//! Transforms for stride 2. In one direction `y[i] = x[2i−1] g0 + x[2i] g1 + x[2i+1] g2`: the pixels of one parity see
//! a filter of two taps, those of the other a single tap. For m outputs the two taps are filtered minimally, F(m, 2),
//! with m + 1 products instead of 2 m; the single tap needs its m products and no transform. A tile's frequencies are
//! the m + 1 products followed by the m; the latter share one transformed tap.
//!
//! The data gradient has the same form: `dx[2i] = dy[i] g1` and `dx[2i+1] = dy[i] g2 + dy[i+1] g0`.
//!
//! F(4, 2) interpolates at ±1, ±½, ∞, which rounds better than sets with 0 or 2; F(3, 2) at 0, ±1, ∞; F(2, 2) at
//! 0, 1, ∞.

use super::transform::{Transform, transform};
use crate::kernels::vector::Vector;

/// What the single products of F(m, 2) are made of.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
unsafe fn inputs_4<V: Vector>([d0, d1, d2, d3, d4]: [V; 5]) -> [V; 5] {
    // SAFETY: arithmetic on registers; the caller vouches for the instruction set.
    unsafe {
        let quarter = V::splat(0.25);
        let (odd_1, even_1) = (d3.sub(d1.mul(quarter)), d2.sub(d0.mul(quarter)));
        let (odd_h, even_h) = (d3.sub(d1), d2.sub(d0).mul(V::splat(0.5)));
        [
            odd_1.add(even_1),
            odd_1.sub(even_1),
            odd_h.add(even_h),
            odd_h.sub(even_h),
            d4.add(d0.mul(quarter)).sub(d2.mul(V::splat(1.25))),
        ]
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `inputs_4`")]
unsafe fn outputs_4<V: Vector>([m0, m1, m2, m3, m4]: [V; 5]) -> [V; 4] {
    // SAFETY: as in `inputs_4`.
    unsafe {
        let (even_1, odd_1) = (m0.add(m1), m0.sub(m1));
        let (even_h, odd_h) = (m2.add(m3), m2.sub(m3));
        [
            even_1.add(even_h),
            odd_1.add(odd_h.mul(V::splat(0.5))),
            even_1.add(even_h.mul(V::splat(0.25))),
            odd_1.add(odd_h.mul(V::splat(0.125))).add(m4),
        ]
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `inputs_4`")]
unsafe fn inputs_3<V: Vector>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
    // SAFETY: as in `inputs_4`.
    unsafe { [d0.sub(d2), d2.add(d1), d2.sub(d1), d3.sub(d1)] }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `inputs_4`")]
unsafe fn outputs_3<V: Vector>([m0, m1, m2, m3]: [V; 4]) -> [V; 3] {
    // SAFETY: as in `inputs_4`.
    unsafe {
        let even = m1.add(m2);
        [m0.add(even), m1.sub(m2), even.add(m3)]
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `inputs_4`")]
unsafe fn inputs_2<V: Vector>([d0, d1, d2]: [V; 3]) -> [V; 3] {
    // SAFETY: as in `inputs_4`.
    unsafe { [d0.sub(d1), d1, d2.sub(d1)] }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "see `inputs_4`")]
unsafe fn outputs_2<V: Vector>([m0, m1, m2]: [V; 3]) -> [V; 2] {
    // SAFETY: as in `inputs_4`.
    unsafe { [m0.add(m1), m1.add(m2)] }
}

transform! {
    /// An input tile of F(4, 2) beside its single taps.
    StridedInput4<9>, 9 => 9, |e0, o0, e1, o1, e2, o2, e3, o3, e4| {
        let [m0, m1, m2, m3, m4] = inputs_4([e0, e1, e2, e3, e4]);
        [m0, m1, m2, m3, m4, o0, o1, o2, o3]
    }
}

transform! {
    /// A filter: the two taps transformed, then the single one.
    StridedFilter4<9>, 3 => 6, |g0, g1, g2| {
        let (third, half) = (V::splat(1.0 / 3.0), V::splat(0.5));
        let (two, four) = (third.add(third), third.add(third).add(third.add(third)));
        let half_g2 = g2.mul(half);
        [
            g0.add(g2).mul(two),
            g2.sub(g0).mul(two),
            V::splat(0.0).sub(g0.add(half_g2).mul(four)),
            g0.sub(half_g2).mul(four),
            g2,
            g1,
        ]
    }
}

transform! {
    /// The gradient of a filter.
    StridedFilterGradient4<9>, 6 => 3, |m0, m1, m2, m3, m4, single| {
        let third = V::splat(1.0 / 3.0);
        let two = third.add(third);
        let inner = m3.sub(m2);
        [m0.sub(m1).add(inner.add(inner)).mul(two), single, m0.add(m1).sub(m2.add(m3)).mul(two).add(m4)]
    }
}

transform! {
    /// An output tile.
    StridedOutput4<9>, 9 => 4, |m0, m1, m2, m3, m4, o0, o1, o2, o3| {
        let [y0, y1, y2, y3] = outputs_4([m0, m1, m2, m3, m4]);
        [y0.add(o0), y1.add(o1), y2.add(o2), y3.add(o3)]
    }
}

transform! {
    /// The gradient of an output tile.
    StridedOutputGradient4<9>, 4 => 9, |y0, y1, y2, y3| {
        let (even_1, odd_1) = (y0.add(y2), y1.add(y3));
        let even_h = y0.add(y2.mul(V::splat(0.25)));
        let odd_h = y1.mul(V::splat(0.5)).add(y3.mul(V::splat(0.125)));
        [even_1.add(odd_1), even_1.sub(odd_1), even_h.add(odd_h), even_h.sub(odd_h), y3, y0, y1, y2, y3]
    }
}

transform! {
    /// A tile of output gradients, of which a data gradient is made.
    StridedDataInput4<9>, 5 => 9, |d0, d1, d2, d3, d4| {
        let [m0, m1, m2, m3, m4] = inputs_4([d0, d1, d2, d3, d4]);
        [m0, m1, m2, m3, m4, d0, d1, d2, d3]
    }
}

transform! {
    /// A tile of the data gradient.
    StridedDataOutput4<9>, 9 => 8, |m0, m1, m2, m3, m4, o0, o1, o2, o3| {
        let [y0, y1, y2, y3] = outputs_4([m0, m1, m2, m3, m4]);
        [o0, y0, o1, y1, o2, y2, o3, y3]
    }
}

transform! {
    /// An input tile of F(3, 2) beside its single taps.
    StridedInput3<7>, 7 => 7, |e0, o0, e1, o1, e2, o2, e3| {
        let [m0, m1, m2, m3] = inputs_3([e0, e1, e2, e3]);
        [m0, m1, m2, m3, o0, o1, o2]
    }
}

transform! {
    /// A filter: the two taps transformed, then the single one.
    StridedFilter3<7>, 3 => 5, |g0, g1, g2| {
        let half = V::splat(0.5);
        [g0, g0.add(g2).mul(half), g0.sub(g2).mul(half), g2, g1]
    }
}

transform! {
    /// The gradient of a filter.
    StridedFilterGradient3<7>, 5 => 3, |m0, m1, m2, m3, single| {
        let half = V::splat(0.5);
        [m0.add(m1.add(m2).mul(half)), single, m1.sub(m2).mul(half).add(m3)]
    }
}

transform! {
    /// An output tile.
    StridedOutput3<7>, 7 => 3, |m0, m1, m2, m3, o0, o1, o2| {
        let [y0, y1, y2] = outputs_3([m0, m1, m2, m3]);
        [y0.add(o0), y1.add(o1), y2.add(o2)]
    }
}

transform! {
    /// The gradient of an output tile.
    StridedOutputGradient3<7>, 3 => 7, |y0, y1, y2| {
        let even = y0.add(y2);
        [y0, even.add(y1), even.sub(y1), y2, y0, y1, y2]
    }
}

transform! {
    /// A tile of output gradients, of which a data gradient is made.
    StridedDataInput3<7>, 4 => 7, |d0, d1, d2, d3| {
        let [m0, m1, m2, m3] = inputs_3([d0, d1, d2, d3]);
        [m0, m1, m2, m3, d0, d1, d2]
    }
}

transform! {
    /// A tile of the data gradient.
    StridedDataOutput3<7>, 7 => 6, |m0, m1, m2, m3, o0, o1, o2| {
        let [y0, y1, y2] = outputs_3([m0, m1, m2, m3]);
        [o0, y0, o1, y1, o2, y2]
    }
}

transform! {
    /// An input tile of F(2, 2) beside its single taps.
    StridedInput2<5>, 5 => 5, |e0, o0, e1, o1, e2| {
        let [m0, m1, m2] = inputs_2([e0, e1, e2]);
        [m0, m1, m2, o0, o1]
    }
}

transform! {
    /// A filter: the two taps transformed, then the single one.
    StridedFilter2<5>, 3 => 4, |g0, g1, g2| { [g0, g0.add(g2), g2, g1] }
}

transform! {
    /// The gradient of a filter.
    StridedFilterGradient2<5>, 4 => 3, |m0, m1, m2, single| { [m0.add(m1), single, m1.add(m2)] }
}

transform! {
    /// An output tile.
    StridedOutput2<5>, 5 => 2, |m0, m1, m2, o0, o1| {
        let [y0, y1] = outputs_2([m0, m1, m2]);
        [y0.add(o0), y1.add(o1)]
    }
}

transform! {
    /// The gradient of an output tile.
    StridedOutputGradient2<5>, 2 => 5, |y0, y1| { [y0, y0.add(y1), y1, y0, y1] }
}

transform! {
    /// A tile of output gradients, of which a data gradient is made.
    StridedDataInput2<5>, 3 => 5, |d0, d1, d2| {
        let [m0, m1, m2] = inputs_2([d0, d1, d2]);
        [m0, m1, m2, d0, d1]
    }
}

transform! {
    /// A tile of the data gradient.
    StridedDataOutput2<5>, 5 => 4, |m0, m1, m2, o0, o1| {
        let [y0, y1] = outputs_2([m0, m1, m2]);
        [o0, y0, o1, y1]
    }
}
