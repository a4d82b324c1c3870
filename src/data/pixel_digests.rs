//! Which images are the same, to the last pixel.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::Dataset;
use crate::augment::ImageRef;

/// Digest of an image's size and pixels.
pub type PixelDigest = [u8; 32];

/// The digest of an image.
pub fn pixel_digest(image: ImageRef<'_>) -> PixelDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&image.width.to_le_bytes());
    hasher.update(&image.height.to_le_bytes());
    hasher.update(image.rgb);
    *hasher.finalize().as_bytes()
}

/// The digests of all images of a dataset, in their order.
pub fn pixel_digests(dataset: &Dataset) -> Vec<PixelDigest> {
    (0..dataset.len()).into_par_iter().map(|idx| pixel_digest(dataset.image(idx))).collect()
}

/// Images that two datasets share: how many of `test` are in `train`, and the names of the first pair.
pub fn shared_images(train: &Dataset, test: &Dataset) -> Option<(usize, String, String)> {
    let places: BTreeMap<PixelDigest, usize> =
        pixel_digests(train).into_iter().enumerate().map(|(idx, digest)| (digest, idx)).collect();
    let shared: Vec<(usize, usize)> =
        pixel_digests(test).iter().enumerate().filter_map(|(idx, digest)| Some((idx, *places.get(digest)?))).collect();
    let (test_idx, train_idx) = *shared.first()?;
    Some((shared.len(), test.name(test_idx).to_owned(), train.name(train_idx).to_owned()))
}

/// Finds images that are there already, in the order in which they come.
#[derive(Debug)]
pub(super) struct DuplicateFilter<'a> {
    elsewhere: &'a BTreeSet<PixelDigest>,
    /// Names by digest, where images of this dataset count, too.
    here: Option<BTreeMap<PixelDigest, String>>,
}

impl<'a> DuplicateFilter<'a> {
    /// Leaves out images of `elsewhere`, and where `drop_own` is set those that came before.
    pub(super) fn new(elsewhere: &'a BTreeSet<PixelDigest>, drop_own: bool) -> Self {
        Self { elsewhere, here: drop_own.then(BTreeMap::new) }
    }

    /// Whether digests are needed at all.
    pub(super) fn is_active(&self) -> bool {
        self.here.is_some() || !self.elsewhere.is_empty()
    }

    /// Why an image is left out, if it is.
    pub(super) fn reject(&mut self, name: &str, digest: PixelDigest) -> Option<String> {
        if self.elsewhere.contains(&digest) {
            return Some("an image of input `exclude` has the same pixels".into());
        }
        let here = self.here.as_mut()?;
        if let Some(first) = here.get(&digest) {
            return Some(format!("it has the same pixels as `{first}`"));
        }
        here.insert(digest, name.to_owned());
        None
    }
}
