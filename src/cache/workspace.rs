//! Making an artifact out of sight and showing it by one rename.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rayon::prelude::*;

use super::{
    CacheEntry, CacheError, Manifest, Provenance, Store,
    artifact::{CONFIG, LOGS, MANIFEST, MANIFEST_FORMAT, SharedFiles, content_digest, record_files_beside},
    condition::{Condition, check_object},
    entry::ENTRY_FORMAT,
};
use crate::{
    digest::Digest,
    fingerprint::StageFingerprint,
    fs::{LockFile, LockHolder, files, lock::SharedLock, tree},
    sys,
};

/// How often a waiting process asks for the lock.
const POLL: Duration = Duration::from_millis(50);

/// What a stage said, and why it failed.
const STAGE_LOG: &str = "stage.log";
/// What may have been left by a stage that failed, what says most first.
const LOG_FILES: [&str; 3] = ["command.log", WORKER_LOG, STAGE_LOG];
/// Where a stage's own process prints to, below `logs/`.
pub const WORKER_LOG: &str = "worker.log";

/// The right to make the artifact of one fingerprint, and the folders to do it in. Without it nothing can be
/// saved; dropped without saving, nothing is left but the checkpoints.
#[derive(Debug)]
pub struct Workspace<'a> {
    store: &'a Store,
    fingerprint: Digest,
    out_dir: PathBuf,
    work_dir: PathBuf,
    _tmp_lock: LockFile,
    _lock: LockFile,
}

/// How the wait for a lock ended.
#[derive(Debug)]
pub enum Claim<'a> {
    /// We have it.
    Granted(Box<Workspace<'a>>),
    /// The caller did not want to wait any longer.
    GaveUp,
}

impl Store {
    /// Takes the lock of a fingerprint, waiting for whoever holds it: `on_wait` is called while waiting and
    /// says whether to go on.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn claim(
        &self,
        fingerprint: &Digest,
        on_wait: &mut dyn FnMut(Option<&LockHolder>) -> bool,
    ) -> Result<Claim<'_>, CacheError> {
        let lock = loop {
            match LockFile::try_acquire(&self.layout().lock(fingerprint))? {
                Ok(lock) => break lock,
                Err(holder) if on_wait(holder.as_ref()) => std::thread::sleep(POLL),
                Err(_) => return Ok(Claim::GaveUp),
            }
        };
        let (out_dir, tmp_lock) = self.temporary_dir(&fingerprint.short())?;
        let work_dir = self.layout().work(fingerprint);
        files::create_dir_all(&work_dir)?;
        Ok(Claim::Granted(Box::new(Workspace {
            store: self,
            fingerprint: *fingerprint,
            out_dir,
            work_dir,
            _tmp_lock: tmp_lock,
            _lock: lock,
        })))
    }
}

/// Folders for a stage whose result nobody keeps; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    out_dir: PathBuf,
    work_dir: PathBuf,
    _lock: LockFile,
}

impl Scratch {
    /// Where the stage leaves its files.
    pub fn out_dir(&self) -> &Path {
        &self.out_dir
    }

    /// Where its checkpoints would be.
    pub fn work_dir(&self) -> &Path {
        &self.work_dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = tree::remove_dir_all(&self.path);
    }
}

impl Store {
    /// Folders for a stage whose result nobody keeps: empty, so that it starts from nothing.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn scratch(&self, fingerprint: &Digest) -> Result<Scratch, CacheError> {
        let (path, lock) = self.temporary_dir(&format!("audit-{}", fingerprint.short()))?;
        let (out_dir, work_dir) = (path.join("out"), path.join("work"));
        let scratch = Scratch { path, out_dir, work_dir, _lock: lock };
        files::create_dir_all(&scratch.out_dir)?;
        files::create_dir_all(&scratch.work_dir)?;
        Ok(scratch)
    }

    /// A folder that is swept when its lock is free. Locked before it is made.
    fn temporary_dir(&self, stem: &str) -> Result<(PathBuf, LockFile), CacheError> {
        loop {
            let path = self.layout().tmp().join(files::unique_name(stem));
            if let Ok(lock) = LockFile::try_acquire(&lock_path(&path))? {
                files::create_dir_all(&path)?;
                return Ok((path, lock));
            }
        }
    }
}

impl Workspace<'_> {
    /// Where the stage leaves its files.
    pub fn out_dir(&self) -> &Path {
        &self.out_dir
    }

    /// Where checkpoints survive a kill.
    pub fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    /// Makes what lies in [`Self::out_dir`] an artifact: everything is on disk before anything is visible.
    /// An artifact with the same content that is there already stays; one that is damaged is replaced, and
    /// moved to `aside` if somebody edited it. Files that are names of those of the artifact in `earlier` keep its
    /// digests and are left as they are. Returns the entry and whether something was moved aside.
    ///
    /// # Errors
    /// When the disk is full or fails, or a file cannot be part of an artifact; nothing is visible then.
    pub fn save(
        self,
        fingerprint: StageFingerprint,
        config_yaml: &str,
        metrics: BTreeMap<String, f64>,
        provenance: Provenance,
        earlier: Option<&Path>,
        aside: &Path,
    ) -> Result<(CacheEntry, bool), CacheError> {
        let layout = self.store.layout();
        let config_path = self.out_dir.join(CONFIG);
        files::remove_file(&config_path)?;
        files::write_new(&config_path, config_yaml.as_bytes())?;
        files::remove_file(&self.out_dir.join(MANIFEST))?;

        let shared = earlier.map(SharedFiles::of).unwrap_or_default();
        let found = record_files_beside(&self.out_dir, &provenance.stage, &shared)?;
        // One time for all, that of the files which have it already: see `condition.rs`.
        let is_shared = found.values().any(|(_, is_shared)| *is_shared);
        let stamp = if is_shared { shared.stamp } else { sys::now_ns() };
        let seal = |path: &Path| {
            files::share_with_group(path)?;
            files::make_read_only(path)?;
            files::set_mtime(path, stamp)
        };
        found.par_iter().filter(|(_, (_, is_shared))| !is_shared).try_for_each(|(name, _)| {
            let path = self.out_dir.join(name);
            files::sync_file(&path)?;
            seal(&path)
        })?;
        let records = found.into_iter().map(|(name, (record, _))| (name, record)).collect();
        let artifact = content_digest(&records);
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            kind: fingerprint.kind.output(),
            artifact,
            files: records,
            fingerprint: fingerprint.clone(),
            provenance: provenance.clone(),
        };
        let manifest_path = self.out_dir.join(MANIFEST);
        files::write_new(&manifest_path, &pretty(&manifest, &manifest_path)?)?;
        seal(&manifest_path)?;
        let mut dirs: Vec<PathBuf> = manifest
            .files
            .keys()
            .flat_map(|name| Path::new(name).ancestors().skip(1).filter(|dir| *dir != Path::new("")))
            .map(|dir| self.out_dir.join(dir))
            .collect();
        dirs.sort_unstable();
        dirs.dedup();
        for dir in dirs.iter().rev() {
            files::sync_dir(dir);
            files::set_writable(dir, false)?;
        }
        files::sync_dir(&self.out_dir);

        let size = manifest.size();
        let moved = self.publish(&artifact, aside)?;
        let entry = CacheEntry { format: ENTRY_FORMAT, fingerprint, artifact, size, metrics, provenance };
        let entry_path = layout.entry(&self.fingerprint);
        files::write_atomic(&entry_path, &pretty(&entry, &entry_path)?)?;
        let _ = tree::remove_dir_all(&self.work_dir);
        let _ = tree::remove_dir_all(&layout.logs(&self.fingerprint));
        Ok((entry, moved))
    }

    /// Keeps what the stage printed before it failed, with `summary` as one file more. Returns the file that says
    /// most, if there is room for any.
    pub fn keep_logs(&self, summary: &str) -> Option<PathBuf> {
        let logs = self.store.layout().logs(&self.fingerprint);
        let _ = tree::remove_dir_all(&logs);
        let printed = self.out_dir.join(LOGS);
        if printed.is_dir() {
            files::create_dir_all(&files::parent_of(&logs)).ok()?;
            tree::move_to(&printed, &logs).ok()?;
        }
        files::create_dir_all(&logs).ok()?;
        let _ = files::write_atomic_unsynced(&logs.join(STAGE_LOG), summary.as_bytes());
        let says = |name: &&str| files::size_and_mtime(&logs.join(name)).is_ok_and(|(size, _)| size > 0);
        LOG_FILES.into_iter().find(says).map(|name| logs.join(name))
    }

    fn publish(&self, artifact: &Digest, aside: &Path) -> Result<bool, CacheError> {
        let layout = self.store.layout();
        let object = layout.object(artifact);
        // Whoever deletes waits until the artifact is pinned; two who save the same content take turns.
        let _shared = SharedLock::read(&layout.gc_lock())?;
        let _turn = self.store.turn(artifact)?;
        self.store.write_pin(artifact)?;
        let mut moved = false;
        if files::exists(&object) {
            match check_object(&object, artifact)? {
                Condition::Whole => return Ok(false),
                Condition::Damaged { edited: true, .. } => {
                    self.store.set_aside(artifact, aside)?;
                    moved = true;
                }
                Condition::Damaged { .. } => {
                    self.store.forget(artifact)?;
                    self.store.remove_object(artifact)?;
                }
            }
        }
        files::rename(&self.out_dir, &object)?;
        files::set_writable(&object, false)?;
        for dir in [files::parent_of(&object), layout.objects()] {
            files::sync_dir(&dir);
        }
        Ok(moved)
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        let _ = tree::remove_dir_all(&self.out_dir);
        // An empty folder says nothing; one with checkpoints is what the next run starts from.
        if files::list(&self.work_dir).is_ok_and(|names| names.is_empty()) {
            let _ = tree::remove_dir_all(&self.work_dir);
        }
    }
}

fn pretty(value: &impl serde::Serialize, path: &Path) -> Result<Vec<u8>, CacheError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| CacheError::Damaged { path: path.to_path_buf(), message: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The lock that shows whether whoever made a temporary file or folder still lives.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Removes what dead processes left in `dir`: everything whose lock is free. A name is locked before it is
/// made, so nothing alive is ever without.
///
/// # Errors
/// When something cannot be removed.
pub(super) fn sweep(dir: &Path) -> Result<(), CacheError> {
    for name in files::list(dir)? {
        let path = dir.join(name.strip_suffix(".lock").unwrap_or(&name));
        if let Ok(_lock) = LockFile::try_acquire(&lock_path(&path))? {
            if path.is_dir() {
                tree::remove_dir_all(&path)?;
            } else {
                files::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// Removes locks that dead processes left. A lock that is in use stays, and so does what is no lock of a stage.
///
/// # Errors
/// When the folder cannot be read or a lock not removed.
pub(super) fn sweep_locks(dir: &Path) -> Result<(), CacheError> {
    for name in files::list(dir)?.iter().filter(|name| name.strip_suffix(".lock").is_some()) {
        // Taking a lock and letting it go removes it.
        drop(LockFile::try_acquire(&dir.join(name))?);
    }
    Ok(())
}
