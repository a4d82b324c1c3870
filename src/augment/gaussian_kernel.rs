//! Gaussian blur with a kernel of fixed width, as torchvision's `GaussianBlur(kernel_size, sigma)`: the kernel is cut
//! off at its width, and the image is mirrored beyond its edge.

use super::{flip::mirror, planes::Planes, portable_math::exp};

/// Buffers that are used again for every image.
#[derive(Clone, Debug, Default)]
pub struct KernelScratch {
    kernel: Vec<f32>,
    padded: Vec<f32>,
    rows: Vec<f32>,
}

/// Blurs with a kernel of `kernel_size` pixels (odd) and the standard deviation `sigma`.
pub fn blur_with_kernel(image: &mut Planes<u8>, kernel_size: u32, sigma: f64, scratch: &mut KernelScratch) {
    let (width, height) = (image.width, image.height);
    if image.area() == 0 || sigma <= 0.0 {
        return;
    }
    let KernelScratch { kernel, padded, rows } = scratch;
    plan_kernel(kernel_size as usize | 1, sigma, kernel);
    let half = kernel.len() / 2;
    rows.resize(width * height, 0.0);
    for plane in image.split_mut() {
        for (row, out) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
            padded.clear();
            padded.extend(
                (0..width + 2 * half).map(|x| f32::from(row[mirror(x as i64 - half as i64, width as i64, false)])),
            );
            for (x, to) in out.iter_mut().enumerate() {
                *to = kernel.iter().zip(&padded[x..]).map(|(weight, value)| weight * value).sum();
            }
        }
        for (y, line) in plane.chunks_exact_mut(width).enumerate() {
            padded.clear();
            padded.resize(width, 0.0);
            for (tap, weight) in kernel.iter().enumerate() {
                let from = mirror(y as i64 + tap as i64 - half as i64, height as i64, false);
                for (sum, value) in padded.iter_mut().zip(&rows[from * width..][..width]) {
                    *sum += weight * value;
                }
            }
            for (to, &sum) in line.iter_mut().zip(&*padded) {
                *to = sum.round_ties_even() as u8;
            }
        }
    }
}

fn plan_kernel(len: usize, sigma: f64, kernel: &mut Vec<f32>) {
    let half = (len / 2) as f64;
    let weight = |idx: usize| {
        let distance = (idx as f64 - half) / sigma;
        // Further out nothing is left in single precision.
        let exponent = -0.5 * distance * distance;
        if exponent < -20.0 { 0.0 } else { exp(exponent) }
    };
    let sum: f64 = (0..len).map(weight).sum();
    kernel.clear();
    kernel.extend((0..len).map(|idx| (weight(idx) / sum) as f32));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_images_stay_flat_whatever_the_kernel() {
        for (width, height) in [(1, 1), (2, 9), (7, 1)] {
            for (kernel_size, sigma) in [(1, 1.0), (3, 0.01), (23, 2.0), (255, 100.0)] {
                let mut image = Planes { width, height, data: vec![201; 3 * width * height] };
                blur_with_kernel(&mut image, kernel_size, sigma, &mut KernelScratch::default());
                assert!(image.data.iter().all(|&value| value == 201), "{width}×{height} {kernel_size} {sigma}");
            }
        }
    }
}
