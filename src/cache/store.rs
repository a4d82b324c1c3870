//! Looking up, reading and deleting what the cache holds. Saving is in `workspace.rs`.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    CacheEntry, CacheError, Layout, Manifest,
    artifact::check_format,
    condition::{Condition, check_object},
    entry::ENTRY_FORMAT,
};
use crate::{
    digest::Digest,
    fs::{LockFile, files, lock::SharedLock, sweep_temporaries, tree},
    sys::Timestamp,
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

    /// Makes the folders and sweeps what dead processes left. A cache that is there and cannot be written stays as
    /// it is.
    ///
    /// # Errors
    /// When the cache cannot be made.
    pub fn create(&self) -> Result<(), CacheError> {
        self.layout.create()?;
        for dir in [self.layout.tmp(), self.layout.pins()] {
            match super::workspace::sweep(&dir) {
                Err(CacheError::Fs(error)) if error.is_read_only() => {}
                result => result?,
            }
        }
        for dir in [self.layout.root().to_path_buf(), self.layout.entries(), self.layout.sources()] {
            sweep_temporaries(&dir);
        }
        Ok(())
    }

    /// Its paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads an entry without looking at its artifact.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is that of a newer version.
    pub fn entry(&self, fingerprint: &Digest) -> Result<Option<CacheEntry>, CacheError> {
        let path = self.layout.entry(fingerprint);
        let Some(bytes) = files::read_if_exists(&path)? else { return Ok(None) };
        let damaged = |message: String| CacheError::Damaged { path: path.clone(), message };
        check_format(&path, &bytes, ENTRY_FORMAT)?;
        let entry: CacheEntry = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
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

    /// What is wrong with an artifact, if anything, as far as [`Self::lookup`] sees it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn damage(&self, artifact: &Digest) -> Result<Option<String>, CacheError> {
        Ok(match check_object(&self.layout.object(artifact), artifact)? {
            Condition::Whole => None,
            Condition::Damaged { message, .. } => Some(message),
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
    /// there. In a cache that this process may only read, nothing can be said.
    ///
    /// # Errors
    /// When the cache cannot be written, for another reason than that it may not be.
    pub fn pin(&self, artifact: &Digest) -> Result<bool, CacheError> {
        let pin = || {
            let _shared = SharedLock::read(&self.layout.gc_lock())?;
            self.write_pin(artifact)
        };
        match pin() {
            Err(CacheError::Fs(error)) if error.is_read_only() => {}
            result => result?,
        }
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
            files::append_line(&pins.path, artifact.hex().as_bytes())?;
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

    /// Fingerprints that [`Self::note_alike`] was told under this key. Some may have no entry any more.
    pub fn alike(&self, treatment: &Digest) -> Vec<Digest> {
        let text = files::read_if_exists(&self.layout.alike(treatment)).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Keeps that the stage of a fingerprint treats a single image in this way: whoever looks for such artifacts need not
    /// read every entry.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn note_alike(&self, treatment: &Digest, fingerprint: &Digest) -> Result<(), CacheError> {
        if self.alike(treatment).contains(fingerprint) {
            return Ok(());
        }
        files::create_dir_all(&self.layout.alike_root())?;
        Ok(files::append_line(&self.layout.alike(treatment), fingerprint.hex().as_bytes())?)
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

    /// Moves an artifact that somebody has edited out of the cache to `aside`, writable again, unless it has been
    /// made again meanwhile. Returns whether it was.
    ///
    /// # Errors
    /// When it cannot be moved; it is then still where it was.
    pub fn set_aside_if_edited(&self, artifact: &Digest, aside: &Path) -> Result<bool, CacheError> {
        let _turn = self.turn(artifact)?;
        match check_object(&self.layout.object(artifact), artifact)? {
            Condition::Damaged { edited: true, .. } => {
                self.set_aside(artifact, aside)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Moves an artifact that somebody has edited, and nobody asks for, to the folder `edited/` in the cache.
    /// Returns its new place.
    pub(super) fn keep_edited(&self, artifact: &Digest) -> Result<PathBuf, CacheError> {
        let aside = self.edited_path(artifact);
        self.set_aside(artifact, &aside)?;
        Ok(aside)
    }

    /// A free place in `edited/`.
    pub(super) fn edited_path(&self, artifact: &Digest) -> PathBuf {
        let name = format!("{artifact}-{}", Timestamp::now().compact());
        self.layout.edited().join(files::unique_name(&name))
    }

    /// As [`Self::set_aside_if_edited`] for a caller whose turn it is and who has looked.
    pub(super) fn set_aside(&self, artifact: &Digest, aside: &Path) -> Result<(), CacheError> {
        self.forget(artifact)?;
        files::create_dir_all(&files::parent_of(aside))?;
        Ok(tree::move_to(&self.layout.object(artifact), aside)?)
    }

    /// Waits until nobody else puts artifacts next to this one or takes them away.
    pub(super) fn turn(&self, artifact: &Digest) -> Result<SharedLock, CacheError> {
        let parent = files::parent_of(&self.layout.object(artifact));
        files::create_dir_all(&parent)?;
        Ok(SharedLock::write(&parent.join(".lock"))?)
    }

    /// Removes the entries that lead to an artifact. Before the artifact goes, so that no entry ever leads to
    /// nothing, whatever happens between.
    pub(super) fn forget(&self, artifact: &Digest) -> Result<(), CacheError> {
        for fingerprint in self.fingerprints()? {
            if matches!(self.entry(&fingerprint), Ok(Some(entry)) if entry.artifact == *artifact) {
                files::remove_file(&self.layout.entry(&fingerprint))?;
            }
        }
        Ok(())
    }

    /// Moves files that somebody has put into an artifact's folder and that do not belong to it into the folder
    /// `aside`. Returns whether there were any.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn set_strangers_aside(&self, artifact: &Digest, aside: &Path) -> Result<bool, CacheError> {
        let object = self.layout.object(artifact);
        let strangers = super::condition::strangers(&object)?;
        for name in &strangers {
            let (from, to) = (object.join(name), aside.join(name));
            files::create_dir_all(&files::parent_of(&to))?;
            let folder = files::parent_of(&from);
            files::set_writable(&folder, true)?;
            let moved = tree::move_to(&from, &to);
            files::set_writable(&folder, false)?;
            moved?;
        }
        Ok(!strangers.is_empty())
    }

    /// Deletes an artifact: out of sight by one rename, then bit by bit.
    ///
    /// # Errors
    /// When it cannot be moved or removed.
    pub fn remove_object(&self, artifact: &Digest) -> Result<(), CacheError> {
        let object = self.layout.object(artifact);
        if files::exists(&object) {
            let away = self.layout.tmp().join(files::unique_name("removed"));
            tree::move_to(&object, &away)?;
            tree::remove_dir_all(&away)?;
        }
        Ok(())
    }
}
