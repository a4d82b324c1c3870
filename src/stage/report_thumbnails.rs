//! Small pictures of the images that a report lists, from the datasets that it was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::StageError;
use crate::{
    data::Dataset,
    report::{Summary, build::DatasetInput, pictures::thumbnail},
};

/// JPEG files of the images that classifiers were most wrong about, by file name.
///
/// A classifier's images are looked up in the one dataset of as many images as it was judged by that holds all
/// of them. Where none or several do, as when both splits use the same names, there are no pictures rather than
/// wrong ones.
///
/// # Errors
/// Where a dataset cannot be read or is not as expected.
pub(super) fn mistake_thumbnails(
    summary: &Summary,
    datasets: &[(&Path, &DatasetInput)],
) -> Result<BTreeMap<String, Vec<u8>>, StageError> {
    // Which images of which dataset.
    let mut wanted: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); datasets.len()];
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    let mut doubtful: BTreeSet<&str> = BTreeSet::new();
    for classifier in &summary.classifiers {
        let files: Vec<&str> = classifier.mistakes.iter().map(|mistake| mistake.file.as_str()).collect();
        let found: Vec<(usize, Vec<usize>)> = datasets
            .iter()
            .enumerate()
            .filter(|(_, (_, dataset))| dataset.card.num_images == classifier.num_test)
            .filter_map(|(idx, (_, dataset))| Some((idx, places(&dataset.card.file_names, &files)?)))
            .collect();
        if let [(idx, places)] = found.as_slice() {
            wanted[*idx].extend(places);
            for &file in &files {
                // Pictures go by file name alone: two datasets may not claim the same one.
                if *sources.entry(file).or_insert(*idx) != *idx {
                    doubtful.insert(file);
                }
            }
        }
    }
    let mut thumbnails = BTreeMap::new();
    for ((dir, dataset), wanted) in datasets.iter().zip(wanted) {
        if wanted.is_empty() {
            continue;
        }
        let store = Dataset::open(dir)?;
        for idx in wanted {
            let Some(name) = dataset.card.file_names.get(idx).filter(|name| !doubtful.contains(name.as_str())) else {
                continue;
            };
            let image = store.image(idx);
            if let Some(jpeg) = thumbnail(image.width, image.height, image.rgb) {
                thumbnails.insert(name.clone(), jpeg);
            }
        }
    }
    Ok(thumbnails)
}

/// Where each of `files` stands in `names`, if all do.
fn places(names: &[String], files: &[&str]) -> Option<Vec<usize>> {
    let by_name: BTreeMap<&str, usize> = names.iter().enumerate().map(|(idx, name)| (name.as_str(), idx)).collect();
    files.iter().map(|file| by_name.get(file).copied()).collect()
}
