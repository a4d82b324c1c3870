//! The original CIFAR-10 binary batches: records of one label and 32 × 32 red, green and blue planes.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    DataError,
    decode::OwnedImage,
    image_source::{ImageSource, SourceItem},
    ingest_config::{Cifar10Config, Split},
};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// The folder inside the published archive.
const ARCHIVE_FOLDER: &str = "cifar-10-batches-bin";

/// The records of one split in the order of the files.
#[derive(Debug)]
pub struct Cifar10 {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    /// File and position of each record.
    places: Vec<(usize, u64)>,
    files: Vec<PathBuf>,
}

impl Cifar10 {
    /// Opens the batches of a split below `root` and checks their sizes and labels.
    ///
    /// # Errors
    /// When a batch is missing, has a size that is no whole number of records, or a label above 9.
    pub fn open(root: &Path, config: &Cifar10Config) -> Result<Self, DataError> {
        let names: &[&str] = match config.split {
            Split::Train => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Split::Test => &["test_batch.bin"],
        };
        let inner = root.join(ARCHIVE_FOLDER);
        let folder = if !root.join(names[0]).exists() && inner.is_dir() { inner } else { root.to_owned() };
        let mut source = Self {
            class_names: CLASSES.map(str::to_owned).to_vec(),
            items: vec![],
            places: vec![],
            files: names.iter().map(|name| folder.join(name)).collect(),
        };
        for (file_idx, name) in names.iter().enumerate() {
            source.add_batch(file_idx, name)?;
        }
        Ok(source)
    }

    fn add_batch(&mut self, file_idx: usize, name: &str) -> Result<(), DataError> {
        let path = &self.files[file_idx];
        let bytes = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DataError::source(
                format!("`{}` does not exist", path.display()),
                "`source.cifar10.path` is the folder that holds `data_batch_1.bin` … `test_batch.bin` (the \
                 \"binary version\" of the archive)",
            ),
            _ => DataError::Io { action: "read", path: path.clone(), source },
        })?;
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            return Err(DataError::source(
                format!(
                    "`{}` has {} bytes, not a whole number of records of {RECORD} bytes",
                    path.display(),
                    bytes.len()
                ),
                "the file is cut off or is not the binary version of CIFAR-10; download it again",
            ));
        }
        for (record, bytes) in bytes.chunks_exact(RECORD).enumerate() {
            if usize::from(bytes[0]) >= CLASSES.len() {
                return Err(DataError::source(
                    format!("record {record} of `{}` has label {}", path.display(), bytes[0]),
                    "labels are 0 to 9; the file is damaged, download it again",
                ));
            }
            self.items.push(SourceItem { name: format!("{name}/{record:05}"), label: Some(u32::from(bytes[0])) });
            self.places.push((file_idx, (record * RECORD) as u64));
        }
        Ok(())
    }

    fn read_record(&self, idx: usize) -> io::Result<[u8; RECORD]> {
        let (file_idx, position) = self.places[idx];
        let mut file = File::open(&self.files[file_idx])?;
        file.seek(SeekFrom::Start(position))?;
        let mut record = [0; RECORD];
        file.read_exact(&mut record)?;
        Ok(record)
    }
}

impl ImageSource for Cifar10 {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn dimensions_hint(&self, _idx: usize) -> Option<(u32, u32)> {
        Some((SIDE as u32, SIDE as u32))
    }

    fn decode(&self, idx: usize, _max_pixels: u64) -> Result<OwnedImage, String> {
        let record = self.read_record(idx).map_err(|error| format!("it cannot be read: {error}"))?;
        let planes = &record[1..];
        let rgb = (0..PLANE).flat_map(|at| [planes[at], planes[PLANE + at], planes[2 * PLANE + at]]).collect();
        Ok(OwnedImage { width: SIDE as u32, height: SIDE as u32, rgb })
    }
}
