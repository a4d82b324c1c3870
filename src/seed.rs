//! Random generators that depend on what they are for and on nothing else, and the numbers drawn from them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose: the same seed, purpose and numbers (an epoch, an image, a view) always give the
/// same stream, and different ones give streams that have nothing to do with each other.
pub fn seeded_rng(seed: u64, purpose: &str, numbers: &[u64]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
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

    #[test]
    fn purposes_and_numbers_give_different_streams() {
        let first = |seed, purpose, numbers: &[u64]| seeded_rng(seed, purpose, numbers).next_u64();
        assert_eq!(first(1, "view", &[2, 3]), first(1, "view", &[2, 3]));
        let others = [first(2, "view", &[2, 3]), first(1, "views", &[2, 3]), first(1, "view", &[3, 2])];
        assert!(others.iter().all(|other| *other != first(1, "view", &[2, 3])));
    }

    #[test]
    fn whole_numbers_cover_their_range_evenly() {
        let mut rng = seeded_rng(1, "test", &[]);
        let mut counts = [0_u32; 7];
        for _ in 0..7000 {
            counts[below(&mut rng, 7) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
        assert_eq!(below(&mut rng, 0), 0);
        assert_eq!(below(&mut rng, 1), 0);
    }
}
