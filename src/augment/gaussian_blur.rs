//! Gaussian blur as Pillow's `ImageFilter.GaussianBlur` computes it (`libImaging/BoxBlur.c`): three extended box
//! blurs in each direction (Gwosdek et al. 2011), equal to it bit for bit. It is what the reference implementation
//! of SimSiam uses. Away from the edges the true Gaussian is within about three levels; at the edges every pass
//! repeats the edge pixels anew, which differs more.

use super::{planes::Planes, simd::dispatched};

const PASSES: u32 = 3;

/// Buffers that are used again for every image.
#[derive(Clone, Debug, Default)]
pub struct BlurScratch {
    /// A plane after a pass down the columns.
    plane: Vec<u8>,
    /// A row with its edge pixels repeated on both sides.
    padded_row: Vec<u8>,
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
    let BlurScratch { plane: spare, padded_row, sums } = scratch;
    spare.resize(width * height, 0);
    for plane in image.split_mut() {
        for row in plane.chunks_exact_mut(width) {
            blur_row(row, kernel, padded_row);
        }
        // Three passes end in the spare plane.
        blur_columns(plane, spare, width, height, kernel, sums);
        blur_columns(spare, plane, width, height, kernel, sums);
        blur_columns(plane, spare, width, height, kernel, sums);
        plane.copy_from_slice(spare);
    }
}

dispatched! {
    /// All passes along a row.
    fn blur_row(row: &mut [u8], kernel: ExtendedBox, padded_row: &mut Vec<u8>) {
        let pad = kernel.radius + 1;
        let width = row.len();
        padded_row.resize(width + 2 * pad, 0);
        for _ in 0..PASSES {
            padded_row[..pad].fill(row[0]);
            padded_row[pad..pad + width].copy_from_slice(row);
            padded_row[pad + width..].fill(row[width - 1]);
            // The usual radii add all pixels anew, which vectorises; a long box slides along.
            match kernel.radius {
                0 => blur_short_row::<1>(row, kernel, padded_row),
                1 => blur_short_row::<3>(row, kernel, padded_row),
                2 => blur_short_row::<5>(row, kernel, padded_row),
                _ => blur_long_row(row, kernel, padded_row),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_short_row<const LENGTH: usize>(row: &mut [u8], kernel: ExtendedBox, padded_row: &[u8]) {
    let width = row.len();
    let shifted: [&[u8]; LENGTH] = std::array::from_fn(|shift| &padded_row[1 + shift..][..width]);
    let (before, after) = (&padded_row[..width], &padded_row[1 + LENGTH..][..width]);
    for x in 0..width {
        let mut inside = 0;
        for line in &shifted {
            inside += u16::from(line[x]);
        }
        row[x] = kernel.weigh(inside, u16::from(before[x]) + u16::from(after[x]));
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn blur_long_row(row: &mut [u8], kernel: ExtendedBox, padded_row: &[u8]) {
    let length = 2 * kernel.radius + 1;
    let mut inside: u16 = padded_row[..length].iter().map(|&value| u16::from(value)).sum();
    for (x, to) in row.iter_mut().enumerate() {
        let (before, after) = (u16::from(padded_row[x]), u16::from(padded_row[x + length + 1]));
        inside = inside + u16::from(padded_row[x + length]) - before;
        *to = kernel.weigh(inside, before + after);
    }
}

dispatched! {
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
