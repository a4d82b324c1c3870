//! Every file below a folder, with what `stat` says about it: folder by folder, several at a time.

use std::{
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::{
    FsError,
    folder::{Folder, Found},
};

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
    pub(super) fn skips(self, name: &[u8]) -> bool {
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
    let folders = walk_folders(root, ignore, &|folder| {
        let found = (0..folder.len())
            .into_par_iter()
            .with_min_len(128)
            .map(|idx| folder.look(idx))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut files, mut below) = (Vec::new(), Vec::new());
        for (idx, item) in found.into_iter().enumerate() {
            match item {
                Found::File { stat, dangling } => {
                    let name = [folder.key(), folder.name(idx)].concat();
                    files.push(WalkedFile { name, stat, dangling });
                }
                Found::Folder { identity } => below.push(SubFolder { idx, identity }),
                Found::Nothing => {}
            }
        }
        Ok((files, below))
    })?;
    let mut files = folders.concat();
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A folder that was found in another.
#[derive(Clone, Copy, Debug)]
pub struct SubFolder {
    /// Which of the folder's names it has.
    pub idx: usize,
    /// Device and number.
    pub identity: (u64, u64),
}

/// Calls `visit` for the folder `root` and all below, several at a time, and returns what it said to each. `visit`
/// also says which of the names are folders; one that leads back up is not entered again.
///
/// # Errors
/// When a folder cannot be read, or `visit` fails.
pub fn walk_folders<T: Send>(
    root: &Path,
    ignore: Ignore,
    visit: &(impl Fn(&Folder) -> Result<(T, Vec<SubFolder>), FsError> + Sync),
) -> Result<Vec<T>, FsError> {
    let meta = fs::metadata(root).map_err(FsError::at("read", root))?;
    descend(root.to_path_buf(), Vec::new(), &[(meta.dev(), meta.ino())], ignore, visit)
}

fn descend<T: Send>(
    path: PathBuf,
    key: Vec<u8>,
    ancestors: &[(u64, u64)],
    ignore: Ignore,
    visit: &(impl Fn(&Folder) -> Result<(T, Vec<SubFolder>), FsError> + Sync),
) -> Result<Vec<T>, FsError> {
    let folder = Folder::open(path, key, ignore)?;
    let (own, below) = visit(&folder)?;
    let below: Vec<_> = below
        .into_iter()
        .filter(|sub| !ancestors.contains(&sub.identity))
        .map(|sub| (folder.path_of(sub.idx), [folder.key(), folder.name(sub.idx), b"/"].concat(), sub.identity))
        .collect();
    // Neither the open folder nor its names are needed any more.
    drop(folder);
    let below = below
        .into_par_iter()
        .map(|(path, key, identity)| descend(path, key, &[ancestors, &[identity]].concat(), ignore, visit))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(own).chain(below.into_iter().flatten()).collect())
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
