//! Separable antialiased resampling of a crop, in Pillow's fixed-point arithmetic (`Image.crop(…).resize(…)`,
//! `libImaging/Resample.c`): equal to it bit for bit.
//!
//! Only the crop is read, and only the wanted window of the result is computed.

use super::{ImageRef, augment_config::Interpolation, planes::Planes, simd::dispatched};

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
    /// First input of each output.
    starts: Vec<u32>,
    /// Number of taps of each output.
    counts: Vec<u32>,
    /// `stride` weights for each output.
    weights: Vec<i32>,
    stride: usize,
    exact: Vec<f64>,
}

impl Coefficients {
    /// Weights for outputs `first … first + count` of a line of `in_len` pixels that becomes `out_len`.
    fn plan(&mut self, in_len: u32, out_len: u32, first: u32, count: u32, filter: Interpolation) {
        let scale = f64::from(in_len) / f64::from(out_len);
        let filter_scale = scale.max(1.0);
        let support = filter_support(filter) * filter_scale;
        self.stride = support.ceil() as usize * 2 + 1;
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(self.stride * count as usize, 0);
        for idx in 0..count {
            let center = (f64::from(first + idx) + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as u32;
            let end = ((center + support + 0.5) as u32).min(in_len);
            self.exact.clear();
            self.exact.extend(
                (start..end)
                    .map(|input| filter_weight(filter, (f64::from(input) - center + 0.5) * (1.0 / filter_scale))),
            );
            let sum: f64 = self.exact.iter().sum();
            let row = &mut self.weights[idx as usize * self.stride..][..self.stride];
            for (to, &weight) in row.iter_mut().zip(&self.exact) {
                let scaled = if sum == 0.0 { weight } else { weight / sum } * f64::from(1_u32 << PRECISION_BITS);
                *to = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    /// First and last + 1 input that any output reads.
    fn span(&self) -> (u32, u32) {
        let start = self.starts.iter().copied().min().unwrap_or(0);
        let end = self.starts.iter().zip(&self.counts).map(|(start, count)| start + count).max().unwrap_or(0);
        (start, end)
    }

    fn taps(&self, idx: usize) -> (usize, &[i32]) {
        (self.starts[idx] as usize, &self.weights[idx * self.stride..][..self.counts[idx] as usize])
    }
}

fn filter_support(filter: Interpolation) -> f64 {
    match filter {
        Interpolation::Bilinear => 1.0,
        Interpolation::Bicubic => 2.0,
    }
}

fn filter_weight(filter: Interpolation, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        Interpolation::Bilinear => (1.0 - x).max(0.0),
        Interpolation::Bicubic => {
            const A: f64 = -0.5;
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        }
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
    /// One row of the crop with room after it, so that pixels can be read four bytes at a time and every output
    /// can read the same number of taps.
    padded_row: Vec<u8>,
    /// Interleaved pixels of planes that are resampled again.
    pub interleaved: Vec<u8>,
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

/// Resizes `crop` of `image` to `full_width` × `full_height` and leaves the part `wanted` of that in `out`.
///
/// `crop` must lie inside the image and `wanted` inside the result.
pub fn resample(
    image: ImageRef<'_>,
    crop: Rect,
    (full_width, full_height): (u32, u32),
    wanted: Rect,
    filter: Interpolation,
    scratch: &mut ResampleScratch,
    out: &mut Planes<u8>,
) {
    let ResampleScratch { horizontal, vertical, lines, quads, padded_row, .. } = scratch;
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
    quads.resize(4 * width * height, 0);
    if is_vertical_first(crop, full_width, full_height) {
        lines.resize(height * source.len, 0);
        resample_columns(source, first_row as usize, vertical, lines);
        let lines = Rows { bytes: lines, start: 0, stride: source.len, len: source.len };
        resample_rows(lines, horizontal, padded_row, quads);
    } else {
        let num_rows = (end_row - first_row) as usize;
        lines.resize(num_rows * 4 * width, 0);
        resample_rows(source, horizontal, padded_row, lines);
        let lines = Rows { bytes: lines, start: 0, stride: 4 * width, len: 4 * width };
        resample_columns(lines, first_row as usize, vertical, quads);
    }
    out.reshape(width, height);
    split_channels(quads, out);
}

/// Pixels are rounded to bytes between the passes, so that the order shows. Pillow 13 begins with the columns
/// where that removes more than twice as many rows as the other order would remove columns (found by comparing
/// its result with that of two separate passes for thousands of sizes); older versions always begin with rows.
fn is_vertical_first(crop: Rect, width: u32, height: u32) -> bool {
    let removed = |from: u32, to: u32| i64::from(from) - i64::from(to);
    height < crop.height && removed(crop.height, height) > 2 * removed(crop.width, width)
}

dispatched! {
    /// Writes four bytes a pixel; the fourth is of no use but makes a pixel one vector of four lanes.
    fn resample_rows(source: Rows<'_>, coefficients: &Coefficients, padded_row: &mut Vec<u8>, out: &mut [u8]) {
        padded_row.clear();
        padded_row.resize(source.len + 3 * coefficients.stride + 1, 0);
        for (y, target) in out.chunks_exact_mut(4 * coefficients.starts.len()).enumerate() {
            padded_row[..source.len].copy_from_slice(&source.bytes[source.start + y * source.stride..][..source.len]);
            // Unused taps have weight 0, so that all outputs can take the same number of them; the usual
            // numbers (shrinking up to 3 times) are unrolled.
            match coefficients.stride {
                3 => resample_row::<3>(padded_row, coefficients, target),
                5 => resample_row::<5>(padded_row, coefficients, target),
                7 => resample_row::<7>(padded_row, coefficients, target),
                _ => resample_long_row(padded_row, coefficients, target),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn resample_row<const TAPS: usize>(row: &[u8], coefficients: &Coefficients, target: &mut [u8]) {
    let weights = coefficients.weights.as_chunks::<TAPS>().0;
    for ((to, weights), &first) in target.as_chunks_mut::<4>().0.iter_mut().zip(weights).zip(&coefficients.starts) {
        let taps = &row[3 * first as usize..][..=3 * TAPS];
        let mut sums = [1_i32 << (PRECISION_BITS - 1); 4];
        for tap in 0..TAPS {
            for lane in 0..4 {
                sums[lane] += weights[tap] * i32::from(taps[3 * tap + lane]);
            }
        }
        *to = sums.map(clip);
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn resample_long_row(row: &[u8], coefficients: &Coefficients, target: &mut [u8]) {
    for (x, to) in target.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (first, weights) = coefficients.taps(x);
        let taps = &row[3 * first..][..=3 * weights.len()];
        let mut sums = [1_i32 << (PRECISION_BITS - 1); 4];
        for (tap, &weight) in weights.iter().enumerate() {
            let pixel: [u8; 4] = taps[3 * tap..3 * tap + 4].try_into().unwrap_or_default();
            for lane in 0..4 {
                sums[lane] += weight * i32::from(pixel[lane]);
            }
        }
        *to = sums.map(clip);
    }
}

dispatched! {
    fn split_channels(quads: &[u8], out: &mut Planes<u8>) {
        let [red, green, blue] = out.split_mut();
        for (((quad, r), g), b) in quads.as_chunks::<4>().0.iter().zip(red).zip(green).zip(blue) {
            (*r, *g, *b) = (quad[0], quad[1], quad[2]);
        }
    }
}

dispatched! {
    fn resample_columns(source: Rows<'_>, first_row: usize, coefficients: &Coefficients, out: &mut [u8]) {
        const LANES: usize = 32;
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
    let mut planes = Planes::default();
    let whole = Rect::whole(image.width, image.height);
    resample(image, whole, (width, height), Rect::whole(width, height), Interpolation::Bilinear, scratch, &mut planes);
    let mut rgb = vec![0; planes.data.len()];
    planes.store(&mut rgb);
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

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
