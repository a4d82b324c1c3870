//! Gaussian blur as Pillow's `ImageFilter.GaussianBlur` computes it (`libImaging/BoxBlur.c`): three extended box
//! blurs in each direction (Gwosdek et al. 2011), equal to it bit for bit. It is what the reference implementation
//! of SimSiam uses. Away from the edges the true Gaussian is within about three levels; at the edges every pass
//! repeats the edge pixels anew, which differs more.

use super::planes::Planes;
use crate::kernels::multiversion;

const PASSES: u32 = 3;
/// Rows that go through the passes together.
const ROWS: usize = 8;

/// Buffers that are used again for every image.
#[derive(Clone, Debug, Default)]
pub struct BlurScratch {
    /// A plane after a pass down the columns.
    plane: Vec<u8>,
    /// Rows before and after a pass, their edge pixels repeated on both sides.
    padded_rows: [Vec<u8>; 2],
    /// Sums over the rows inside the box.
    sums: Vec<u16>,
}

/// One box of fractional radius: full weights inside, a fractional one at both ends, in units of 2^−24.
#[derive(Clone, Copy, Debug)]
struct ExtendedBox {
    radius: usize,
    inner: u32,
    edge: u32,
}

impl ExtendedBox {
    /// The box whose third power has the deviation `sigma`.
    fn new(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((length - 1.0) / 2.0).floor();
        let mut fraction = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        fraction /= 6.0 * (variance - (whole + 1.0) * (whole + 1.0));
        let radius = whole + fraction;
        let inner = ((1_u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
        let edge = ((1 << 24) - (radius as u32 * 2 + 1) * inner) / 2;
        Self { radius: radius as usize, inner, edge }
    }

    /// From the sum inside the box and the sum of the two pixels at its ends.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
    fn weigh(self, inside: u16, ends: u16) -> u8 {
        ((u32::from(inside) * self.inner + u32::from(ends) * self.edge + (1 << 23)) >> 24) as u8
    }
}

/// Blurs with standard deviation `sigma` of at most 100 pixels; the edge pixels repeat beyond the edge.
pub fn gaussian_blur(image: &mut Planes<u8>, sigma: f64, scratch: &mut BlurScratch) {
    let sigma = sigma as f32;
    if sigma <= 0.0 || image.area() == 0 {
        return;
    }
    let kernel = ExtendedBox::new(sigma);
    let (width, height) = (image.width, image.height);
    let BlurScratch { plane: spare, padded_rows, sums } = scratch;
    spare.resize(width * height, 0);
    for plane in image.split_mut() {
        for rows in plane.chunks_mut(ROWS * width) {
            blur_rows(rows, width, kernel, padded_rows);
        }
        // Three passes end in the spare plane.
        blur_columns(plane, spare, width, height, kernel, sums);
        blur_columns(spare, plane, width, height, kernel, sums);
        blur_columns(plane, spare, width, height, kernel, sums);
        plane.copy_from_slice(spare);
    }
}

multiversion! {
    /// All passes along some rows, each pass from one set of padded rows to the other. What was just written is not read
    /// at once, which a processor waits for.
    fn blur_rows(rows: &mut [u8], width: usize, kernel: ExtendedBox, padded_rows: &mut [Vec<u8>; 2]) {
        let pad = kernel.radius + 1;
        let (padded_width, inner) = (width + 2 * pad, pad..pad + width);
        let [first, second] = padded_rows;
        let len = rows.len() / width * padded_width;
        first.resize(len, 0);
        second.resize(len, 0);
        for (row, padded) in rows.chunks_exact(width).zip(first.chunks_exact_mut(padded_width)) {
            padded[inner.clone()].copy_from_slice(row);
        }
        for pass in 1..PASSES {
            let (from, to) = if pass % 2 == 1 { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
            for (from, to) in from.chunks_exact_mut(padded_width).zip(to.chunks_exact_mut(padded_width)) {
                repeat_ends(from, pad);
                blur_padded(from, kernel, &mut to[inner.clone()]);
            }
        }
        let last = if PASSES % 2 == 1 { first } else { second };
        for (from, row) in last.chunks_exact_mut(padded_width).zip(rows.chunks_exact_mut(width)) {
            repeat_ends(from, pad);
            blur_padded(from, kernel, row);
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn repeat_ends(padded: &mut [u8], pad: usize) {
    let end = padded.len() - pad;
    let (left, right) = (padded[pad], padded[end - 1]);
    for value in &mut padded[..pad] {
        *value = left;
    }
    for value in &mut padded[end..] {
        *value = right;
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_padded(padded: &[u8], kernel: ExtendedBox, to: &mut [u8]) {
    // The usual radii add all pixels anew, which vectorises; a long box slides along.
    match kernel.radius {
        0 => blur_short_row::<1>(padded, kernel, to),
        1 => blur_short_row::<3>(padded, kernel, to),
        2 => blur_short_row::<5>(padded, kernel, to),
        _ => blur_long_row(padded, kernel, to),
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_short_row<const LENGTH: usize>(padded: &[u8], kernel: ExtendedBox, to: &mut [u8]) {
    const LANES: usize = 32;
    let width = to.len();
    let mut x = 0;
    while x + LANES <= width {
        blur_lanes::<LENGTH, LANES>(&padded[x..], kernel, &mut to[x..x + LANES]);
        // The last vector begins where it ends with the row.
        x = if x + LANES < width { (x + LANES).min(width.saturating_sub(LANES)) } else { width };
    }
    while x < width {
        blur_lanes::<LENGTH, 1>(&padded[x..], kernel, &mut to[x..=x]);
        x += 1;
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_lanes<const LENGTH: usize, const LANES: usize>(padded: &[u8], kernel: ExtendedBox, to: &mut [u8]) {
    let padded = &padded[..=LANES + LENGTH];
    let mut inside = [0_u16; LANES];
    for shift in 1..=LENGTH {
        for lane in 0..LANES {
            inside[lane] += u16::from(padded[shift + lane]);
        }
    }
    let mut blurred = [0; LANES];
    for lane in 0..LANES {
        let ends = u16::from(padded[lane]) + u16::from(padded[lane + LENGTH + 1]);
        blurred[lane] = kernel.weigh(inside[lane], ends);
    }
    to.copy_from_slice(&blurred);
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_long_row(padded: &[u8], kernel: ExtendedBox, to: &mut [u8]) {
    let length = 2 * kernel.radius + 1;
    let mut inside: u16 = padded[..length].iter().map(|&value| u16::from(value)).sum();
    for (x, to) in to.iter_mut().enumerate() {
        let (before, after) = (u16::from(padded[x]), u16::from(padded[x + length + 1]));
        inside = inside + u16::from(padded[x + length]) - before;
        *to = kernel.weigh(inside, before + after);
    }
}

multiversion! {
    /// One pass down the columns; neighbouring columns fill a vector.
    fn blur_columns(
        from: &[u8],
        to: &mut [u8],
        width: usize,
        height: usize,
        kernel: ExtendedBox,
        sums: &mut Vec<u16>,
    ) {
        let last = height - 1;
        let radius = kernel.radius;
        let row = |y: usize| &from[y.min(last) * width..][..width];
        sums.resize(width, 0);
        let sums = &mut sums[..width];
        // The window around row −1: rows −radius − 1 … radius − 1, those before the first being the first.
        for (sum, &value) in sums.iter_mut().zip(row(0)) {
            *sum = u16::from(value) * (radius as u16 + 1);
        }
        for y in 0..radius {
            for (sum, &value) in sums.iter_mut().zip(row(y)) {
                *sum += u16::from(value);
            }
        }
        for y in 0..height {
            let leaves = row(y.saturating_sub(radius + 1));
            let enters = row(y + radius);
            let beyond = row(y + radius + 1);
            let target = &mut to[y * width..][..width];
            for x in 0..width {
                let sum = sums[x] + u16::from(enters[x]) - u16::from(leaves[x]);
                sums[x] = sum;
                target[x] = kernel.weigh(sum, u16::from(leaves[x]) + u16::from(beyond[x]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One pass along a line, one output at a time.
    fn blur_slowly(line: &[u8], kernel: ExtendedBox) -> Vec<u8> {
        let at = |x: i64| u32::from(line[x.clamp(0, line.len() as i64 - 1) as usize]);
        let radius = kernel.radius as i64;
        (0..line.len() as i64)
            .map(|x| {
                let inside: u32 = (x - radius..=x + radius).map(at).sum();
                let ends = at(x - radius - 1) + at(x + radius + 1);
                ((inside * kernel.inner + ends * kernel.edge + (1 << 23)) >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn vectors_give_what_single_sums_give() {
        let mut scratch = BlurScratch::default();
        for (width, height) in [(1, 5), (4, 3), (31, 9), (40, 33), (67, 2)] {
            for sigma in [0.1, 0.7, 1.3, 2.0, 2.9, 7.5] {
                let data: Vec<u8> = (0..3 * width * height).map(|i| (i * i * 31 % 251) as u8).collect();
                let mut slow = Planes { width, height, data };
                let mut fast = slow.clone();
                gaussian_blur(&mut fast, sigma, &mut scratch);
                let kernel = ExtendedBox::new(sigma as f32);
                for plane in slow.split_mut() {
                    for row in plane.chunks_exact_mut(width) {
                        for _ in 0..PASSES {
                            row.copy_from_slice(&blur_slowly(row, kernel));
                        }
                    }
                    for x in 0..width {
                        let mut column: Vec<u8> = (0..height).map(|y| plane[y * width + x]).collect();
                        for _ in 0..PASSES {
                            column = blur_slowly(&column, kernel);
                        }
                        for (y, value) in column.into_iter().enumerate() {
                            plane[y * width + x] = value;
                        }
                    }
                }
                assert_eq!(fast, slow, "{width}×{height} {sigma}");
            }
        }
    }

    #[test]
    fn tiny_images_and_huge_radii_are_fine() {
        for (width, height) in [(1, 1), (1, 7), (3, 2)] {
            for sigma in [0.01, 1.0, 3.0, 100.0] {
                let mut image = Planes { width, height, data: vec![255; 3 * width * height] };
                gaussian_blur(&mut image, sigma, &mut BlurScratch::default());
                assert!(image.data.iter().all(|&value| value >= 254), "{sigma}");
            }
        }
    }
}
