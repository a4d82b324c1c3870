//! Which images of a report's datasets are the same, to the last pixel.

use std::collections::{BTreeMap, BTreeSet};

use super::{StageError, StageReporter};
use crate::{
    data::{
        Dataset,
        pixel_digests::{PixelDigest, pixel_digests},
    },
    report::{build::DatasetInput, summary::SharedImages},
};

/// Notes in each dataset how many of its images are there already, and returns the digests of all. Datasets that hold no
/// images have none.
///
/// # Errors
/// Where the user asked to stop.
pub(super) fn count_duplicates(
    datasets: &[Dataset],
    inputs: &mut [DatasetInput],
    reporter: &dyn StageReporter,
) -> Result<Vec<Vec<PixelDigest>>, StageError> {
    let mut all = vec![];
    for (dataset, input) in datasets.iter().zip(inputs) {
        if reporter.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        let digests = pixel_digests(dataset);
        let distinct: BTreeSet<&PixelDigest> = digests.iter().collect();
        input.num_duplicates = Some((digests.len() - distinct.len()) as u64);
        all.push(digests);
    }
    Ok(all)
}

/// For each two datasets the images of the second that are in the first, too.
pub(super) fn shared_images(
    datasets: &[Dataset],
    inputs: &[DatasetInput],
    digests: &[Vec<PixelDigest>],
) -> Vec<SharedImages> {
    let name = |idx: usize, image: usize| datasets[idx].name(image).to_owned();
    let mut shared = vec![];
    for first in 0..datasets.len() {
        let places: BTreeMap<&PixelDigest, usize> =
            digests[first].iter().enumerate().rev().map(|(idx, digest)| (digest, idx)).collect();
        for second in first + 1..datasets.len() {
            let mut found =
                digests[second].iter().enumerate().filter_map(|(idx, digest)| Some((idx, *places.get(digest)?)));
            if let Some((in_second, in_first)) = found.next() {
                shared.push(SharedImages {
                    datasets: [inputs[first].stage.clone(), inputs[second].stage.clone()],
                    count: 1 + found.count() as u64,
                    example: [name(first, in_first), name(second, in_second)],
                });
            }
        }
    }
    shared
}
