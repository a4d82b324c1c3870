//! From brightness and two colour differences to red, green and blue (ITU-R BT.601, full range), with 14 bits after
//! the point: equal to `zune-jpeg` bit for bit.

#[cfg(target_arch = "x86_64")]
use crate::kernels::{Simd, simd};

const RED: i16 = 22970;
const BLUE: i16 = 29032;
const GREEN_OF_RED: i16 = -11700;
const GREEN_OF_BLUE: i16 = -5638;
/// Half of the last place, less one.
const ROUND: i32 = (1 << 13) - 1;

/// Writes as many pixels as `out` has room for. `luma`, `blue` and `red` have at least as many values.
pub(super) fn render_colors(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if simd() != Simd::Baseline {
        // SAFETY: the machine has AVX2, `simd` has just asked.
        unsafe { avx2::render_colors(luma, blue, red, out) };
        return;
    }
    render_slowly(luma, blue, red, out);
}

/// For all machines, and what the vectors are compared with.
fn render_slowly(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    for (((pixel, &luma), &blue), &red) in out.as_chunks_mut::<3>().0.iter_mut().zip(luma).zip(blue).zip(red) {
        let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
        let channel = |of_blue: i16, of_red: i16| {
            let sum = (i32::from(luma) << 14) + blue * i32::from(of_blue) + red * i32::from(of_red);
            ((sum + ROUND) >> 14).clamp(0, 255) as u8
        };
        *pixel = [channel(0, RED), channel(GREEN_OF_BLUE, GREEN_OF_RED), channel(BLUE, 0)];
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_madd_epi16,
        _mm256_mulhrs_epi16, _mm256_or_si256, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srai_epi32, _mm256_sub_epi16,
        _mm256_unpackhi_epi8, _mm256_unpackhi_epi16, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
    };

    use super::{BLUE, GREEN_OF_BLUE, GREEN_OF_RED, RED, ROUND};

    /// Pixels of a vector.
    const LANES: usize = 32;

    /// For each third of sixteen pixels and each channel: which pixel's byte goes where, −1 for none.
    const ORDER: [[[i8; 16]; 3]; 3] = {
        let mut order = [[[-1; 16]; 3]; 3];
        let mut at = 0;
        while at < 48 {
            order[at / 16][at % 3][at % 16] = (at / 3) as i8;
            at += 1;
        }
        order
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn render_colors(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
        let (vectors, rest) = out.as_chunks_mut::<{ 3 * LANES }>();
        let whole = vectors.len() * LANES;
        let (luma, blue, red) = (luma.split_at(whole), blue.split_at(whole), red.split_at(whole));
        for (((to, luma), blue), red) in
            vectors.iter_mut().zip(luma.0.as_chunks().0).zip(blue.0.as_chunks().0).zip(red.0.as_chunks().0)
        {
            *to = render_lanes(luma, blue, red);
        }
        if !rest.is_empty() {
            let fill = |from: &[u8]| {
                let mut lanes = [0; LANES];
                let len = from.len().min(LANES);
                lanes[..len].copy_from_slice(&from[..len]);
                lanes
            };
            let last = render_lanes(&fill(luma.1), &fill(blue.1), &fill(red.1));
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn render_lanes(luma: &[u8; LANES], blue: &[u8; LANES], red: &[u8; LANES]) -> [u8; 3 * LANES] {
        let load = |from: &[u8; LANES]| bytemuck::cast::<_, __m256i>(*from);
        let (luma, blue, red) = (load(luma), load(blue), load(red));
        let zero = _mm256_setzero_si256();
        // Both halves of each register's halves; packing puts them together again.
        let low = shift_colors(
            _mm256_unpacklo_epi8(luma, zero),
            _mm256_unpacklo_epi8(blue, zero),
            _mm256_unpacklo_epi8(red, zero),
        );
        let high = shift_colors(
            _mm256_unpackhi_epi8(luma, zero),
            _mm256_unpackhi_epi8(blue, zero),
            _mm256_unpackhi_epi8(red, zero),
        );
        let channels: [__m256i; 3] = std::array::from_fn(|idx| _mm256_packus_epi16(low[idx], high[idx]));
        let thirds = ORDER.map(|order| {
            let place = |idx: usize| {
                let order = _mm256_broadcastsi128_si256(bytemuck::cast::<_, __m128i>(order[idx]));
                _mm256_shuffle_epi8(channels[idx], order)
            };
            _mm256_or_si256(_mm256_or_si256(place(0), place(1)), place(2))
        });
        let [a, b, c]: [[[u8; 16]; 2]; 3] = bytemuck::cast(thirds);
        bytemuck::cast([a[0], b[0], c[0], a[1], b[1], c[1]])
    }

    /// Red, green and blue of sixteen pixels, not yet limited to bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn shift_colors(luma: __m256i, blue: __m256i, red: __m256i) -> [__m256i; 3] {
        let middle = _mm256_set1_epi16(128);
        let (blue, red) = (_mm256_sub_epi16(blue, middle), _mm256_sub_epi16(red, middle));
        // Rounds half up, where the sum of two products rounds half down: no product of 14 bits and 8 lies between.
        let part = |color, factor| _mm256_mulhrs_epi16(_mm256_add_epi16(color, color), _mm256_set1_epi16(factor));
        let factors = _mm256_set1_epi32((i32::from(GREEN_OF_BLUE) << 16) | (i32::from(GREEN_OF_RED) & 0xFFFF));
        let both = |pairs| {
            _mm256_srai_epi32::<14>(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), _mm256_set1_epi32(ROUND)))
        };
        let green = _mm256_packs_epi32(both(_mm256_unpacklo_epi16(red, blue)), both(_mm256_unpackhi_epi16(red, blue)));
        [part(red, RED), green, part(blue, BLUE)].map(|part| _mm256_add_epi16(luma, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_give_every_colour_that_single_pixels_give() {
        for luma in [0, 1, 17, 127, 128, 200, 254, 255] {
            for blue in 0..=255 {
                let red: Vec<u8> = (0..=255).collect();
                let (lumas, blues) = ([luma; 256], [blue; 256]);
                let (mut fast, mut slow) = ([0; 3 * 256], [0; 3 * 256]);
                render_colors(&lumas, &blues, &red, &mut fast);
                render_slowly(&lumas, &blues, &red, &mut slow);
                assert_eq!(fast, slow, "{luma} {blue}");
            }
        }
    }

    #[test]
    fn colours_follow_the_definition_whatever_the_width() {
        for width in 1..100 {
            let line = |factor: usize| (0..width + 7).map(|x| (x * factor % 256) as u8).collect::<Vec<_>>();
            let (luma, blue, red) = (line(13), line(29), line(71));
            let mut out = vec![0; 3 * width];
            render_colors(&luma, &blue, &red, &mut out);
            for (x, pixel) in out.chunks_exact(3).enumerate() {
                let (y, b, r) = (f64::from(luma[x]), f64::from(blue[x]) - 128.0, f64::from(red[x]) - 128.0);
                let exact = [y + 1.402 * r, y - 0.344_136 * b - 0.714_136 * r, y + 1.772 * b];
                for (ours, exact) in pixel.iter().zip(exact) {
                    assert!((f64::from(*ours) - exact.clamp(0.0, 255.0)).abs() < 0.52, "{ours} {exact}");
                }
            }
        }
    }
}
