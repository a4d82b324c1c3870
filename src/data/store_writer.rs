//! Writes `images.safetensors` image by image: pixels go straight to the file and never lie in memory together.
//!
//! A safetensors file begins with a header that says how large everything is, which is known only at the end.
//! Room for it is left at the start; the format allows it to be padded with spaces.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{DataError, DatasetCard, SkippedFile, ingest_config::ResizeConfig, pixel_sums::PixelSums};
use crate::augment::{ImageRef, augment_config::ChannelStats};

/// Name of the tensors in a dataset artifact.
pub const IMAGES_FILE: &str = "images.safetensors";
/// Name of the card in a dataset artifact.
pub const CARD_FILE: &str = "dataset.json";
/// Version of both.
pub const FORMAT: u32 = 1;

/// Length of the header with its own length in front: a multiple of 8, so that everything is aligned.
const HEADER_BYTES: usize = 512;

/// A dataset being written.
pub struct StoreWriter {
    path: PathBuf,
    file: BufWriter<File>,
    offsets: Vec<u64>,
    sizes: Vec<[u32; 2]>,
    labels: Vec<i64>,
    file_names: Vec<String>,
    class_names: Vec<String>,
    class_counts: Vec<u64>,
    sums: PixelSums,
    resize: ResizeConfig,
}

impl StoreWriter {
    /// Creates `images.safetensors` in `dir`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(dir: &Path, class_names: Vec<String>) -> Result<Self, DataError> {
        let path = dir.join(IMAGES_FILE);
        let file =
            File::create(&path).map_err(|source| DataError::Io { action: "create", path: path.clone(), source })?;
        let mut writer = Self {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            offsets: vec![0],
            sizes: vec![],
            labels: vec![],
            file_names: vec![],
            class_counts: vec![0; class_names.len()],
            class_names,
            sums: PixelSums::default(),
            resize: ResizeConfig::None,
        };
        writer.write(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Records how the images that will be written were resized.
    pub fn with_resize(mut self, resize: ResizeConfig) -> Self {
        self.resize = resize;
        self
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(|source| DataError::Io { action: "write", path: self.path.clone(), source })
    }

    /// Number of images so far.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Number of images of each class so far.
    pub fn class_counts(&self) -> &[u64] {
        &self.class_counts
    }

    /// Appends an image; `label` is an index into the class names.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub fn push(&mut self, name: &str, image: ImageRef<'_>, label: Option<u32>) -> Result<(), DataError> {
        self.push_summed(name, image, label, &PixelSums::of(image.rgb))
    }

    /// As [`Self::push`], where the sums over the image's pixels are known.
    pub(super) fn push_summed(
        &mut self,
        name: &str,
        image: ImageRef<'_>,
        label: Option<u32>,
        sums: &PixelSums,
    ) -> Result<(), DataError> {
        self.write(image.rgb)?;
        let end = self.offsets.last().copied().unwrap_or(0) + image.rgb.len() as u64;
        self.offsets.push(end);
        self.sizes.push([image.width, image.height]);
        self.labels.push(label.map_or(-1, i64::from));
        if let Some(count) = label.and_then(|label| self.class_counts.get_mut(label as usize)) {
            *count += 1;
        }
        self.file_names.push(name.to_owned());
        self.sums.add(sums);
        Ok(())
    }

    /// Writes the other tensors, the header and the card.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub fn finish(mut self, skipped: Vec<SkippedFile>) -> Result<DatasetCard, DataError> {
        let num_images = self.sizes.len();
        let pixel_bytes = self.offsets.last().copied().unwrap_or(0);
        // The arena is rounded up, so that the tensors after it are aligned.
        let padding = pixel_bytes.next_multiple_of(8) - pixel_bytes;
        self.write(&[0; 8][..padding as usize])?;
        let tail: Vec<u8> = self
            .offsets
            .iter()
            .flat_map(|offset| offset.to_le_bytes())
            .chain(self.labels.iter().flat_map(|label| label.to_le_bytes()))
            .chain(self.sizes.iter().flatten().flat_map(|side| side.to_le_bytes()))
            .collect();
        self.write(&tail)?;

        let arena = pixel_bytes + padding;
        let offsets_end = arena + 8 * (num_images as u64 + 1);
        let labels_end = offsets_end + 8 * num_images as u64;
        let sizes_end = labels_end + 8 * num_images as u64;
        let header = json!({
            "__metadata__": { "format": "simsiam-pipe dataset", "version": FORMAT.to_string() },
            "pixels": { "dtype": "U8", "shape": [arena], "data_offsets": [0, arena] },
            "offsets": { "dtype": "U64", "shape": [num_images + 1], "data_offsets": [arena, offsets_end] },
            "labels": { "dtype": "I64", "shape": [num_images], "data_offsets": [offsets_end, labels_end] },
            "sizes": { "dtype": "U32", "shape": [num_images, 2], "data_offsets": [labels_end, sizes_end] },
        })
        .to_string();
        let mut front = [b' '; HEADER_BYTES];
        front[..8].copy_from_slice(&((HEADER_BYTES - 8) as u64).to_le_bytes());
        front[8..8 + header.len()].copy_from_slice(header.as_bytes());
        let io_error = |source| DataError::Io { action: "write", path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(0)).map_err(io_error)?;
        self.file.write_all(&front).map_err(io_error)?;
        self.file.flush().map_err(io_error)?;

        let card = self.card(skipped);
        let card_path = self.path.with_file_name(CARD_FILE);
        let mut text = serde_json::to_string_pretty(&card).map_err(|error| DataError::Io {
            action: "write",
            path: card_path.clone(),
            source: error.into(),
        })?;
        text.push('\n');
        std::fs::write(&card_path, text).map_err(|source| DataError::Io {
            action: "write",
            path: card_path,
            source,
        })?;
        Ok(card)
    }

    fn card(&mut self, skipped: Vec<SkippedFile>) -> DatasetCard {
        let num_values = self.offsets.last().copied().unwrap_or(0) / 3;
        let count = (num_values.max(1)) as f64;
        let mean = self.sums.values.map(|sum| sum as f64 / count / 255.0);
        let std = std::array::from_fn(|channel| {
            let square = self.sums.squares[channel] as f64 / count / (255.0 * 255.0);
            (square - mean[channel] * mean[channel]).max(0.0).sqrt()
        });
        let extreme = |pick: fn(u32, u32) -> u32| {
            self.sizes.iter().copied().reduce(|a, b| [pick(a[0], b[0]), pick(a[1], b[1])]).unwrap_or([0, 0])
        };
        DatasetCard {
            format: FORMAT,
            num_images: self.sizes.len() as u64,
            min_size: extreme(u32::min),
            max_size: extreme(u32::max),
            channel_stats: ChannelStats { mean, std },
            class_names: std::mem::take(&mut self.class_names),
            class_counts: std::mem::take(&mut self.class_counts),
            resize: self.resize,
            skipped,
            file_names: std::mem::take(&mut self.file_names),
        }
    }
}
