//! Small pictures of the images that a report lists, from the datasets that it was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::StageError;
use crate::report::{Summary, build::DatasetInput, pictures::thumbnail};

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
        let path = dir.join("images.safetensors");
        let broken = |message: &str| StageError::Artifact { path: path.clone(), message: message.to_owned() };
        let io_error = |source| StageError::Io { action: "read", path: path.clone(), source };
        let file = File::open(&path).map_err(io_error)?;
        // SAFETY: artifacts are immutable once visible; nothing in this program writes to one.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        let tensors = SafeTensors::deserialize(&map).map_err(|error| broken(&error.to_string()))?;
        for idx in wanted {
            let Some(name) = dataset.card.file_names.get(idx).filter(|name| !doubtful.contains(name.as_str())) else {
                continue;
            };
            let (width, height, rgb) =
                image_at(&tensors, idx).ok_or_else(|| broken(&format!("image {idx} lies outside of the store")))?;
            if let Some(jpeg) = thumbnail(width, height, rgb) {
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

/// Width, height and RGB bytes of an image in a dataset's store.
fn image_at<'a>(tensors: &SafeTensors<'a>, idx: usize) -> Option<(u32, u32, &'a [u8])> {
    let typed = |name: &str, dtype: Dtype| tensors.tensor(name).ok().filter(|tensor| tensor.dtype() == dtype);
    let (pixels, offsets, sizes) =
        (typed("pixels", Dtype::U8)?, typed("offsets", Dtype::U64)?, typed("sizes", Dtype::U32)?);
    let offset = |at: usize| usize::try_from(u64::from_le_bytes(bytes_at(&offsets, at)?)).ok();
    let side = |at: usize| Some(u32::from_le_bytes(bytes_at(&sizes, at)?));
    let (width, height) = (side(2 * idx)?, side(2 * idx + 1)?);
    Some((width, height, pixels.data().get(offset(idx)?..offset(idx + 1)?)?))
}

fn bytes_at<const N: usize>(tensor: &TensorView<'_>, at: usize) -> Option<[u8; N]> {
    tensor.data().get(at.checked_mul(N)?..(at + 1).checked_mul(N)?)?.try_into().ok()
}
