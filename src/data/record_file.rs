//! Files of records of one size: CIFAR's, IDX and NumPy's.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::DataError;

/// A file whose records lie one after the other.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    /// Where the first record begins.
    start: u64,
    /// Bytes of a record.
    record: usize,
}

impl RecordFile {
    /// Over a file whose size has been checked.
    pub(super) fn new(path: PathBuf, start: u64, record: usize) -> Self {
        Self { path, start, record }
    }

    /// The bytes of a record.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) fn read(&self, idx: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.record];
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.start + idx as u64 * self.record as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|error: io::Error| format!("it cannot be read: {error}"))?;
        Ok(bytes)
    }
}

/// Opens a file of which the first bytes say what it holds.
///
/// # Errors
/// When it is missing or no regular file.
pub(super) fn open_file(path: &Path, key: &str) -> Result<(File, u64), DataError> {
    let missing = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::source(
            format!("`{}` does not exist", path.display()),
            format!("correct `{key}`; relative paths start at the project root"),
        ),
        _ => DataError::Io { action: "read", path: path.to_owned(), source },
    };
    // Opening a pipe would wait for ever.
    let metadata = std::fs::metadata(path).map_err(missing)?;
    if !metadata.is_file() {
        return Err(DataError::source(
            format!("`{}` is not a file", path.display()),
            format!("correct `{key}`; relative paths start at the project root"),
        ));
    }
    Ok((File::open(path).map_err(missing)?, metadata.len()))
}

/// Says that a file is compressed, where it is.
pub(super) fn compression(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1F, 0x8B, ..] => Some("gzip"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [0xFD, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("zstd"),
        [b'P', b'K', 3, 4, ..] => Some("zip"),
        _ => None,
    }
}
