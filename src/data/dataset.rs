//! A dataset artifact, opened by memory maps.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{
    DataError, DatasetCard,
    pixel_sums::PixelSums,
    runs::run_file,
    store_writer::{CARD_FILE, FORMAT, IMAGES_FILE},
};
use crate::augment::ImageRef;

/// Decoded images with their labels. Pixels stay in their files until they are looked at.
#[derive(Debug)]
pub struct Dataset {
    dir: PathBuf,
    /// Pixels of a run of images, one file each.
    maps: Vec<Mmap>,
    /// Index of the first image of each run, and the number of images in the end.
    firsts: Vec<usize>,
    /// Which run an image is in and where its pixels begin there.
    places: Vec<(u32, usize)>,
    sizes: Vec<[u32; 2]>,
    /// −1 where there is none.
    labels: Vec<i64>,
    sums: Vec<PixelSums>,
    card: DatasetCard,
}

/// A run of images whose pixels lie in one file.
#[derive(Debug)]
pub(super) struct RunOfImages {
    /// The file.
    pub(super) path: PathBuf,
    /// How many images it holds.
    pub(super) len: usize,
}

impl Dataset {
    /// Opens the artifact in `dir` and checks that everything in it fits together.
    ///
    /// # Errors
    /// When a file is missing, damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let card = read_card(&dir.join(CARD_FILE))?;
        let path = dir.join(IMAGES_FILE);
        let bytes =
            std::fs::read(&path).map_err(|source| DataError::Io { action: "open", path: path.clone(), source })?;
        let mut dataset = Self::from_tables(&bytes, dir, card)
            .map_err(|message| DataError::Artifact { path: path.clone(), message })?;
        for run in 0..dataset.firsts.len() - 1 {
            let map = dataset.map_run(run)?;
            dataset.maps.push(map);
        }
        Ok(dataset)
    }

    fn from_tables(bytes: &[u8], dir: &Path, card: DatasetCard) -> Result<Self, String> {
        let num_images = usize::try_from(card.num_images).map_err(|_| "it claims too many images".to_owned())?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| format!("bad header: {error}"))?;
        let read = |name: &str, dtype: Dtype, shape: &[Option<usize>]| {
            let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
            let fits = tensor.shape().len() == shape.len()
                && tensor.shape().iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|side| side == *found));
            if tensor.dtype() != dtype || !fits {
                return Err(format!("`{name}` is {:?} {:?}", tensor.dtype(), tensor.shape()));
            }
            Ok(tensor.data())
        };
        let words = |bytes: &[u8]| -> Vec<u64> { bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect() };
        let n = Some(num_images);
        let labels: Vec<i64> =
            read("labels", Dtype::I64, &[n])?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let sides: Vec<u32> =
            read("sizes", Dtype::U32, &[n, Some(2)])?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let sizes: Vec<[u32; 2]> = sides.as_chunks().0.to_vec();
        let sums = words(read("sums", Dtype::U64, &[n, Some(2), Some(3)])?);
        let sums = sums
            .as_chunks()
            .0
            .iter()
            .map(|[a, b, c, d, e, f]| PixelSums { values: [*a, *b, *c], squares: [*d, *e, *f] });
        let sums = sums.collect();
        let firsts = words(read("runs", Dtype::U64, &[None])?);
        let firsts: Option<Vec<usize>> = firsts.into_iter().map(|first| usize::try_from(first).ok()).collect();
        let firsts =
            firsts.filter(|firsts| are_runs(firsts, num_images)).ok_or("its runs are not those of its images")?;
        check_labels(&labels, &card)?;
        let places = places(&firsts, &sizes)?;
        Ok(Self { dir: dir.to_path_buf(), maps: vec![], firsts, places, sizes, labels, sums, card })
    }

    /// Maps the file of a run, whose length must be that of its images.
    fn map_run(&self, run: usize) -> Result<Mmap, DataError> {
        let path = self.dir.join(run_file(run));
        let io_error = |source| DataError::Io { action: "open", path: path.clone(), source };
        let file = File::open(&path).map_err(io_error)?;
        // SAFETY: artifacts are immutable once visible; nothing in this program writes to one.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        let last = self.firsts[run + 1] - 1;
        let wanted = self.places[last].1 + num_bytes(self.sizes[last]);
        if map.len() != wanted {
            let message = format!("it has {} bytes, not the {wanted} of its images", map.len());
            return Err(DataError::Artifact { path: path.clone(), message });
        }
        Ok(map)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The image at `idx`, which must be below [`Self::len`].
    pub fn image(&self, idx: usize) -> ImageRef<'_> {
        let [width, height] = self.sizes[idx];
        let (run, start) = self.places[idx];
        ImageRef { width, height, rgb: &self.maps[run as usize][start..start + num_bytes([width, height])] }
    }

    /// Sums over the pixels of the image at `idx`, as they were when it was stored.
    pub(super) fn sums(&self, idx: usize) -> &PixelSums {
        &self.sums[idx]
    }

    /// The run that begins with the image at `idx`, if one does.
    pub(super) fn run_from(&self, idx: usize) -> Option<RunOfImages> {
        let run = self.places[idx].0 as usize;
        (self.firsts[run] == idx)
            .then(|| RunOfImages { path: self.dir.join(run_file(run)), len: self.firsts[run + 1] - idx })
    }

    /// The class of the image at `idx`, an index into the card's class names.
    pub fn label(&self, idx: usize) -> Option<u32> {
        u32::try_from(self.labels[idx]).ok()
    }

    /// The classes of all images, where every image has one.
    pub fn labels(&self) -> Option<Vec<u32>> {
        self.labels.iter().map(|&label| u32::try_from(label).ok()).collect()
    }

    /// Class names, file names, statistics.
    pub fn card(&self) -> &DatasetCard {
        &self.card
    }
}

fn read_card(path: &Path) -> Result<DatasetCard, DataError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| DataError::Io { action: "read", path: path.into(), source })?;
    let fail = |message: String| DataError::Artifact { path: path.into(), message };
    let card: DatasetCard = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    if card.format != FORMAT {
        return Err(fail(format!("format {} instead of {FORMAT}", card.format)));
    }
    if card.file_names.len() as u64 != card.num_images || card.class_counts.len() != card.class_names.len() {
        return Err(fail("its lists do not have the lengths that it claims".into()));
    }
    Ok(card)
}

fn num_bytes([width, height]: [u32; 2]) -> usize {
    width as usize * height as usize * 3
}

/// Whether these are the first images of runs that are not empty, with the number of images in the end.
fn are_runs(firsts: &[usize], num_images: usize) -> bool {
    firsts.first() == Some(&0) && firsts.last() == Some(&num_images) && firsts.is_sorted_by(|a, b| a < b)
}

/// The run of each image, and where its pixels begin there.
fn places(firsts: &[usize], sizes: &[[u32; 2]]) -> Result<Vec<(u32, usize)>, String> {
    let mut places = Vec::with_capacity(sizes.len());
    for (run, rows) in firsts.windows(2).enumerate() {
        let mut start = 0_usize;
        for (row, &[width, height]) in sizes[rows[0]..rows[1]].iter().enumerate() {
            places.push((run as u32, start));
            let len = (width as usize).checked_mul(height as usize).and_then(|pixels| pixels.checked_mul(3));
            start = len
                .filter(|len| *len > 0)
                .and_then(|len| start.checked_add(len))
                .ok_or_else(|| format!("image {} cannot have a size of {width}×{height}", rows[0] + row))?;
        }
    }
    Ok(places)
}

fn check_labels(labels: &[i64], card: &DatasetCard) -> Result<(), String> {
    let num_classes = card.class_names.len() as i64;
    match labels.iter().position(|&label| label < -1 || label >= num_classes) {
        Some(idx) => Err(format!("image {idx} has label {} of {num_classes} classes", labels[idx])),
        None => Ok(()),
    }
}
