//! Checksums of files in the form that `sha256sum` and `b3sum` read.

use std::{fs::File, io::Read as _, path::Path};

use sha2::Digest as _;

use super::FsError;
use crate::digest::Digest;

const CHUNK: usize = 1 << 20;

/// Both checksums of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSums {
    /// BLAKE3.
    pub blake3: Digest,
    /// SHA-256 as hexadecimal digits.
    pub sha256: String,
}

/// Reads a file once for both checksums.
///
/// # Errors
/// When it cannot be read.
pub fn file_sums(path: &Path) -> Result<FileSums, FsError> {
    let mut file = File::open(path).map_err(FsError::at("read", path))?;
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                blake3.update(&buffer[..len]);
                sha256.update(&buffer[..len]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FsError::at("read", path)(error)),
        }
    }
    // As long as ours, and written alike.
    let sha256 = Digest::from_bytes(sha256.finalize().into()).hex();
    Ok(FileSums { blake3: Digest::from_bytes(*blake3.finalize().as_bytes()), sha256 })
}

/// One line of a checksum file. Names with line breaks or backslashes are written as both programs expect.
pub fn sum_line(sum: &str, name: &str) -> String {
    if name.contains(['\n', '\r', '\\']) {
        let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        format!("\\{sum}  {name}\n")
    } else {
        format!("{sum}  {name}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_published_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let sums = file_sums(&path).unwrap();
        assert_eq!(sums.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(sums.blake3.hex().starts_with("6437b3ac38465133ffb63b75273a8db5"));
        let long = vec![7; CHUNK + 1];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file_sums(&path).unwrap().blake3, Digest::of(&long));
    }

    #[test]
    fn odd_names_are_escaped() {
        assert_eq!(sum_line("ab", "x y"), "ab  x y\n");
        assert_eq!(sum_line("ab", "x\ny\\z"), "\\ab  x\\ny\\\\z\n");
    }
}
