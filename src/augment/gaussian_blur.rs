//! Gaussian blur as Pillow's `ImageFilter.GaussianBlur` computes it (`libImaging/BoxBlur.c`): three extended box
//! blurs in each direction (Gwosdek et al. 2011), equal to it bit for bit. It is what the reference implementation
//! of SimSiam uses, and its cost does not depend on the radius. Away from the edges the true Gaussian is within about
//! three levels; at the edges every pass repeats the edge pixels anew, which differs more.

use super::{flip::transpose, planes::Planes, simd::dispatched};

const PASSES: u32 = 3;

/// Buffers that are used again for every image.
#[derive(Clone, Debug, Default)]
pub struct BlurScratch {
    spare: Planes<u8>,
    sums: Vec<u32>,
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
}

/// Blurs with standard deviation `sigma` in pixels; the edge pixels repeat beyond the edge.
pub fn gaussian_blur(image: &mut Planes<u8>, sigma: f64, scratch: &mut BlurScratch) {
    let sigma = sigma as f32;
    if sigma <= 0.0 || image.area() == 0 {
        return;
    }
    let kernel = ExtendedBox::new(sigma);
    let BlurScratch { spare, sums } = scratch;
    // Boxes run down the columns, where neighbouring columns fill a vector; rows are columns of the transpose.
    transpose(image, spare);
    blur_columns(spare, image, kernel, sums);
    transpose(spare, image);
    blur_columns(image, spare, kernel, sums);
}

/// Three passes down the columns; the result is in `image` again.
fn blur_columns(image: &mut Planes<u8>, spare: &mut Planes<u8>, kernel: ExtendedBox, sums: &mut Vec<u32>) {
    spare.reshape(image.width, image.height);
    sums.resize(image.width, 0);
    for _ in 0..PASSES {
        let (width, height) = (image.width, image.height);
        for (from, to) in image.split().into_iter().zip(spare.split_mut()) {
            box_blur_columns(from, to, width, height, kernel, sums);
        }
        std::mem::swap(image, spare);
    }
}

dispatched! {
    fn box_blur_columns(
        from: &[u8],
        to: &mut [u8],
        width: usize,
        height: usize,
        kernel: ExtendedBox,
        sums: &mut [u32],
    ) {
        let last = height - 1;
        let radius = kernel.radius;
        let row = |y: usize| &from[y.min(last) * width..][..width];
        let sums = &mut sums[..width];
        // The window around row −1: rows −radius − 1 … radius − 1, those before the first being the first.
        for (sum, &value) in sums.iter_mut().zip(row(0)) {
            *sum = u32::from(value) * (radius as u32 + 1);
        }
        for y in 0..radius {
            for (sum, &value) in sums.iter_mut().zip(row(y)) {
                *sum += u32::from(value);
            }
        }
        for y in 0..height {
            let leaves = row(y.saturating_sub(radius + 1));
            let enters = row(y + radius);
            let beyond = row(y + radius + 1);
            let target = &mut to[y * width..][..width];
            for x in 0..width {
                let sum = sums[x] + u32::from(enters[x]) - u32::from(leaves[x]);
                sums[x] = sum;
                let weighted = sum * kernel.inner + (u32::from(leaves[x]) + u32::from(beyond[x])) * kernel.edge;
                target[x] = ((weighted + (1 << 23)) >> 24) as u8;
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
            let mut image = Planes { width, height, data: vec![77; 3 * width * height] };
            gaussian_blur(&mut image, 50.0, &mut BlurScratch::default());
            assert!(image.data.iter().all(|&value| value.abs_diff(77) <= 1));
        }
    }
}
