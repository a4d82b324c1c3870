//! Random generators that depend on what they are for and on nothing else.

use rand::SeedableRng;
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

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn purposes_and_numbers_give_different_streams() {
        let first = |seed, purpose, numbers: &[u64]| seeded_rng(seed, purpose, numbers).next_u64();
        assert_eq!(first(1, "view", &[2, 3]), first(1, "view", &[2, 3]));
        let others = [first(2, "view", &[2, 3]), first(1, "views", &[2, 3]), first(1, "view", &[3, 2])];
        assert!(others.iter().all(|other| *other != first(1, "view", &[2, 3])));
    }
}
