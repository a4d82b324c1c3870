//! What decides the randomness of a view, and nothing else does.

use rand::SeedableRng;
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

#[cfg(test)]
mod tests {
    use rand::Rng;

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
}
