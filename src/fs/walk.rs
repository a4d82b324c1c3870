//! Every file below a folder, sorted, with what `stat` says about it.

use std::{
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::FsError;

/// What tells that a file has not been touched.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FileStat {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content, name or permissions; users cannot set it.
    pub ctime_ns: i64,
    /// Number of the file on its device.
    pub inode: u64,
    /// The device.
    pub device: u64,
}

impl FileStat {
    /// From what the system says.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            ctime_ns: meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }
}

/// Which names a walk leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignore {
    /// None.
    Nothing,
    /// Hidden names and what desktops leave in folders of images (`Thumbs.db`, `desktop.ini`).
    HiddenAndDesktopFiles,
}

impl Ignore {
    fn skips(self, name: &[u8]) -> bool {
        self == Self::HiddenAndDesktopFiles
            && (name.starts_with(b".") || name == b"Thumbs.db" || name == b"desktop.ini")
    }
}

/// A file found by [`walk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkedFile {
    /// Path below the root with `/` between names, as raw bytes; empty if the root is a file itself.
    pub name: Vec<u8>,
    /// What `stat` says; of the link itself where it leads nowhere.
    pub stat: FileStat,
    /// The text of a link that leads nowhere.
    pub dangling: Option<Vec<u8>>,
}

impl WalkedFile {
    /// Where the file is.
    pub fn path(&self, root: &Path) -> PathBuf {
        if self.name.is_empty() { root.to_path_buf() } else { root.join(std::ffi::OsStr::from_bytes(&self.name)) }
    }
}

/// Every file below `root`, sorted by name. Links are followed; one that leads back up is not entered again.
/// Pipes, sockets and devices are left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn walk(root: &Path, ignore: Ignore) -> Result<Vec<WalkedFile>, FsError> {
    let meta = fs::metadata(root).map_err(FsError::at("read", root))?;
    if !meta.is_dir() {
        return Ok(vec![WalkedFile { name: vec![], stat: FileStat::of(&meta), dangling: None }]);
    }
    let mut files = walk_dir(root, &[], &[(meta.dev(), meta.ino())], ignore)?;
    // Nearly sorted already, which this kind of sorting makes use of.
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

enum Found {
    File(WalkedFile),
    Dir { name: Vec<u8>, identity: (u64, u64) },
    Other,
}

fn walk_dir(path: &Path, prefix: &[u8], ancestors: &[(u64, u64)], ignore: Ignore) -> Result<Vec<WalkedFile>, FsError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(FsError::at("read", path))? {
        let entry = entry.map_err(FsError::at("read", path))?;
        let name = entry.file_name();
        if !ignore.skips(name.as_bytes()) {
            entries.push((entry, name));
        }
    }
    // A folder lists its files in the order of a hash; on the disk and in the system's memory they lie by their number.
    entries.sort_unstable_by_key(|(entry, _)| entry.ino());
    let found = entries
        .par_iter()
        .with_min_len(128)
        .map(|(entry, name)| {
            let mut full = Vec::with_capacity(prefix.len() + 1 + name.len());
            if !prefix.is_empty() {
                full.extend_from_slice(prefix);
                full.push(b'/');
            }
            full.extend_from_slice(name.as_bytes());
            find(entry, full)
        })
        .collect::<Result<Vec<_>, FsError>>()?;

    // Each keeps the folder open.
    drop(entries);
    let mut files = Vec::with_capacity(found.len());
    let mut dirs = Vec::new();
    for item in found {
        match item {
            Found::File(file) => files.push(file),
            Found::Dir { name, identity } if !ancestors.contains(&identity) => dirs.push((name, identity)),
            Found::Dir { .. } | Found::Other => {}
        }
    }
    dirs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let below = dirs
        .par_iter()
        .map(|(name, identity)| {
            let own = &name[if prefix.is_empty() { 0 } else { prefix.len() + 1 }..];
            let mut ancestors = ancestors.to_vec();
            ancestors.push(*identity);
            walk_dir(&path.join(std::ffi::OsStr::from_bytes(own)), name, &ancestors, ignore)
        })
        .collect::<Result<Vec<_>, FsError>>()?;
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    files.reserve_exact(below.iter().map(Vec::len).sum());
    for mut below in below {
        files.append(&mut below);
    }
    Ok(files)
}

fn find(entry: &DirEntry, name: Vec<u8>) -> Result<Found, FsError> {
    // What is no link is asked for by its name in the open folder: with the whole path the system would walk down from
    // the root for each file.
    if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
        return match entry.metadata() {
            Ok(meta) if !meta.is_symlink() => Ok(found(&meta, name)),
            Ok(_) => find_by_path(&entry.path(), name),
            // Removed since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Other),
            Err(error) => Err(FsError::at("read", &entry.path())(error)),
        };
    }
    find_by_path(&entry.path(), name)
}

fn find_by_path(path: &Path, name: Vec<u8>) -> Result<Found, FsError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ELOOP) => {
            // Removed since the folder was listed, or a link that leads nowhere.
            let Ok(target) = fs::read_link(path) else { return Ok(Found::Other) };
            let meta = fs::symlink_metadata(path).map_err(FsError::at("read", path))?;
            let dangling = Some(target.into_os_string().into_vec());
            return Ok(Found::File(WalkedFile { name, stat: FileStat::of(&meta), dangling }));
        }
        Err(error) => return Err(FsError::at("read", path)(error)),
    };
    Ok(found(&meta, name))
}

fn found(meta: &Metadata, name: Vec<u8>) -> Found {
    if meta.is_file() {
        Found::File(WalkedFile { name, stat: FileStat::of(meta), dangling: None })
    } else if meta.is_dir() {
        Found::Dir { name, identity: (meta.dev(), meta.ino()) }
    } else {
        Found::Other
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, ignore: Ignore) -> Vec<String> {
        walk(root, ignore).unwrap().iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
    }

    #[test]
    fn files_are_sorted_and_junk_is_left_out_on_request() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.png", "a/1.png", "a/.DS_Store", "Thumbs.db", ".git/HEAD"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        assert_eq!(names(dir.path(), Ignore::HiddenAndDesktopFiles), ["a/1.png", "b/2.png"]);
        assert_eq!(names(dir.path(), Ignore::Nothing).len(), 5);
    }

    #[test]
    fn links_are_followed_but_loops_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/x"), "x").unwrap();
        symlink("../..", dir.path().join("a/b/up")).unwrap();
        symlink("a/b/x", dir.path().join("y")).unwrap();
        symlink("nowhere", dir.path().join("z")).unwrap();
        symlink("self", dir.path().join("self")).unwrap();
        assert_eq!(names(dir.path(), Ignore::Nothing), ["a/b/x", "self", "y", "z"]);
    }

    #[test]
    fn a_file_is_a_tree_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "x").unwrap();
        let files = walk(&path, Ignore::Nothing).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].path(&path), path);
    }
}
