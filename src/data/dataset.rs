//! A dataset artifact, opened by memory maps.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use rayon::prelude::*;

use super::{
    DataError, DatasetCard, image_table::ImageTable, pixel_sums::PixelSums, runs::run_file, store_writer::IMAGES_FILE,
};
use crate::augment::ImageRef;

/// Decoded images with their labels. Pixels stay in their files until they are looked at.
#[derive(Debug)]
pub struct Dataset {
    dir: PathBuf,
    /// Pixels of a run of images, one file each.
    maps: Vec<Mmap>,
    table: ImageTable,
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
        let card = DatasetCard::load(dir)?;
        let table = ImageTable::open(&dir.join(IMAGES_FILE), card.num_images, card.class_names.len())?;
        let maps =
            (0..table.num_runs()).into_par_iter().map(|run| map_run(dir, &table, run)).collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_path_buf(), maps, table, card })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image at `idx`, which must be below [`Self::len`].
    pub fn image(&self, idx: usize) -> ImageRef<'_> {
        let [width, height] = self.table.size(idx);
        let start = self.table.start(idx);
        let map = &self.maps[self.table.run_of(idx)];
        ImageRef { width, height, rgb: &map[start..start + num_bytes([width, height])] }
    }

    /// Sums over the pixels of the image at `idx`, as they were when it was stored.
    pub(super) fn sums(&self, idx: usize) -> PixelSums {
        self.table.sums(idx)
    }

    /// The run that begins with the image at `idx`, if one does.
    pub(super) fn run_from(&self, idx: usize) -> Option<RunOfImages> {
        let run = self.table.run_of(idx);
        let rows = self.table.run(run);
        (rows.start == idx).then(|| RunOfImages { path: self.dir.join(run_file(run)), len: rows.len() })
    }

    /// The class of the image at `idx`, an index into the card's class names.
    pub fn label(&self, idx: usize) -> Option<u32> {
        self.table.label(idx)
    }

    /// The classes of all images, where every image has one.
    pub fn labels(&self) -> Option<Vec<u32>> {
        (0..self.len()).map(|idx| self.label(idx)).collect()
    }

    /// The name of the image at `idx`, relative to the source.
    pub fn name(&self, idx: usize) -> &str {
        self.table.name(idx)
    }

    /// The names of all images, in their order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|idx| self.name(idx))
    }

    /// Class names, statistics, what was left out.
    pub fn card(&self) -> &DatasetCard {
        &self.card
    }
}

/// Maps the file of a run, whose length must be that of its images.
fn map_run(dir: &Path, table: &ImageTable, run: usize) -> Result<Mmap, DataError> {
    let path = dir.join(run_file(run));
    let io_error = |source| DataError::Io { action: "open", path: path.clone(), source };
    let file = File::open(&path).map_err(io_error)?;
    // SAFETY: artifacts are immutable once visible; nothing in this program writes to one.
    let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
    let last = table.run(run).end - 1;
    let wanted = table.start(last) + num_bytes(table.size(last));
    if map.len() != wanted {
        let message = format!("it has {} bytes, not the {wanted} of its images", map.len());
        return Err(DataError::Artifact { path, message });
    }
    Ok(map)
}

fn num_bytes([width, height]: [u32; 2]) -> usize {
    width as usize * height as usize * 3
}
