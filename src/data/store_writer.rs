//! Writes a dataset artifact image by image: pixels go straight to their files and never lie in memory together.
//!
//! Runs of images that an earlier dataset holds in one file get a second name of that file.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorView};

use super::{
    DataError, Dataset, DatasetCard, SkippedFile,
    ingest_config::{ResizeConfig, WHITE},
    pixel_sums::PixelSums,
    runs::{Cuts, PIXELS_DIR, run_file},
};
use crate::augment::{ImageRef, augment_config::ChannelStats};

/// Name of the tables in a dataset artifact.
pub const IMAGES_FILE: &str = "images.safetensors";
/// Name of the card in a dataset artifact.
pub const CARD_FILE: &str = "dataset.json";
/// Version of both: 2 since pixels lie in several files, 3 since names are in the table.
pub const FORMAT: u32 = 3;

const BUFFER_BYTES: usize = 256 << 10;

/// A dataset being written.
pub struct StoreWriter<'e> {
    dir: PathBuf,
    earlier: Option<&'e Dataset>,
    cuts: Cuts,
    run: Run,
    /// First image of each run, and the number of images in the end.
    firsts: Vec<u64>,
    num_pixels: u64,
    /// Bytes of the images of the run at hand.
    run_bytes: u64,
    sizes: Vec<[u32; 2]>,
    /// Where the pixels of each image begin in the file of its run.
    starts: Vec<u64>,
    labels: Vec<i64>,
    image_sums: Vec<PixelSums>,
    /// The names of all images, one after the other, and where each ends.
    names: String,
    name_ends: Vec<u64>,
    class_names: Vec<String>,
    class_counts: Vec<u64>,
    sums: PixelSums,
    resize: ResizeConfig,
    background: [u8; 3],
}

/// The images since the last cut.
enum Run {
    /// There are none.
    None,
    /// They are those of the earlier dataset from this one on, where one of its runs begins.
    Earlier {
        first: usize,
        len: usize,
    },
    Written(BufWriter<File>),
}

impl<'e> StoreWriter<'e> {
    /// Begins a dataset in `dir`.
    ///
    /// # Errors
    /// When the folder for pixels cannot be created.
    pub fn create(dir: &Path, class_names: Vec<String>) -> Result<Self, DataError> {
        let pixels = dir.join(PIXELS_DIR);
        // Never written into: a file there may be that of another artifact.
        let made = match fs::remove_dir_all(&pixels) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&pixels),
        };
        made.map_err(|source| DataError::Io { action: "create", path: pixels, source })?;
        Ok(Self {
            dir: dir.to_path_buf(),
            earlier: None,
            cuts: Cuts::for_images(0),
            run: Run::None,
            firsts: vec![],
            num_pixels: 0,
            run_bytes: 0,
            sizes: vec![],
            starts: vec![],
            labels: vec![],
            image_sums: vec![],
            names: String::new(),
            name_ends: vec![],
            class_counts: vec![0; class_names.len()],
            class_names,
            sums: PixelSums::default(),
            resize: ResizeConfig::None,
            background: WHITE,
        })
    }

    /// Records how the images that will be written were resized.
    #[must_use]
    pub fn with_resize(mut self, resize: ResizeConfig) -> Self {
        self.resize = resize;
        self
    }

    /// Records what lies behind the transparency of the images that will be written.
    #[must_use]
    pub fn over(mut self, background: [u8; 3]) -> Self {
        self.background = background;
        self
    }

    /// Says how many images will come at most, which decides how many share a file, and which earlier dataset
    /// [`Self::push_taken`] takes from.
    #[must_use]
    pub(super) fn expecting(mut self, num_images: usize, earlier: Option<&'e Dataset>) -> Self {
        self.cuts = Cuts::for_images(num_images);
        self.earlier = earlier;
        self
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
        self.push_summed(name, image, label, &PixelSums::of(image.rgb)).map(drop)
    }

    /// As [`Self::push`], where the sums over the image's pixels are known. Returns whether what was read of the earlier
    /// dataset is whole.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub(super) fn push_summed(
        &mut self,
        name: &str,
        image: ImageRef<'_>,
        label: Option<u32>,
        sums: &PixelSums,
    ) -> Result<bool, DataError> {
        let is_whole = self.write_run()?;
        self.write(image.rgb)?;
        Ok(self.record(name, [image.width, image.height], label, *sums)? && is_whole)
    }

    /// Appends an image of the earlier dataset. Returns whether that is whole, as far as it was read: a run that is taken
    /// as it is is not, and where single images are taken they must have the sums that are kept with them.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub(super) fn push_taken(&mut self, name: &str, row: usize, label: Option<u32>) -> Result<bool, DataError> {
        let Some(earlier) = self.earlier.filter(|earlier| row < earlier.len()) else { return Ok(false) };
        let mut is_whole = true;
        match &mut self.run {
            Run::None if earlier.run_from(row).is_some() => {
                self.firsts.push(self.sizes.len() as u64);
                self.run = Run::Earlier { first: row, len: 1 };
            }
            Run::Earlier { first, len } if row == *first + *len && earlier.run_from(row).is_none() => *len += 1,
            _ => {
                is_whole &= self.write_run()?;
                is_whole &= self.copy(earlier, row)?;
            }
        }
        let ImageRef { width, height, .. } = earlier.image(row);
        Ok(self.record(name, [width, height], label, earlier.sums(row))? && is_whole)
    }

    /// Makes sure that the run at hand is one that is written. Returns whether what it has of the earlier dataset is
    /// whole.
    fn write_run(&mut self) -> Result<bool, DataError> {
        let (first, len) = match self.run {
            Run::Written(_) => return Ok(true),
            Run::Earlier { first, len } => (first, len),
            Run::None => {
                self.firsts.push(self.sizes.len() as u64);
                (0, 0)
            }
        };
        let path = self.run_path();
        let file = File::create_new(&path).map_err(|source| DataError::Io { action: "create", path, source })?;
        self.run = Run::Written(BufWriter::with_capacity(BUFFER_BYTES, file));
        let mut is_whole = true;
        for row in first..first + len {
            if let Some(earlier) = self.earlier {
                is_whole &= self.copy(earlier, row)?;
            }
        }
        Ok(is_whole)
    }

    fn copy(&mut self, earlier: &Dataset, row: usize) -> Result<bool, DataError> {
        let rgb = earlier.image(row).rgb;
        self.write(rgb)?;
        Ok(PixelSums::of(rgb) == earlier.sums(row))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        let Run::Written(file) = &mut self.run else { return Ok(()) };
        let written = file.write_all(bytes);
        written.map_err(|source| DataError::Io { action: "write", path: self.run_path(), source })
    }

    /// The file of the run at hand.
    fn run_path(&self) -> PathBuf {
        self.dir.join(run_file(self.firsts.len().saturating_sub(1)))
    }

    /// Keeps what the tables say of an image, and ends the run where that is its last. Returns what
    /// [`Self::end_run`] does.
    fn record(&mut self, name: &str, size: [u32; 2], label: Option<u32>, sums: PixelSums) -> Result<bool, DataError> {
        let num_pixels = u64::from(size[0]) * u64::from(size[1]);
        self.num_pixels += num_pixels;
        self.starts.push(self.run_bytes);
        self.run_bytes += 3 * num_pixels;
        self.sizes.push(size);
        self.labels.push(label.map_or(-1, i64::from));
        if let Some(count) = label.and_then(|label| self.class_counts.get_mut(label as usize)) {
            *count += 1;
        }
        self.names.push_str(name);
        self.name_ends.push(self.names.len() as u64);
        self.sums.add(&sums);
        self.image_sums.push(sums);
        if self.cuts.ends(size, &sums) { self.end_run() } else { Ok(true) }
    }

    /// Finishes the file of the run at hand. Returns whether what was read of the earlier dataset is whole.
    fn end_run(&mut self) -> Result<bool, DataError> {
        self.run_bytes = 0;
        let mut is_whole = true;
        if let (&Run::Earlier { first, len }, Some(earlier)) = (&self.run, self.earlier) {
            let same = earlier.run_from(first).filter(|run| run.len == len);
            if same.is_none_or(|run| fs::hard_link(run.path, self.run_path()).is_err()) {
                is_whole = self.write_run()?;
            }
        }
        if let Run::Written(mut file) = std::mem::replace(&mut self.run, Run::None) {
            file.flush().map_err(|source| DataError::Io { action: "write", path: self.run_path(), source })?;
        }
        Ok(is_whole)
    }

    /// Writes the tables and the card.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub fn finish(self, skipped: Vec<SkippedFile>) -> Result<DatasetCard, DataError> {
        let damaged = self.dir.clone();
        self.finish_taken(skipped)?.ok_or_else(|| DataError::Artifact {
            path: damaged,
            message: "images were taken from a dataset that is damaged".into(),
        })
    }

    /// As [`Self::finish`]; `None` where what was read of the earlier dataset is not whole.
    ///
    /// # Errors
    /// When the disk is full or the like.
    pub(super) fn finish_taken(mut self, skipped: Vec<SkippedFile>) -> Result<Option<DatasetCard>, DataError> {
        if !self.end_run()? {
            return Ok(None);
        }
        let num_images = self.sizes.len();
        self.firsts.push(num_images as u64);
        let write = |name: &str, bytes: &[u8]| {
            let path = self.dir.join(name);
            fs::write(&path, bytes).map_err(|source| DataError::Io { action: "write", path, source })
        };
        let failed = |error: String| DataError::Io {
            action: "write",
            path: self.dir.clone(),
            source: std::io::Error::other(error),
        };

        let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let (runs, starts, name_ends) = (words(&self.firsts), words(&self.starts), words(&self.name_ends));
        let sums: Vec<u8> = self
            .image_sums
            .iter()
            .flat_map(|sums| sums.values.into_iter().chain(sums.squares))
            .flat_map(u64::to_le_bytes)
            .collect();
        let sizes: Vec<u8> = self.sizes.iter().flatten().flat_map(|side| side.to_le_bytes()).collect();
        let tensors = [
            ("labels", Dtype::I64, vec![num_images], &labels[..]),
            ("name_ends", Dtype::U64, vec![num_images], &name_ends),
            ("names", Dtype::U8, vec![self.names.len()], self.names.as_bytes()),
            ("runs", Dtype::U64, vec![self.firsts.len()], &runs),
            ("starts", Dtype::U64, vec![num_images], &starts),
            ("sums", Dtype::U64, vec![num_images, 2, 3], &sums),
            ("sizes", Dtype::U32, vec![num_images, 2], &sizes),
        ];
        let tensors = tensors
            .into_iter()
            .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| failed(error.to_string()))?;
        // One key only: several have no order.
        let metadata = [("format".to_owned(), format!("simsiam-pipe dataset {FORMAT}"))].into();
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| failed(error.to_string()))?;
        write(IMAGES_FILE, &bytes)?;

        let card = DatasetCard {
            format: FORMAT,
            num_images: num_images as u64,
            min_size: self.extreme(u32::min),
            max_size: self.extreme(u32::max),
            channel_stats: self.channel_stats(),
            class_names: self.class_names,
            class_counts: self.class_counts,
            resize: self.resize,
            background: self.background,
            skipped,
        };
        let mut text = serde_json::to_string_pretty(&card).map_err(|error| failed(error.to_string()))?;
        text.push('\n');
        write(CARD_FILE, text.as_bytes())?;
        Ok(Some(card))
    }

    fn extreme(&self, pick: fn(u32, u32) -> u32) -> [u32; 2] {
        self.sizes.iter().copied().reduce(|a, b| [pick(a[0], b[0]), pick(a[1], b[1])]).unwrap_or([0, 0])
    }

    fn channel_stats(&self) -> ChannelStats {
        let count = (self.num_pixels.max(1)) as f64;
        let mean = self.sums.values.map(|sum| sum as f64 / count / 255.0);
        let std = std::array::from_fn(|channel| {
            let square = self.sums.squares[channel] as f64 / count / (255.0 * 255.0);
            (square - mean[channel] * mean[channel]).max(0.0).sqrt()
        });
        ChannelStats { mean, std }
    }
}
