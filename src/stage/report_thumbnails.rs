//! Small pictures of the images that a report lists, from the datasets that it was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::StageError;
use crate::{
    data::Dataset,
    eval::thumbnails::{THUMBNAIL_SIZE, THUMBNAILS_FILE, Thumbnails},
    report::{
        Summary,
        embedding_map::EmbeddingsInput,
        pictures::{Sprite, sprite, thumbnail},
    },
};

/// JPEG files of the images that classifiers were most wrong about, by file name.
///
/// A classifier's images are looked up in the one dataset of as many images as it was judged by that holds all
/// of them. Where none or several do, as when both splits use the same names, there are no pictures rather than
/// wrong ones.
pub(super) fn mistake_thumbnails(summary: &Summary, datasets: &[Dataset]) -> BTreeMap<String, Vec<u8>> {
    // Which images of which dataset.
    let mut wanted: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); datasets.len()];
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    let mut doubtful: BTreeSet<&str> = BTreeSet::new();
    for classifier in &summary.classifiers {
        let files: Vec<&str> = classifier.mistakes.iter().map(|mistake| mistake.file.as_str()).collect();
        let found: Vec<(usize, Vec<usize>)> = datasets
            .iter()
            .enumerate()
            .filter(|(_, dataset)| dataset.len() as u64 == classifier.num_test)
            .filter_map(|(idx, dataset)| Some((idx, places(dataset, &files)?)))
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
    for (dataset, wanted) in datasets.iter().zip(wanted) {
        for idx in wanted {
            let (name, image) = (dataset.name(idx), dataset.image(idx));
            if doubtful.contains(name) {
                continue;
            }
            if let Some(jpeg) = thumbnail(image.width, image.height, image.rgb) {
                thumbnails.insert(name.to_owned(), jpeg);
            }
        }
    }
    thumbnails
}

/// The pictures of the map's points; nothing where the artifact has none.
///
/// # Errors
/// Where pictures are damaged.
pub(super) fn map_sprite(dir: &Path, embeddings: &EmbeddingsInput) -> Result<Option<Sprite>, StageError> {
    let Some(thumbnails) = open_thumbnails(dir)? else { return Ok(None) };
    let pictures: Vec<Vec<u8>> =
        embeddings.shown().into_iter().map(|idx| thumbnails.rgb(&embeddings.split, idx)).collect::<Result<_, _>>()?;
    Ok(sprite(&pictures, THUMBNAIL_SIZE as u32))
}

/// For each row of neighbours the image itself and its neighbours, as JPEG files; nothing where the artifact has none.
///
/// # Errors
/// Where pictures are damaged.
pub(super) fn neighbour_thumbnails(dir: &Path, embeddings: &EmbeddingsInput) -> Result<Vec<Vec<Vec<u8>>>, StageError> {
    let Some(thumbnails) = open_thumbnails(dir)? else { return Ok(vec![]) };
    let side = THUMBNAIL_SIZE as u32;
    let picture = |split: &str, idx: usize| -> Result<Vec<u8>, StageError> {
        Ok(thumbnail(side, side, &thumbnails.rgb(split, idx)?).unwrap_or_default())
    };
    embeddings
        .neighbours
        .iter()
        .map(|row| {
            let nearest = row.nearest.iter().map(|(_, idx)| picture("train", *idx as usize));
            std::iter::once(picture(&embeddings.split, row.row)).chain(nearest).collect()
        })
        .collect()
}

/// Artifacts of earlier versions have no pictures.
fn open_thumbnails(dir: &Path) -> Result<Option<Thumbnails>, StageError> {
    if !dir.join(THUMBNAILS_FILE).exists() {
        return Ok(None);
    }
    Ok(Some(Thumbnails::open(dir)?))
}

/// Where each of `files` stands in a dataset, if all do.
fn places(dataset: &Dataset, files: &[&str]) -> Option<Vec<usize>> {
    let by_name: BTreeMap<&str, usize> = dataset.names().enumerate().map(|(idx, name)| (name, idx)).collect();
    files.iter().map(|file| by_name.get(file).copied()).collect()
}
