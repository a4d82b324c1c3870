//! Temporary files and folders beside what they will replace, and how those of dead processes are told.
//!
//! Their maker holds a lock on them for as long as it lives. A symbolic link cannot be locked: it is given up
//! by its age, since it lives for microseconds.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    FsError, fault,
    files::{parent_of, unique_name},
    shared::share_like_parent,
    tree,
};

const SUFFIX: &str = ".simsiam-pipe-tmp";
/// A link this old, whichever way the clock went, has lost its maker.
const LINK_LIFETIME_NS: u64 = 60_000_000_000;

/// A hidden name beside `path`.
fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    parent_of(path).join(format!(".{}{SUFFIX}", unique_name(&name)))
}

/// Whether the opened file still has this name: a sweeper may have come between its making and its lock.
fn has_name(file: &File, path: &Path) -> bool {
    file.metadata().is_ok_and(|ours| fs::symlink_metadata(path).is_ok_and(|named| named.ino() == ours.ino()))
}

/// A file that takes the place of another by one rename, or else is gone. Locked while it is open.
#[derive(Debug)]
pub struct ReplacingFile {
    path: PathBuf,
    temp: PathBuf,
    file: File,
}

impl ReplacingFile {
    /// Makes a file that will replace `path`; it can be read as well.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn for_path(path: &Path) -> io::Result<Self> {
        loop {
            let temp = name_beside(path);
            fault::change()?;
            let file = File::options().read(true).write(true).create_new(true).open(&temp)?;
            // Waits for a sweeper that was quicker, whose work the next line sees. Where a file system has no locks,
            // nobody can sweep either.
            let _ = file.lock();
            if has_name(&file, &temp) {
                let made = Self { path: path.to_path_buf(), temp, file };
                share_like_parent(&made.temp)?;
                return Ok(made);
            }
        }
    }

    /// Reads back what was written.
    ///
    /// # Errors
    /// When so much is not there.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Writes over what was written.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        fault::change()?;
        self.file.write_all_at(bytes, offset)
    }

    /// Waits until its bytes are on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// When that fails; nothing is left then.
    pub fn persist(mut self) -> io::Result<()> {
        fault::change().and_then(|()| fs::rename(&self.temp, &self.path))?;
        self.temp = PathBuf::new();
        Ok(())
    }
}

impl io::Write for ReplacingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::change()?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for ReplacingFile {
    fn drop(&mut self) {
        if self.temp != Path::new("") {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

/// Points a link at `target`, atomically replacing what has its name.
pub(super) fn replace_link(link: &Path, target: &Path) -> io::Result<()> {
    loop {
        let temp = name_beside(link);
        fault::change()?;
        std::os::unix::fs::symlink(target, &temp)?;
        match fault::change().and_then(|()| fs::rename(&temp, link)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && parent_of(link).is_dir() => {}
            Err(error) => {
                let _ = fs::remove_file(&temp);
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// A folder that becomes visible by one rename, or else is gone.
#[derive(Debug)]
pub struct TemporaryDir {
    path: PathBuf,
    _lock: Option<File>,
}

impl TemporaryDir {
    /// Makes a folder that will take the place of `path`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn for_path(path: &Path) -> Result<Self, FsError> {
        let at = |error| FsError::at("create the folder", path)(error);
        loop {
            let temp = name_beside(path);
            fault::change().and_then(|()| fs::create_dir(&temp)).map_err(at)?;
            let dir = match File::open(&temp) {
                // A sweeper has been here.
                Err(error) if error.kind() == io::ErrorKind::NotFound && parent_of(path).is_dir() => continue,
                opened => opened.map_err(at)?,
            };
            let _ = dir.lock();
            if has_name(&dir, &temp) {
                return Ok(Self { path: temp, _lock: Some(dir) });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, which must be free or that of an empty folder.
    ///
    /// # Errors
    /// When that fails; nothing is left then.
    pub fn persist(mut self, path: &Path) -> Result<(), FsError> {
        fault::change().and_then(|()| fs::rename(&self.path, path)).map_err(FsError::at("create the folder", path))?;
        self.path = PathBuf::new();
        super::files::sync_dir(&parent_of(path));
        Ok(())
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if self.path != Path::new("") {
            let _ = tree::remove_dir_all(&self.path);
        }
    }
}

/// Removes what dead processes left in a folder. What cannot be removed stays.
pub fn sweep_temporaries(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(SUFFIX)) {
            continue;
        }
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_symlink() {
            let made = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
            if crate::sys::now_ns().abs_diff(made) > LINK_LIFETIME_NS {
                let _ = fs::remove_file(&path);
            }
        } else if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = if meta.is_dir() { tree::remove_dir_all(&path).is_ok() } else { fs::remove_file(&path).is_ok() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let held = ReplacingFile::for_path(&path).unwrap();
        let left = name_beside(&path);
        fs::write(&left, "").unwrap();
        let held_dir = TemporaryDir::for_path(&path).unwrap();
        fs::write(dir.path().join(".mine.tmp"), "").unwrap();
        std::os::unix::fs::symlink("young", name_beside(&path)).unwrap();
        sweep_temporaries(dir.path());
        assert!(held.temp.exists() && !left.exists() && held_dir.path().exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        drop((held, held_dir));
        sweep_temporaries(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let temp = TemporaryDir::for_path(&path).unwrap();
        fs::write(temp.path().join("a"), "1").unwrap();
        drop(temp);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let temp = TemporaryDir::for_path(&path).unwrap();
        fs::write(temp.path().join("a"), "1").unwrap();
        fs::create_dir(&path).unwrap();
        temp.persist(&path).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
        let temp = TemporaryDir::for_path(&path).unwrap();
        assert!(temp.persist(&path).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
