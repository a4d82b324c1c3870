//! Advisory locks that die with the process that holds them.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{FsError, fault, shared::share_like_parent};

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// Since when, UTC.
    pub since: String,
}

/// A file that at most one process holds. The kernel gives it back when the process ends, however it ends, so
/// that no lock is ever stale. The file is removed on release.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock, or says who holds it.
    ///
    /// # Errors
    /// When the file cannot be created or the file system has no locks.
    pub fn try_acquire(path: &Path) -> Result<Result<Self, Option<LockHolder>>, FsError> {
        loop {
            let mut file = open(path).map_err(FsError::at("create the lock", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Ok(Err(serde_json::from_str(&text).ok()));
                }
                Err(TryLockError::Error(error)) => return Err(FsError::at("lock", path)(error)),
            }
            // The holder before us may have removed the file after we opened it: then we hold a lock that
            // nobody else can see.
            let ours = file.metadata().map_err(FsError::at("lock", path))?.ino();
            if fs::metadata(path).is_ok_and(|meta| meta.ino() == ours) {
                let mut lock = Self { file, path: path.to_path_buf() };
                lock.write_holder();
                return Ok(Ok(lock));
            }
        }
    }

    /// For the message of whoever waits; a full disk must not keep anybody from locking.
    fn write_holder(&mut self) {
        let holder = LockHolder {
            pid: std::process::id(),
            host: crate::sys::host_name(),
            since: crate::sys::Timestamp::now().to_string(),
        };
        if let Ok(text) = serde_json::to_vec(&holder) {
            let _ = self.file.set_len(0);
            let _ = self.file.seek(SeekFrom::Start(0));
            let _ = self.file.write_all(&text);
        }
    }
}

/// Whether somebody holds the lock. Changes nothing on the disk.
pub fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Where the fault strikes, nobody sees the difference: a free lock.
        let _ = fault::change().and_then(|()| fs::remove_file(&self.path));
    }
}

/// A lock held by many readers or one writer, for short moments.
#[derive(Debug)]
pub struct SharedLock {
    _file: File,
}

impl SharedLock {
    /// Waits until no writer holds it.
    ///
    /// # Errors
    /// When the file cannot be created or the file system has no locks.
    pub fn read(path: &Path) -> Result<Self, FsError> {
        let file = open_shared(path)?;
        file.lock_shared().map_err(FsError::at("lock", path))?;
        Ok(Self { _file: file })
    }

    /// Waits until nobody holds it.
    ///
    /// # Errors
    /// When the file cannot be created or the file system has no locks.
    pub fn write(path: &Path) -> Result<Self, FsError> {
        let file = open_shared(path)?;
        file.lock().map_err(FsError::at("lock", path))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    fault::change()?;
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    share_like_parent(path)?;
    Ok(file)
}

/// One that is there can be locked by those, too, who may not write it.
fn open_shared(path: &Path) -> Result<File, FsError> {
    match open(path) {
        Ok(file) => Ok(file),
        Err(error) => File::open(path).map_err(|_| FsError::at("create the lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_holds_it_and_gets_it_after_release() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = LockFile::try_acquire(&path).unwrap().unwrap();
        let holder = LockFile::try_acquire(&path).unwrap().unwrap_err().unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(is_held(&path));
        drop(first);
        assert!(!path.exists() && !is_held(&path));
        assert!(LockFile::try_acquire(&path).unwrap().is_ok());
    }
}
