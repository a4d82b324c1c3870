//! What an artifact is: its files, their digests, and `manifest.json` beside them.

use std::{collections::BTreeMap, path::Path};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CacheError, Provenance};
use crate::{
    digest::Digest,
    fingerprint::StageFingerprint,
    fs::{FileStat, Ignore, files, walk},
    stage::ArtifactKind,
};

/// Version of `manifest.json`: 2 since it names the commit.
pub const MANIFEST_FORMAT: u32 = 2;
/// Name of the manifest in an artifact's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the resolved parameters in an artifact's folder.
pub const CONFIG: &str = "config.yaml";
/// Files below this folder are kept and checked but are no content: times are allowed there.
pub const LOGS: &str = "logs/";

/// A file of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Size in bytes.
    pub size: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's format.
    pub format: u32,
    /// What the artifact is.
    pub kind: ArtifactKind,
    /// Digest of the content.
    pub artifact: Digest,
    /// Every file but this one, by relative path.
    pub files: BTreeMap<String, FileRecord>,
    /// What decided the content.
    pub fingerprint: StageFingerprint,
    /// Who made it, when and where.
    pub provenance: Provenance,
}

impl Manifest {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Digest of the named files, or of the whole content where none is named.
    pub fn digest_of(&self, names: &[&str]) -> Digest {
        if names.is_empty() {
            return self.artifact;
        }
        let mut hasher = ContentHasher::default();
        for name in names {
            hasher.update(name.as_bytes(), self.files.get(*name).map(|file| &file.digest));
        }
        hasher.finish()
    }

    /// Reads the manifest of an artifact's folder.
    ///
    /// # Errors
    /// When it is missing, unreadable, of a newer version or not as it must be.
    pub fn load(object: &Path) -> Result<Self, CacheError> {
        let path = object.join(MANIFEST);
        let bytes = files::read(&path)?;
        check_format(&path, &bytes, MANIFEST_FORMAT)?;
        serde_json::from_slice(&bytes).map_err(|error| CacheError::Damaged { path, message: error.to_string() })
    }
}

/// Refuses a file that a newer version wrote, before its unknown fields are taken for damage.
pub(super) fn check_format(path: &Path, bytes: &[u8], known: u32) -> Result<(), CacheError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    match serde_json::from_slice::<FormatOnly>(bytes) {
        Ok(FormatOnly { format }) if format > known => {
            Err(CacheError::NewerFormat { path: path.to_path_buf(), found: format, known })
        }
        _ => Ok(()),
    }
}

/// Digest over names and digests: unlike a digest of the bytes in a row, it cannot be fooled by moving bytes from
/// one file or name to the next.
#[derive(Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds a file; `None` for one that is named and not there.
    pub fn update(&mut self, name: &[u8], digest: Option<&Digest>) {
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name);
        self.0.update(&[u8::from(digest.is_some())]);
        if let Some(digest) = digest {
            self.0.update(digest.as_bytes());
        }
    }

    /// The digest of all that was added.
    pub fn finish(&self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }
}

/// Files of another artifact that have not been touched since it was stored: where one has a second name in a new
/// artifact, its digest need not be made again.
#[derive(Debug, Default)]
pub(super) struct SharedFiles {
    /// By device and number.
    files: BTreeMap<(u64, u64), FileRecord>,
    /// The time that all of them have.
    pub(super) stamp: i64,
}

impl SharedFiles {
    /// Those of the artifact in `object`. What cannot be read is not shared.
    pub(super) fn of(object: &Path) -> Self {
        let Ok(manifest) = Manifest::load(object) else { return Self::default() };
        let stat = |name: &str| files::stat(&object.join(name)).ok();
        let Some(stamp) = stat(MANIFEST).map(|stat| stat.mtime_ns) else { return Self::default() };
        let untouched = manifest.files.iter().filter_map(|(name, record)| {
            let stat = stat(name).filter(|stat| stat.mtime_ns == stamp && stat.size == record.size)?;
            Some(((stat.device, stat.inode), *record))
        });
        Self { files: untouched.collect(), stamp }
    }

    fn find(&self, stat: &FileStat) -> Option<FileRecord> {
        let record = self.files.get(&(stat.device, stat.inode))?;
        (stat.mtime_ns == self.stamp && stat.size == record.size).then_some(*record)
    }
}

/// Whether a file counts as content.
pub fn is_content(name: &str) -> bool {
    name != MANIFEST && name != CONFIG && !name.starts_with(LOGS)
}

/// Digest of an artifact's content.
pub fn content_digest(files: &BTreeMap<String, FileRecord>) -> Digest {
    let mut hasher = ContentHasher::default();
    for (name, file) in files.iter().filter(|(name, _)| is_content(name)) {
        hasher.update(name.as_bytes(), Some(&file.digest));
    }
    hasher.finish()
}

/// Every file below `dir` with size and digest, the manifest left out. Refuses links and names that are not
/// UTF-8.
///
/// # Errors
/// When a file cannot be read or cannot be part of an artifact.
pub fn record_files(dir: &Path, stage: &str) -> Result<BTreeMap<String, FileRecord>, CacheError> {
    let found = record_files_beside(dir, stage, &SharedFiles::default())?;
    Ok(found.into_iter().map(|(name, (record, _))| (name, record)).collect())
}

/// As [`record_files`], and whether a file is one of `shared`, whose digest is then known.
///
/// # Errors
/// As there.
pub(super) fn record_files_beside(
    dir: &Path,
    stage: &str,
    shared: &SharedFiles,
) -> Result<BTreeMap<String, (FileRecord, bool)>, CacheError> {
    let walked = walk(dir, Ignore::Nothing)?;
    walked
        .par_iter()
        .map(|file| {
            let name = String::from_utf8(file.name.clone()).map_err(|error| CacheError::BadOutput {
                stage: stage.to_owned(),
                name: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                problem: "has a name that is not UTF-8".into(),
            })?;
            // A link to a folder shows in the files below it.
            let mut path = dir.to_path_buf();
            for part in name.split('/') {
                path.push(part);
                if files::read_link(&path).is_some() {
                    return Err(CacheError::BadOutput {
                        stage: stage.to_owned(),
                        name,
                        problem: "is a symbolic link or lies behind one".into(),
                    });
                }
            }
            if let Some(record) = shared.find(&file.stat) {
                return Ok((name, (record, true)));
            }
            Ok((name, (FileRecord { size: file.stat.size, digest: files::digest_file(&path)? }, false)))
        })
        .filter(|result| !matches!(result, Ok((name, _)) if name == MANIFEST))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, FileRecord> {
        list.iter()
            .map(|(name, text)| {
                (name.to_string(), FileRecord { size: text.len() as u64, digest: Digest::of(text.as_bytes()) })
            })
            .collect()
    }

    #[test]
    fn logs_and_config_are_no_content() {
        let bare = files(&[("a.bin", "x")]);
        let full = files(&[("a.bin", "x"), ("logs/time.txt", "now"), ("config.yaml", "k: 1")]);
        assert_eq!(content_digest(&bare), content_digest(&full));
        assert_ne!(content_digest(&bare), content_digest(&files(&[("b.bin", "x")])));
        assert_ne!(content_digest(&bare), content_digest(&files(&[("a.bin", "y")])));
    }

    #[test]
    fn links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("a")).unwrap();
        let error = record_files(dir.path(), "s").unwrap_err();
        assert_eq!(error.to_string(), "stage `s` left `a`, which is a symbolic link or lies behind one");
    }
}
