//! Randomness of evaluation: a generator for each purpose, decided by numbers and nothing else.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator of one purpose: the pipeline's `seed`, an eight-byte tag and an index decide it.
pub(crate) fn seeded_rng(seed: u64, purpose: [u8; 8], idx: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&purpose);
    bytes[16..24].copy_from_slice(&idx.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// A number in 0..bound. Written out so that a new version of `rand` cannot change old results; the bias of
/// at most bound / 2⁶⁴ is far below anything measurable.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_up_about_as_often() {
        let mut rng = seeded_rng(7, *b"testing ", 0);
        let mut counts = [0_u32; 5];
        for _ in 0..5_000 {
            counts[below(&mut rng, 5)] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn each_of_seed_purpose_and_index_gives_other_numbers() {
        let first = |seed, purpose, idx| seeded_rng(seed, purpose, idx).next_u64();
        let base = first(1, *b"testing ", 2);
        assert_eq!(base, first(1, *b"testing ", 2));
        assert_ne!(base, first(2, *b"testing ", 2));
        assert_ne!(base, first(1, *b"testinh ", 2));
        assert_ne!(base, first(1, *b"testing ", 3));
    }
}
