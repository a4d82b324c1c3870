//! The inverse cosine transform of a block, in whole numbers with 12 bits after the point.
//!
//! The factorisation is that of Loeffler, Ligtenberg and Moschytz (1989), with the constants and roundings of
//! `zune-jpeg`, and equal to it bit for bit.

use super::bits::Block;
#[cfg(target_arch = "x86_64")]
use crate::kernels::{Simd, simd};

/// Rounding after the first pass, which leaves two bits more than a coefficient has.
const FIRST_BIAS: i32 = 1 << 9;
/// Rounding after the second pass, and 128, which a block is centred at. 2^9 is part of what must be equalled.
const SECOND_BIAS: i32 = (1 << 9) + (1 << 16) + (128 << 17);

/// Multiplies the first `num` coefficients in the order of a file, all others being 0, by their divisors and writes
/// eight rows of eight pixels to `to`, whose rows are `stride` long.
pub(super) fn render_block(block: &Block, divisors: &[i16; 64], num: usize, to: &mut [u8], stride: usize) {
    if num <= 1 {
        let level = (i32::from(block[0]) * i32::from(divisors[0]) + 4 + 1024) >> 3;
        for row in to.chunks_mut(stride).take(8) {
            row[..8].fill(level.clamp(0, 255) as u8);
        }
        return;
    }
    let pixels = transform(block, divisors);
    for (row, pixels) in to.chunks_mut(stride).zip(pixels.as_chunks::<8>().0) {
        row[..8].copy_from_slice(pixels);
    }
}

#[inline]
fn transform(block: &Block, divisors: &[i16; 64]) -> [u8; 64] {
    #[cfg(target_arch = "x86_64")]
    if simd() != Simd::Baseline {
        // SAFETY: the machine has AVX2, `simd` has just asked.
        return unsafe { avx2::transform(block, divisors) };
    }
    portable::transform(block, divisors)
}

mod portable {
    //! For all machines, and what the vectors are compared with.

    use super::{Block, FIRST_BIAS, SECOND_BIAS};

    pub(super) fn transform(block: &Block, divisors: &[i16; 64]) -> [u8; 64] {
        let mut lines = [[0; 8]; 8];
        for (idx, line) in lines.iter_mut().enumerate() {
            *line = std::array::from_fn(|x| i32::from(block[8 * idx + x]) * i32::from(divisors[8 * idx + x]));
        }
        let columns = transpose(pass(&lines, FIRST_BIAS, 10));
        let rows = transpose(pass(&columns, SECOND_BIAS, 17));
        let mut pixels = [0; 64];
        for (to, &value) in pixels.iter_mut().zip(rows.as_flattened()) {
            *to = value.clamp(0, 255) as u8;
        }
        pixels
    }

    fn transpose(from: [[i32; 8]; 8]) -> [[i32; 8]; 8] {
        std::array::from_fn(|y| std::array::from_fn(|x| from[x][y]))
    }

    /// Down the columns. Damaged coefficients may overflow, which must not show but as wrong pixels.
    fn pass(from: &[[i32; 8]; 8], bias: i32, shift: u32) -> [[i32; 8]; 8] {
        let mut to = [[0; 8]; 8];
        for x in 0..8 {
            let at = |y: usize| std::num::Wrapping(from[y][x]);
            let by = |factor: i32| std::num::Wrapping(factor);
            let turned = (at(2) + at(6)) * by(2217);
            let (inner, outer) = (turned + at(6) * by(-7567), turned + at(2) * by(3135));
            let (sum, difference) = ((at(0) + at(4)) * by(4096) + by(bias), (at(0) - at(4)) * by(4096) + by(bias));
            let even = [sum + outer, difference + inner, difference - inner, sum - outer];
            let all = (at(1) + at(3) + at(5) + at(7)) * by(4816);
            let (ends, middles) = (all + (at(7) + at(1)) * by(-3685), all + (at(5) + at(3)) * by(-10497));
            let (upper, lower) = ((at(7) + at(3)) * by(-8034), (at(5) + at(1)) * by(-1597));
            let odd = [
                at(1) * by(6149) + ends + lower,
                at(3) * by(12586) + middles + upper,
                at(5) * by(8410) + middles + lower,
                at(7) * by(1223) + ends + upper,
            ];
            for y in 0..4 {
                to[y][x] = (even[y] + odd[y]).0 >> shift;
                to[7 - y][x] = (even[y] - odd[y]).0 >> shift;
            }
        }
        to
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The same with a row of coefficients in a register.

    use std::arch::x86_64::{
        __m128i, __m256i, _mm_setr_epi8, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_cvtepi16_epi32,
        _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute2x128_si256, _mm256_set1_epi32,
        _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_sub_epi32, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };

    use super::{Block, FIRST_BIAS, SECOND_BIAS};

    #[target_feature(enable = "avx2")]
    pub(super) fn transform(block: &Block, divisors: &[i16; 64]) -> [u8; 64] {
        let (block, divisors) = (block.as_chunks::<8>().0, divisors.as_chunks::<8>().0);
        let rows = std::array::from_fn(|y| {
            let load = |from: [i16; 8]| _mm256_cvtepi16_epi32(bytemuck::cast::<_, __m128i>(from));
            _mm256_mullo_epi32(load(block[y]), load(divisors[y]))
        });
        let columns = pass(rows, FIRST_BIAS).map(|row| _mm256_srai_epi32::<10>(row));
        let columns = pass(transpose(columns), SECOND_BIAS).map(|column| _mm256_srai_epi32::<17>(column));
        // Four columns to a register, with the upper four rows in its lower half.
        let pack = |from: &[__m256i]| {
            _mm256_packus_epi16(_mm256_packs_epi32(from[0], from[1]), _mm256_packs_epi32(from[2], from[3]))
        };
        let by_row = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        let left = _mm256_shuffle_epi8(pack(&columns[..4]), by_row);
        let right = _mm256_shuffle_epi8(pack(&columns[4..]), by_row);
        // Rows 0, 1, 4, 5 and rows 2, 3, 6, 7.
        let [a, b]: [[[u8; 16]; 2]; 2] =
            bytemuck::cast([_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right)]);
        bytemuck::cast([a[0], b[0], a[1], b[1]])
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn pass(from: [__m256i; 8], bias: i32) -> [__m256i; 8] {
        let [r0, r1, r2, r3, r4, r5, r6, r7] = from;
        let add = |a, b| _mm256_add_epi32(a, b);
        let sub = |a, b| _mm256_sub_epi32(a, b);
        let by = |a, factor| _mm256_mullo_epi32(a, _mm256_set1_epi32(factor));
        let scale = |a| add(_mm256_slli_epi32::<12>(a), _mm256_set1_epi32(bias));
        let turned = by(add(r2, r6), 2217);
        let (inner, outer) = (add(turned, by(r6, -7567)), add(turned, by(r2, 3135)));
        let (sum, difference) = (scale(add(r0, r4)), scale(sub(r0, r4)));
        let even = [add(sum, outer), add(difference, inner), sub(difference, inner), sub(sum, outer)];
        let (p73, p51) = (add(r7, r3), add(r5, r1));
        let all = by(add(p73, p51), 4816);
        let (ends, middles) = (add(all, by(add(r7, r1), -3685)), add(all, by(add(r5, r3), -10497)));
        let (upper, lower) = (by(p73, -8034), by(p51, -1597));
        let odd = [
            add(by(r1, 6149), add(ends, lower)),
            add(by(r3, 12586), add(middles, upper)),
            add(by(r5, 8410), add(middles, lower)),
            add(by(r7, 1223), add(ends, upper)),
        ];
        std::array::from_fn(|y| if y < 4 { add(even[y], odd[y]) } else { sub(even[7 - y], odd[7 - y]) })
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose(r: [__m256i; 8]) -> [__m256i; 8] {
        // Pairs, fours, eights.
        let (lo, hi) = (|a, b| _mm256_unpacklo_epi32(a, b), |a, b| _mm256_unpackhi_epi32(a, b));
        let r = [
            lo(r[0], r[1]),
            hi(r[0], r[1]),
            lo(r[2], r[3]),
            hi(r[2], r[3]),
            lo(r[4], r[5]),
            hi(r[4], r[5]),
            lo(r[6], r[7]),
            hi(r[6], r[7]),
        ];
        let (lo, hi) = (|a, b| _mm256_unpacklo_epi64(a, b), |a, b| _mm256_unpackhi_epi64(a, b));
        let r = [
            lo(r[0], r[2]),
            hi(r[0], r[2]),
            lo(r[1], r[3]),
            hi(r[1], r[3]),
            lo(r[4], r[6]),
            hi(r[4], r[6]),
            lo(r[5], r[7]),
            hi(r[5], r[7]),
        ];
        std::array::from_fn(|y| {
            let (upper, lower) = (r[y % 4], r[y % 4 + 4]);
            if y < 4 {
                _mm256_permute2x128_si256::<0x20>(upper, lower)
            } else {
                _mm256_permute2x128_si256::<0x31>(upper, lower)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(coefficients: &[i16]) -> Block {
        let mut block = [0; 256];
        block[..coefficients.len()].copy_from_slice(coefficients);
        block
    }

    /// The definition (T.81, A.3.3), in f64.
    fn render_slowly(block: &Block, divisors: &[i16; 64]) -> [f64; 64] {
        let wave = |at: usize, frequency: usize| {
            let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
            scale * ((2 * at + 1) as f64 * frequency as f64 * std::f64::consts::PI / 16.0).cos()
        };
        std::array::from_fn(|at| {
            let sum: f64 = (0..64)
                .map(|k| {
                    let coefficient = f64::from(block[k]) * f64::from(divisors[k]);
                    coefficient * wave(at / 8, k / 8) * wave(at % 8, k % 8)
                })
                .sum();
            (sum / 4.0 + 128.0).clamp(0.0, 255.0)
        })
    }

    proptest! {
        #[test]
        fn blocks_follow_the_definition(
            coefficients in prop::collection::vec(prop_oneof![3 => Just(0_i16), 1 => -40_i16..40], 64),
            level in -60_i16..60,
            divisor in 1_i16..12,
        ) {
            let mut block = whole(&coefficients);
            block[0] = level;
            let divisors = [divisor; 64];
            let exact = render_slowly(&block, &divisors);
            for (ours, exact) in transform(&block, &divisors).into_iter().zip(exact) {
                prop_assert!((f64::from(ours) - exact).abs() < 1.0, "{ours} {exact}");
            }
        }

        #[test]
        fn vectors_give_what_single_numbers_give(
            coefficients in prop::collection::vec(prop_oneof![Just(0_i16), -100_i16..100, any::<i16>()], 64),
            divisors in prop::collection::vec(0_i16..256, 64),
        ) {
            let divisors = *divisors.as_array().unwrap();
            let block = whole(&coefficients);
            prop_assert_eq!(transform(&block, &divisors), portable::transform(&block, &divisors));
        }

        #[test]
        fn a_level_block_needs_no_transform(level in -250_i16..250, divisor in 0_i16..256) {
            let (block, divisors) = (whole(&[level]), [divisor; 64]);
            let (mut short, mut long) = ([7; 20 * 8], [7; 20 * 8]);
            render_block(&block, &divisors, 1, &mut short, 20);
            render_block(&block, &divisors, 64, &mut long, 20);
            prop_assert_eq!(short, long);
        }
    }
}
