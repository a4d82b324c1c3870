//! Separable antialiased resampling of a crop, in Pillow's fixed-point arithmetic (`Image.crop(…).resize(…)`,
//! `libImaging/Resample.c`): equal to it bit for bit.
//!
//! Only the crop is read, and only the wanted window of the result is computed.

use super::{ImageRef, augment_config::Interpolation, planes::Planes};
use crate::kernels::multiversion;

/// A rectangle of an image in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub left: u32,
    /// Upper edge.
    pub top: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

impl Rect {
    /// The whole of an image.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }
}

/// Weights are whole numbers of 2^−22: 32 bits less 8 of a pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The weights of one direction: output i is the sum over its taps of weight · input.
#[derive(Clone, Debug, Default)]
struct Coefficients {
    /// What they are for: photographs of one size need them once.
    planned: Option<(u32, u32, u32, u32, Interpolation)>,
    /// First input of each output.
    starts: Vec<u32>,
    /// Number of taps of each output.
    counts: Vec<u32>,
    /// Number of taps that any output may have.
    stride: usize,
    /// `stride` weights for each output, 0 where it has no tap.
    weights: Vec<i32>,
    /// The first weights of all outputs, then their second ones and so on, which is how they are computed.
    by_tap: Vec<i32>,
    exact: Vec<f64>,
    sums: Vec<f64>,
}

impl Coefficients {
    /// Weights for outputs `first … first + count` of a line of `in_len` pixels that becomes `out_len`.
    fn plan(&mut self, in_len: u32, out_len: u32, first: u32, count: u32, filter: Interpolation) {
        let planned = Some((in_len, out_len, first, count, filter));
        if self.planned == planned {
            return;
        }
        self.planned = planned;
        let scale = f64::from(in_len) / f64::from(out_len);
        let filter_scale = scale.max(1.0);
        let support = filter_support(filter) * filter_scale;
        self.stride = support.ceil() as usize * 2 + 1;
        let count = count as usize;
        self.starts.resize(count, 0);
        self.counts.resize(count, 0);
        self.sums.resize(count, 0.0);
        self.exact.resize(self.stride * count, 0.0);
        self.by_tap.resize(self.stride * count, 0);
        self.weights.resize(self.stride * count, 0);
        let line = Line { in_len, scale, filter_scale, support, first };
        match filter {
            Interpolation::Bilinear => weigh_bilinear(line, self),
            Interpolation::Bicubic => weigh_bicubic(line, self),
        }
        for (idx, weights) in self.weights.chunks_exact_mut(self.stride).enumerate() {
            for (weight, by_output) in weights.iter_mut().zip(self.by_tap.chunks_exact(count)) {
                *weight = by_output[idx];
            }
        }
    }

    /// First and last + 1 input that any output reads.
    fn span(&self) -> (u32, u32) {
        let start = self.starts.iter().copied().min().unwrap_or(0);
        let end = self.starts.iter().zip(&self.counts).map(|(start, count)| start + count).max().unwrap_or(0);
        (start, end)
    }

    /// First input and weights of an output.
    fn taps(&self, idx: usize) -> (usize, &[i32]) {
        (self.starts[idx] as usize, &self.weights[idx * self.stride..][..self.counts[idx] as usize])
    }
}

/// A line that is resampled.
#[derive(Clone, Copy)]
struct Line {
    in_len: u32,
    scale: f64,
    filter_scale: f64,
    support: f64,
    /// The first output that is wanted.
    first: u32,
}

impl Line {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
    fn center(&self, idx: usize) -> f64 {
        (f64::from(self.first + idx as u32) + 0.5) * self.scale
    }

    /// All outputs of a tap at once, which vectorises.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
    fn weigh(self, to: &mut Coefficients, filter: impl Fn(f64) -> f64) {
        let Coefficients { starts, counts, by_tap, exact, sums, .. } = to;
        let num_outputs = starts.len();
        for (idx, (start, count)) in starts.iter_mut().zip(counts.iter_mut()).enumerate() {
            let center = self.center(idx);
            *start = (center - self.support + 0.5).max(0.0) as u32;
            *count = ((center + self.support + 0.5) as u32).min(self.in_len) - *start;
        }
        sums.fill(0.0);
        for (tap, exact) in (0..).zip(exact.chunks_exact_mut(num_outputs)) {
            for (idx, (((to, sum), &start), &count)) in
                exact.iter_mut().zip(sums.iter_mut()).zip(&*starts).zip(&*counts).enumerate()
            {
                let x = (f64::from(start + tap) - self.center(idx) + 0.5) * (1.0 / self.filter_scale);
                *to = if tap < count { filter(x.abs()) } else { 0.0 };
                *sum += *to;
            }
        }
        for (weights, exact) in by_tap.chunks_exact_mut(num_outputs).zip(exact.chunks_exact(num_outputs)) {
            for ((to, &weight), &sum) in weights.iter_mut().zip(exact).zip(&*sums) {
                let share = if sum == 0.0 { weight } else { weight / sum };
                let scaled = share * f64::from(1_u32 << PRECISION_BITS);
                *to = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
        }
    }
}

multiversion! {
    fn weigh_bilinear(line: Line, to: &mut Coefficients) {
        line.weigh(to, |x| (1.0 - x).max(0.0));
    }
}

multiversion! {
    fn weigh_bicubic(line: Line, to: &mut Coefficients) {
        const A: f64 = -0.5;
        line.weigh(to, |x| {
            let inner = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
            let outer = (((x - 5.0) * x + 8.0) * x - 4.0) * A;
            let beyond = if x < 2.0 { outer } else { 0.0 };
            if x < 1.0 { inner } else { beyond }
        });
    }
}

fn filter_support(filter: Interpolation) -> f64 {
    match filter {
        Interpolation::Bilinear => 1.0,
        Interpolation::Bicubic => 2.0,
    }
}

/// Buffers that are used again for every image.
#[derive(Clone, Debug, Default)]
pub struct ResampleScratch {
    horizontal: Coefficients,
    vertical: Coefficients,
    /// Lines after the first pass: four bytes a pixel after rows, three after columns.
    lines: Vec<u8>,
    /// The result with four bytes a pixel.
    quads: Vec<u8>,
    strip: Strip,
    /// Interleaved pixels of planes that are resampled again.
    pub interleaved: Vec<u8>,
}

/// Four rows side by side: element x has pixel x of all four, four bytes or sums each.
#[derive(Clone, Debug, Default)]
struct Strip {
    /// Of the crop, with room after them, so that every output can read the same number of taps.
    pixels: Vec<[u8; 16]>,
    sums: Vec<[i32; 16]>,
    bytes: Vec<[u8; 16]>,
}

/// Interleaved pixels: row y starts at `start + y · stride`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    start: usize,
    stride: usize,
    /// Length of a row in bytes.
    len: usize,
}

impl<'a> Rows<'a> {
    fn row(&self, y: usize) -> &'a [u8] {
        &self.bytes[self.start + y * self.stride..][..self.len]
    }
}

/// Resizes `crop` of `image` to `full_width` × `full_height` and leaves the part `wanted` of that in `out`.
///
/// `crop` must lie inside the image and `wanted` inside the result.
pub fn resample(
    image: ImageRef<'_>,
    crop: Rect,
    full: (u32, u32),
    wanted: Rect,
    filter: Interpolation,
    scratch: &mut ResampleScratch,
    out: &mut Planes<u8>,
) {
    resample_to_quads(image, crop, full, wanted, filter, scratch);
    out.reshape(wanted.width as usize, wanted.height as usize);
    split_channels(&scratch.quads, out);
}

/// The same with four bytes a pixel, in `scratch`.
fn resample_to_quads(
    image: ImageRef<'_>,
    crop: Rect,
    (full_width, full_height): (u32, u32),
    wanted: Rect,
    filter: Interpolation,
    scratch: &mut ResampleScratch,
) {
    let ResampleScratch { horizontal, vertical, lines, quads, strip, .. } = scratch;
    horizontal.plan(crop.width, full_width, wanted.left, wanted.width, filter);
    vertical.plan(crop.height, full_height, wanted.top, wanted.height, filter);
    let (first_row, end_row) = vertical.span();
    let stride = 3 * image.width as usize;
    let source = Rows {
        bytes: image.rgb,
        start: (crop.top + first_row) as usize * stride + 3 * crop.left as usize,
        stride,
        len: 3 * crop.width as usize,
    };
    let (width, height) = (wanted.width as usize, wanted.height as usize);
    // Rows are made four at a time.
    quads.resize(4 * width * height.next_multiple_of(4), 0);
    if is_vertical_first(crop, full_width, full_height) {
        lines.resize(height * source.len, 0);
        resample_columns(source, first_row as usize, vertical, lines);
        let lines = Rows { bytes: lines, start: 0, stride: source.len, len: source.len };
        resample_rows(lines, height, horizontal, strip, quads);
    } else {
        let num_rows = (end_row - first_row) as usize;
        lines.resize(4 * width * num_rows.next_multiple_of(4), 0);
        resample_rows(source, num_rows, horizontal, strip, lines);
        let lines = Rows { bytes: lines, start: 0, stride: 4 * width, len: 4 * width };
        resample_columns(lines, first_row as usize, vertical, &mut quads[..4 * width * height]);
    }
}

/// Pixels are rounded to bytes between the passes, so that the order shows. Pillow 13 begins with the columns
/// where that removes more than twice as many rows as the other order would remove columns (found by comparing
/// its result with that of two separate passes for thousands of sizes); older versions always begin with rows.
fn is_vertical_first(crop: Rect, width: u32, height: u32) -> bool {
    let removed = |from: u32, to: u32| i64::from(from) - i64::from(to);
    height < crop.height && removed(crop.height, height) > 2 * removed(crop.width, width)
}

multiversion! {
    /// Writes four bytes a pixel; the fourth is of no use but makes four rows of a pixel one vector of sixteen lanes.
    /// `out` has room for a multiple of four rows.
    fn resample_rows(
        source: Rows<'_>,
        num_rows: usize,
        coefficients: &Coefficients,
        strip: &mut Strip,
        out: &mut [u8],
    ) {
        let Strip { pixels, sums, bytes } = strip;
        pixels.resize(source.len / 3 + coefficients.stride, [0; 16]);
        let width = coefficients.starts.len();
        sums.resize(width, [0; 16]);
        bytes.resize(width, [0; 16]);
        for (first, target) in (0..num_rows).step_by(4).zip(out.chunks_exact_mut(16 * width)) {
            fill_strip(std::array::from_fn(|row| source.row((first + row).min(num_rows - 1))), pixels);
            // Unused taps have weight 0, so that all outputs can take the same number of them; the usual
            // numbers (shrinking up to 3 times) are unrolled.
            match coefficients.stride {
                3 => resample_strip::<3>(pixels, coefficients, sums),
                5 => resample_strip::<5>(pixels, coefficients, sums),
                7 => resample_strip::<7>(pixels, coefficients, sums),
                _ => resample_wide_strip(pixels, coefficients, sums),
            }
            store_strip(sums, bytes, target);
        }
    }
}

/// Pixel x of four rows in element x.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn fill_strip(rows: [&[u8]; 4], strip: &mut [[u8; 16]]) {
    let num_pixels = rows[0].len() / 3;
    // Four bytes at a time, of which the last is the next pixel's, and three where there is none.
    let (last, whole) = (num_pixels - 1, &mut strip[..num_pixels]);
    for (x, to) in whole[..last].iter_mut().enumerate() {
        for (to, row) in to.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            to.copy_from_slice(&row[3 * x..3 * x + 4]);
        }
    }
    for (to, row) in whole[last].as_chunks_mut::<4>().0.iter_mut().zip(rows) {
        to[..3].copy_from_slice(&row[3 * last..3 * last + 3]);
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn resample_strip<const TAPS: usize>(strip: &[[u8; 16]], coefficients: &Coefficients, sums: &mut [[i32; 16]]) {
    let weights = coefficients.weights.as_chunks::<TAPS>().0;
    for ((to, weights), &first) in sums.iter_mut().zip(weights).zip(&coefficients.starts) {
        let taps = &strip[first as usize..][..TAPS];
        let mut sums = [1_i32 << (PRECISION_BITS - 1); 16];
        for tap in 0..TAPS {
            for lane in 0..16 {
                sums[lane] += weights[tap] * i32::from(taps[tap][lane]);
            }
        }
        *to = sums;
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn resample_wide_strip(strip: &[[u8; 16]], coefficients: &Coefficients, sums: &mut [[i32; 16]]) {
    for (x, to) in sums.iter_mut().enumerate() {
        let (first, weights) = coefficients.taps(x);
        let mut sums = [1_i32 << (PRECISION_BITS - 1); 16];
        for (&weight, pixels) in weights.iter().zip(&strip[first..]) {
            for lane in 0..16 {
                sums[lane] += weight * i32::from(pixels[lane]);
            }
        }
        *to = sums;
    }
}

/// Rounds sums to bytes and gives each row its own.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn store_strip(sums: &[[i32; 16]], bytes: &mut [[u8; 16]], target: &mut [u8]) {
    for (to, &sum) in bytes.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *to = clip(sum);
    }
    let width = sums.len();
    for (idx, row) in target.as_chunks_mut::<4>().0.chunks_exact_mut(width).enumerate() {
        for (to, bytes) in row.iter_mut().zip(&*bytes) {
            *to = bytes.as_chunks::<4>().0[idx];
        }
    }
}

multiversion! {
    fn split_channels(quads: &[u8], out: &mut Planes<u8>) {
        let [red, green, blue] = out.split_mut();
        for (((quad, r), g), b) in quads.as_chunks::<4>().0.iter().zip(red).zip(green).zip(blue) {
            (*r, *g, *b) = (quad[0], quad[1], quad[2]);
        }
    }
}

multiversion! {
    fn drop_fourth_bytes(quads: &[u8], rgb: &mut [u8]) {
        for (quad, to) in quads.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
            *to = [quad[0], quad[1], quad[2]];
        }
    }
}

multiversion! {
    fn resample_columns(source: Rows<'_>, first_row: usize, coefficients: &Coefficients, out: &mut [u8]) {
        const LANES: usize = 64;
        for (y, target) in out.chunks_exact_mut(source.len).enumerate() {
            let (first, weights) = coefficients.taps(y);
            let lines = &source.bytes[source.start + (first - first_row) * source.stride..];
            let mut x = 0;
            while x + LANES <= source.len {
                let mut sums = [1_i32 << (PRECISION_BITS - 1); LANES];
                for (tap, &weight) in weights.iter().enumerate() {
                    let line = &lines[tap * source.stride + x..][..LANES];
                    for lane in 0..LANES {
                        sums[lane] += weight * i32::from(line[lane]);
                    }
                }
                for (to, &sum) in target[x..x + LANES].iter_mut().zip(&sums) {
                    *to = clip(sum);
                }
                x += LANES;
            }
            while x < source.len {
                let mut sum = 1_i32 << (PRECISION_BITS - 1);
                for (tap, &weight) in weights.iter().enumerate() {
                    sum += weight * i32::from(lines[tap * source.stride + x]);
                }
                target[x] = clip(sum);
                x += 1;
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resizes a whole image; interleaved pixels in, interleaved pixels out.
pub fn resize_image(image: ImageRef<'_>, width: u32, height: u32, scratch: &mut ResampleScratch) -> Vec<u8> {
    let whole = Rect::whole(image.width, image.height);
    let wanted = Rect::whole(width, height);
    resample_to_quads(image, whole, (width, height), wanted, Interpolation::Bilinear, scratch);
    let mut rgb = vec![0; 3 * width as usize * height as usize];
    drop_fourth_bytes(&scratch.quads, &mut rgb);
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same one output at a time, as Pillow writes it.
    fn resample_slowly(
        source: &[u8],
        (width, height): (usize, usize),
        crop: Rect,
        full: (u32, u32),
        filter: Interpolation,
    ) -> Vec<u8> {
        let taps = |in_len: u32, out_len: u32, idx: u32| -> Vec<(usize, i32)> {
            let scale = f64::from(in_len) / f64::from(out_len);
            let filter_scale = scale.max(1.0);
            let support = filter_support(filter) * filter_scale;
            let center = (f64::from(idx) + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as u32;
            let end = ((center + support + 0.5) as u32).min(in_len);
            let exact: Vec<f64> = (start..end)
                .map(|input| {
                    let x = ((f64::from(input) - center + 0.5) * (1.0 / filter_scale)).abs();
                    match filter {
                        Interpolation::Bilinear => (1.0 - x).max(0.0),
                        Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
                        Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
                        Interpolation::Bicubic => 0.0,
                    }
                })
                .collect();
            let sum: f64 = exact.iter().sum();
            let whole = |weight: f64| (weight / sum * f64::from(1 << 22) + 0.5_f64.copysign(weight)) as i32;
            (start as usize..).zip(exact.into_iter().map(whole)).collect()
        };
        let sum = |taps: &[(usize, i32)], at: &dyn Fn(usize) -> u8| {
            let sum: i32 = taps.iter().map(|&(input, weight)| weight * i32::from(at(input))).sum();
            ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
        };
        assert_eq!(source.len(), 3 * width * height);
        let pixel =
            |x: usize, y: usize, c: usize| source[3 * ((crop.top as usize + y) * width + crop.left as usize + x) + c];
        let columns: Vec<_> = (0..full.0).map(|x| taps(crop.width, full.0, x)).collect();
        let rows: Vec<_> = (0..full.1).map(|y| taps(crop.height, full.1, y)).collect();
        let mut out = vec![];
        for c in 0..3 {
            for row in &rows {
                for column in &columns {
                    out.push(if is_vertical_first(crop, full.0, full.1) {
                        sum(column, &|x| sum(row, &|y| pixel(x, y, c)))
                    } else {
                        sum(row, &|y| sum(column, &|x| pixel(x, y, c)))
                    });
                }
            }
        }
        out
    }

    #[test]
    fn vectors_give_what_single_sums_give() {
        let mut scratch = ResampleScratch::default();
        for (width, height) in [(1, 1), (2, 3), (7, 5), (33, 18), (50, 67)] {
            let rgb = noise(width, height);
            let image = ImageRef::new(width, height, &rgb).unwrap();
            let (left, top) = (width / 5, height / 4);
            for crop in [Rect::whole(width, height), Rect { left, top, width: width - left, height: height - top }] {
                for full in [(1, 1), (3, 2), (6, 31), (17, 9), (21, 4), (35, 22), (40, 13)] {
                    for filter in [Interpolation::Bilinear, Interpolation::Bicubic] {
                        let mut fast = Planes::default();
                        resample(image, crop, full, Rect::whole(full.0, full.1), filter, &mut scratch, &mut fast);
                        let slow = resample_slowly(&rgb, (width as usize, height as usize), crop, full, filter);
                        assert_eq!(fast.data, slow, "{width}×{height} {crop:?} {full:?} {filter:?}");
                    }
                }
            }
        }
    }

    fn noise(width: u32, height: u32) -> Vec<u8> {
        (0..3 * width * height).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn same_size_is_the_identity() {
        let rgb = noise(7, 5);
        let image = ImageRef::new(7, 5, &rgb).unwrap();
        assert_eq!(resize_image(image, 7, 5, &mut ResampleScratch::default()), rgb);
    }

    #[test]
    fn flat_images_stay_flat_at_any_size() {
        let rgb = vec![200; 3 * 9 * 4];
        let image = ImageRef::new(9, 4, &rgb).unwrap();
        for (width, height) in [(1, 1), (2, 9), (40, 33), (9, 1)] {
            let resized = resize_image(image, width, height, &mut ResampleScratch::default());
            assert!(resized.iter().all(|&value| value == 200), "{width}x{height}");
        }
    }

    #[test]
    fn a_window_equals_the_part_of_the_whole() {
        let rgb = noise(50, 41);
        let image = ImageRef::new(50, 41, &rgb).unwrap();
        let crop = Rect { left: 3, top: 5, width: 44, height: 30 };
        let mut scratch = ResampleScratch::default();
        for filter in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let (mut whole, mut part) = (Planes::default(), Planes::default());
            resample(image, crop, (20, 60), Rect::whole(20, 60), filter, &mut scratch, &mut whole);
            let wanted = Rect { left: 4, top: 17, width: 11, height: 33 };
            resample(image, crop, (20, 60), wanted, filter, &mut scratch, &mut part);
            for channel in 0..3 {
                for y in 0..33 {
                    for x in 0..11 {
                        let expected = whole.data[channel * 1200 + (y + 17) * 20 + x + 4];
                        assert_eq!(part.data[channel * 363 + y * 11 + x], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn one_pixel_fills_everything() {
        let image = ImageRef::new(1, 1, &[1, 2, 3]).unwrap();
        let resized = resize_image(image, 33, 2, &mut ResampleScratch::default());
        assert!(resized.chunks(3).all(|pixel| pixel == [1, 2, 3]));
    }
}
