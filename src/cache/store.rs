//! Looking up, reading and deleting what the cache holds. Saving is in `workspace.rs`.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{CacheEntry, CacheError, Layout, Manifest, artifact::MANIFEST, entry::ENTRY_FORMAT};
use crate::{
    digest::Digest,
    fs::{LockFile, files, lock::SharedLock},
};

/// What the cache says to a fingerprint.
#[derive(Debug)]
pub enum CacheStatus {
    /// The artifact is there and looks whole.
    Hit(Box<CacheEntry>),
    /// Nothing is known.
    Miss,
    /// There is an entry, but what it promises is not there as it was left.
    Damaged {
        /// The entry, where it could be read.
        entry: Option<Box<CacheEntry>>,
        /// What is wrong.
        message: String,
        /// Whether the files are there and somebody has changed them.
        edited: bool,
    },
}

/// A cache on disk.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    /// What this process uses; made on first use, gone with the process.
    pins: Mutex<Option<Pins>>,
}

#[derive(Debug)]
struct Pins {
    _lock: LockFile,
    path: PathBuf,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = files::remove_file(&self.path);
    }
}

impl Store {
    /// The cache at `layout`, which need not exist yet: nothing is written.
    ///
    /// # Errors
    /// When a newer version made it.
    pub fn open(layout: Layout) -> Result<Self, CacheError> {
        layout.check()?;
        Ok(Self { layout, pins: Mutex::new(None) })
    }

    /// Makes the folders and sweeps what dead processes left.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn create(&self) -> Result<(), CacheError> {
        self.layout.create()?;
        super::workspace::sweep(&self.layout.tmp())?;
        super::workspace::sweep(&self.layout.pins())?;
        Ok(())
    }

    /// Its paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads an entry without looking at its artifact.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn entry(&self, fingerprint: &Digest) -> Result<Option<CacheEntry>, CacheError> {
        let path = self.layout.entry(fingerprint);
        let Some(bytes) = files::read_if_exists(&path)? else { return Ok(None) };
        let damaged = |message: String| CacheError::Damaged { path: path.clone(), message };
        let entry: CacheEntry = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if entry.format > ENTRY_FORMAT {
            return Err(damaged(format!("it has format {}, this version knows {ENTRY_FORMAT}", entry.format)));
        }
        if entry.fingerprint.digest().ok() != Some(*fingerprint) {
            return Err(damaged("its content does not match its name".into()));
        }
        Ok(Some(entry))
    }

    /// What is known about a fingerprint. A hit has an artifact whose files are all there with the right size
    /// and have not been touched since; `cache verify` reads every byte.
    ///
    /// # Errors
    /// When the disk fails; a damaged entry is a status, not an error.
    pub fn lookup(&self, fingerprint: &Digest) -> Result<CacheStatus, CacheError> {
        let entry = match self.entry(fingerprint) {
            Ok(Some(entry)) => Box::new(entry),
            Ok(None) => return Ok(CacheStatus::Miss),
            Err(CacheError::Damaged { message, .. }) => {
                return Ok(CacheStatus::Damaged {
                    entry: None,
                    message: format!("its entry {message}"),
                    edited: false,
                });
            }
            Err(error) => return Err(error),
        };
        Ok(match check_object(&self.layout.object(&entry.artifact), &entry.artifact)? {
            Condition::Whole => CacheStatus::Hit(entry),
            Condition::Damaged { message, edited } => CacheStatus::Damaged { entry: Some(entry), message, edited },
        })
    }

    /// The manifest of an artifact.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn manifest(&self, artifact: &Digest) -> Result<Manifest, CacheError> {
        let object = self.layout.object(artifact);
        if !files::exists(&object) {
            return Err(CacheError::NoArtifact { digest: *artifact });
        }
        Manifest::load(&object)
    }

    /// Says that this process uses an artifact, so that no other process deletes it. Returns whether it is
    /// there.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn pin(&self, artifact: &Digest) -> Result<bool, CacheError> {
        let _shared = SharedLock::read(&self.layout.gc_lock())?;
        self.write_pin(artifact)?;
        Ok(files::exists(&self.layout.object(artifact)))
    }

    /// As [`Self::pin`] for a caller that holds the lock.
    pub(super) fn write_pin(&self, artifact: &Digest) -> Result<(), CacheError> {
        let mut pins = self.pins.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pins.is_none() {
            let path = self.layout.pins().join(files::unique_name("pins"));
            let lock = LockFile::try_acquire(&super::workspace::lock_path(&path))?
                .map_err(|_| CacheError::Damaged { path: path.clone(), message: "a fresh lock is taken".into() })?;
            *pins = Some(Pins { _lock: lock, path });
        }
        if let Some(pins) = pins.as_ref() {
            files::append(&pins.path, format!("{artifact}\n").as_bytes())?;
        }
        Ok(())
    }

    /// All fingerprints with an entry, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn fingerprints(&self) -> Result<Vec<Digest>, CacheError> {
        let names = files::list(&self.layout.entries())?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// All artifacts, sorted.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn artifacts(&self) -> Result<Vec<Digest>, CacheError> {
        let mut artifacts = Vec::new();
        for prefix in files::list(&self.layout.objects())? {
            let names = files::list(&self.layout.objects().join(prefix))?;
            artifacts.extend(names.iter().filter_map(|name| name.parse::<Digest>().ok()));
        }
        Ok(artifacts)
    }

    /// The newest entry that a stage of this name led to in a pipeline of this name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest_entry(&self, pipeline: &str, stage: &str) -> Result<Option<CacheEntry>, CacheError> {
        let entries =
            self.fingerprints()?.into_iter().filter_map(|fingerprint| self.entry(&fingerprint).ok().flatten());
        Ok(entries
            .filter(|entry| entry.provenance.stage == stage && entry.provenance.pipeline == pipeline)
            .max_by_key(|entry| entry.provenance.created))
    }

    /// Moves an artifact that somebody has edited out of the cache to `aside`, writable again. Returns whether
    /// that worked: a folder on another file system cannot take it.
    ///
    /// # Errors
    /// When the folder of `aside` cannot be made.
    pub fn move_aside(&self, artifact: &Digest, aside: &Path) -> Result<bool, CacheError> {
        let object = self.layout.object(artifact);
        if !files::exists(&object) {
            return Ok(false);
        }
        files::create_dir_all(&files::parent_of(aside))?;
        Ok(move_object(&object, aside).is_ok())
    }

    /// Deletes an artifact: out of sight by one rename, then bit by bit.
    ///
    /// # Errors
    /// When it cannot be moved or removed.
    pub fn remove_object(&self, artifact: &Digest) -> Result<(), CacheError> {
        let object = self.layout.object(artifact);
        if files::exists(&object) {
            let away = self.layout.tmp().join(files::unique_name("removed"));
            move_object(&object, &away)?;
            files::remove_dir_all(&away)?;
        }
        Ok(())
    }
}

/// Moves an artifact's folder, which is read only: a folder that changes its parent must be writable.
pub(super) fn move_object(from: &Path, to: &Path) -> Result<(), CacheError> {
    files::set_writable(from, true)?;
    files::rename(from, to)?;
    Ok(())
}

pub(super) enum Condition {
    Whole,
    Damaged { message: String, edited: bool },
}

/// Checks names, sizes and times of an artifact's files. The manifest is written last: a file that is newer has
/// been touched since, and only then its bytes are read.
pub(super) fn check_object(object: &Path, artifact: &Digest) -> Result<Condition, CacheError> {
    let damaged = |message: String, edited| Ok(Condition::Damaged { message, edited });
    if !files::exists(object) {
        return damaged("its artifact is gone".into(), false);
    }
    let manifest = match Manifest::load(object) {
        Ok(manifest) => manifest,
        Err(CacheError::Damaged { message, .. }) => {
            return damaged(format!("`{MANIFEST}` is damaged: {message}"), true);
        }
        Err(CacheError::Fs(error)) if error.is_not_found() => return damaged(format!("`{MANIFEST}` is gone"), true),
        Err(error) => return Err(error),
    };
    if manifest.artifact != *artifact {
        return damaged(format!("`{MANIFEST}` is that of another artifact"), true);
    }
    let (_, written) = files::size_and_mtime(&object.join(MANIFEST))?;
    let mut touched = false;
    for (name, file) in &manifest.files {
        let path = object.join(name);
        let (size, mtime) = match files::size_and_mtime(&path) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return damaged(format!("`{name}` is gone"), true),
            Err(error) => return Err(error.into()),
        };
        if size != file.size {
            return damaged(format!("`{name}` has {size} bytes, not {}", file.size), true);
        }
        if mtime > written {
            touched = true;
            if files::digest_file(&path)? != file.digest {
                return damaged(format!("`{name}` has been changed"), true);
            }
        }
    }
    if touched {
        // A copied cache has new times: read once is enough.
        let _ = files::touch(&object.join(MANIFEST));
    }
    Ok(Condition::Whole)
}
