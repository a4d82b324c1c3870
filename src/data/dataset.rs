//! A dataset artifact, opened by memory map.

use std::{fs::File, ops::Range, path::Path};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{
    DataError, DatasetCard,
    store_writer::{CARD_FILE, FORMAT, IMAGES_FILE},
};
use crate::augment::ImageRef;

/// Decoded images with their labels. Pixels stay in the file until they are looked at.
#[derive(Debug)]
pub struct Dataset {
    map: Mmap,
    /// Where the pixel arena lies in the file.
    arena: Range<usize>,
    /// Byte range of image i in the arena: `offsets[i] … offsets[i + 1]`.
    offsets: Vec<u64>,
    sizes: Vec<[u32; 2]>,
    /// −1 where there is none.
    labels: Vec<i64>,
    card: DatasetCard,
}

impl Dataset {
    /// Opens the artifact in `dir` and checks that everything in it fits together.
    ///
    /// # Errors
    /// When a file is missing, damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let card = read_card(&dir.join(CARD_FILE))?;
        let path = dir.join(IMAGES_FILE);
        let io_error = |source| DataError::Io { action: "open", path: path.clone(), source };
        let file = File::open(&path).map_err(io_error)?;
        // SAFETY: artifacts are immutable once visible; nothing in this program writes to one.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Self::from_parts(map, card).map_err(|message| DataError::Artifact { path: path.clone(), message })
    }

    fn from_parts(map: Mmap, card: DatasetCard) -> Result<Self, String> {
        let num_images = usize::try_from(card.num_images).map_err(|_| "it claims too many images".to_owned())?;
        let tensors = SafeTensors::deserialize(&map).map_err(|error| format!("bad header: {error}"))?;
        let read = |name: &str, dtype: Dtype, shape: &[usize]| {
            let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
            if tensor.dtype() != dtype || tensor.shape() != shape {
                return Err(format!(
                    "`{name}` is {:?} {:?} instead of {dtype:?} {shape:?}",
                    tensor.dtype(),
                    tensor.shape()
                ));
            }
            Ok(tensor.data())
        };
        let num_offsets = num_images.checked_add(1).ok_or("it claims too many images")?;
        let offsets: Vec<u64> =
            read("offsets", Dtype::U64, &[num_offsets])?.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        let labels: Vec<i64> =
            read("labels", Dtype::I64, &[num_images])?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let sides: Vec<u32> =
            read("sizes", Dtype::U32, &[num_images, 2])?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let sizes: Vec<[u32; 2]> = sides.as_chunks().0.to_vec();
        let pixels = tensors.tensor("pixels").map_err(|_| "it has no tensor `pixels`".to_owned())?;
        if pixels.dtype() != Dtype::U8 {
            return Err(format!("`pixels` is {:?} instead of U8", pixels.dtype()));
        }
        let start = pixels.data().as_ptr() as usize - map.as_ptr() as usize;
        let arena = start..start + pixels.data().len();
        check_layout(&offsets, &sizes, arena.len())?;
        check_labels(&labels, &card)?;
        Ok(Self { map, arena, offsets, sizes, labels, card })
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
        let arena = &self.map[self.arena.clone()];
        ImageRef { width, height, rgb: &arena[self.offsets[idx] as usize..self.offsets[idx + 1] as usize] }
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

fn check_layout(offsets: &[u64], sizes: &[[u32; 2]], arena_len: usize) -> Result<(), String> {
    if offsets.first() != Some(&0) || offsets.last().is_none_or(|&end| end > arena_len as u64) {
        return Err("its offsets leave the pixels".into());
    }
    for (idx, (range, [width, height])) in offsets.windows(2).zip(sizes).enumerate() {
        let num_bytes = u128::from(*width) * u128::from(*height) * 3;
        if num_bytes == 0 || range[1].checked_sub(range[0]).map(u128::from) != Some(num_bytes) {
            return Err(format!("the offsets of image {idx} do not fit its size of {width}×{height}"));
        }
    }
    Ok(())
}

fn check_labels(labels: &[i64], card: &DatasetCard) -> Result<(), String> {
    let num_classes = card.class_names.len() as i64;
    match labels.iter().position(|&label| label < -1 || label >= num_classes) {
        Some(idx) => Err(format!("image {idx} has label {} of {num_classes} classes", labels[idx])),
        None => Ok(()),
    }
}
