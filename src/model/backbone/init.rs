//! Initial weights: torchvision's (kaiming normal over the fan-out; batch norms scale by 1 and shift by 0).
//!
//! The normal numbers come from ChaCha8 by Marsaglia's polar method with a logarithm of basic arithmetic only, so
//! that the bits are the same on every platform: the logarithm of a C library is not.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::op::{Op, Residual};
use super::parameters::to_internal;
use super::program::Program;

/// Purpose of the random numbers, part of their seed.
const PURPOSE: &[u8; 16] = b"backbone weights";

/// Initial values of all trained tensors in their flat layout.
pub(super) fn initial_values(program: &Program, seed: u64, zero_init_residual: bool) -> Vec<f32> {
    let mut values = vec![0.0; program.num_parameters()];
    let convolutions: Vec<_> = program
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::ConvBn { layer, residual, .. } => Some((layer, residual)),
            Op::GlobalPool { .. } => None,
        })
        .collect();
    // Each tensor has a stream of its own.
    let drawn: Vec<Vec<f32>> = convolutions
        .par_iter()
        .with_max_len(1)
        .map(|(layer, _)| {
            let std = (2.0 / (layer.out_channels * layer.kernel * layer.kernel) as f64).sqrt();
            let mut normal = Normal::new(seed, layer.weight as u64);
            (0..program.parameters[layer.weight].len).map(|_| (normal.draw() * std) as f32).collect()
        })
        .collect();
    for ((layer, residual), weights) in convolutions.into_iter().zip(drawn) {
        let spec = &program.parameters[layer.weight];
        to_internal(&spec.shape, &weights, &mut values[spec.offset..][..spec.len]);
        let spec = &program.parameters[layer.scale];
        let ends_branch = matches!(residual, Residual::BeforeRelu(_));
        let scale = if zero_init_residual && ends_branch { 0.0 } else { 1.0 };
        values[spec.offset..][..spec.len].fill(scale);
    }
    values
}

/// Standard normal numbers.
struct Normal {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64, tensor: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(PURPOSE);
        bytes[16..24].copy_from_slice(&seed.to_le_bytes());
        bytes[24..].copy_from_slice(&tensor.to_le_bytes());
        Self { rng: ChaCha8Rng::from_seed(bytes), spare: None }
    }

    /// Uniform in [-1, 1).
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn draw(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (self.uniform(), self.uniform());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = (-2.0 * ln(s) / s).sqrt();
                self.spare = Some(v * factor);
                return u * factor;
            }
        }
    }
}

/// Natural logarithm of a positive normal number: `x = m 2^e` with m in [√½, √2), ln m = 2 artanh((m-1)/(m+1)).
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & MANTISSA) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    // |t| < 0.172: eleven terms leave less than 1e-17.
    let series = (0..11).rev().fold(0.0, |sum, i| sum * square + 1.0 / f64::from(2 * i + 1));
    2.0 * t * series + f64::from(exponent) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::super::backbone_config::Stem;
    use super::super::resnet::{Block, build_resnet};
    use super::*;

    #[test]
    fn logarithm_agrees_with_the_standard_library() {
        let mut x = 1e-300;
        while x < 1.0 {
            assert!((ln(x) - f64::ln(x)).abs() <= 1e-15 * f64::ln(x).abs().max(1.0), "{x}");
            x *= 1.37;
        }
    }

    #[test]
    fn weights_have_the_mean_and_deviation_of_kaiming() {
        let program = build_resnet(Block::Basic, [2, 2, 2, 2], Stem::Imagenet);
        let values = initial_values(&program, 3, false);
        for spec in program.parameters.iter().filter(|p| p.shape.len() == 4) {
            let w = &values[spec.offset..][..spec.len];
            let n = w.len() as f64;
            let expected = (2.0 / (spec.shape[0] * spec.shape[2] * spec.shape[3]) as f64).sqrt();
            let mean = w.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let std = (w.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n - mean * mean).sqrt();
            assert!(mean.abs() < 5.0 * expected / n.sqrt(), "{}: mean {mean}", spec.name);
            assert!((std / expected - 1.0).abs() < 5.0 / n.sqrt(), "{}: {std} for {expected}", spec.name);
            let beyond_two = w.iter().filter(|v| f64::from(v.abs()) > 2.0 * expected).count() as f64 / n;
            assert!((beyond_two - 0.0455).abs() < 0.02, "{}: {beyond_two}", spec.name);
        }
    }

    #[test]
    fn seed_decides_the_bits() {
        let program = build_resnet(Block::Basic, [1, 1, 1, 1], Stem::Cifar);
        let values = initial_values(&program, 3, false);
        assert_eq!(values, initial_values(&program, 3, false));
        assert_ne!(values, initial_values(&program, 4, false));
        // These must never change: an old seed would mean other weights.
        let bits: Vec<u32> = values[..3].iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1_001_714_741, 3_168_958_193, 1_004_672_787]);
    }

    #[test]
    fn residual_branches_can_start_at_zero() {
        let program = build_resnet(Block::Basic, [2, 2, 2, 2], Stem::Imagenet);
        let values = initial_values(&program, 0, true);
        for spec in program.parameters.iter().filter(|p| p.shape.len() == 1 && p.name.ends_with("weight")) {
            let expected = if spec.name.ends_with("bn2.weight") { 0.0 } else { 1.0 };
            assert!(values[spec.offset..][..spec.len].iter().all(|v| *v == expected), "{}", spec.name);
        }
    }
}
