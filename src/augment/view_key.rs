//! What decides the randomness of a view, and nothing else does.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The four numbers that decide a view's random parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch from 0.
    pub epoch: u32,
    /// Index of the image in its dataset.
    pub image_idx: u64,
    /// Which view of the image in this epoch: 0 or 1 in pretraining.
    pub view: u32,
}

impl ViewKey {
    /// A generator of this view's own.
    pub fn rng(self) -> ChaCha8Rng {
        let mut bytes = [0; 32];
        bytes[0..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.image_idx.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.view.to_le_bytes());
        bytes[24..32].copy_from_slice(b"view\0\0\0\0");
        ChaCha8Rng::from_seed(bytes)
    }
}

/// Uniform in [0, 1) with 53 bits. Written out here so that a new version of `rand` cannot change a run.
pub fn unit<R: Rng>(rng: &mut R) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Uniform in [low, high).
pub fn uniform<R: Rng>(rng: &mut R, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(rng)
}

/// A whole number in [0, n); 0 for n = 0. The bias of the multiplication is below n / 2^64.
pub fn below<R: Rng>(rng: &mut R, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// True with probability p.
pub fn chance<R: Rng>(rng: &mut R, p: f64) -> bool {
    unit(rng) < p
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ViewKey = ViewKey { seed: 1, epoch: 2, image_idx: 3, view: 0 };

    #[test]
    fn each_part_of_the_key_changes_the_stream() {
        let first = KEY.rng().next_u64();
        assert_eq!(first, KEY.rng().next_u64());
        for other in [
            ViewKey { seed: 2, ..KEY },
            ViewKey { epoch: 3, ..KEY },
            ViewKey { image_idx: 4, ..KEY },
            ViewKey { view: 1, ..KEY },
        ] {
            assert_ne!(first, other.rng().next_u64(), "{other:?}");
        }
    }

    #[test]
    fn whole_numbers_cover_their_range_evenly() {
        let mut rng = KEY.rng();
        let mut counts = [0_u32; 7];
        for _ in 0..7000 {
            counts[below(&mut rng, 7) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
        assert_eq!(below(&mut rng, 0), 0);
        assert_eq!(below(&mut rng, 1), 0);
    }
}
