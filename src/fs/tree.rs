//! Whole folders: listing, copying, moving, removing. Links are taken as links, never followed.

use std::{
    fs,
    io::{self, BufRead as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{FsError, TemporaryDir, fault, files};

/// Everything below a folder that is no folder itself, as sorted relative paths.
///
/// # Errors
/// When a folder cannot be read.
pub fn entries_below(root: &Path) -> Result<Vec<PathBuf>, FsError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).map_err(FsError::at("read", &path))? {
            let entry = entry.map_err(FsError::at("read", &path))?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(FsError::at("read", &path))?;
            if kind.is_dir() { folders.push(name) } else { found.push(name) }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a folder can be read and holds nothing.
pub fn is_empty_dir(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The first byte, from 0, that two files do not have in common, the end of the shorter included.
///
/// # Errors
/// When one cannot be read.
pub fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>, FsError> {
    let open = |path: &Path| fs::File::open(path).map(io::BufReader::new).map_err(FsError::at("read", path));
    let (mut a, mut b) = (open(one)?, open(other)?);
    let mut offset = 0;
    loop {
        let left = a.fill_buf().map_err(FsError::at("read", one))?;
        let right = b.fill_buf().map_err(FsError::at("read", other))?;
        let len = left.len().min(right.len());
        if let Some(idx) = left.iter().zip(right).position(|(left, right)| left != right) {
            return Ok(Some(offset + idx as u64));
        }
        if len == 0 {
            return Ok((left.len() != right.len()).then_some(offset));
        }
        a.consume(len);
        b.consume(len);
        offset += len as u64;
    }
}

/// Copies a file into a new one, without copying its blocks where the file system can share them.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), FsError> {
    fault::change().and_then(|()| fs::copy(from, to)).map_err(FsError::at("copy", from))?;
    Ok(())
}

/// Gives a file a second name, or copies it where the file system cannot do that.
///
/// # Errors
/// When it cannot be read or written.
pub fn link_or_copy_file(from: &Path, to: &Path) -> Result<(), FsError> {
    match fault::change().and_then(|()| fs::hard_link(from, to)) {
        Ok(()) => Ok(()),
        Err(_) => copy_file(from, to),
    }
}

fn copy_entries(from: &Path, to: &Path) -> Result<(), FsError> {
    for name in entries_below(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        files::create_dir_all(&files::parent_of(&target))?;
        match fs::read_link(&source) {
            Ok(link) => std::os::unix::fs::symlink(link, &target).map_err(FsError::at("copy", &source))?,
            Err(_) => copy_file(&source, &target)?,
        }
    }
    Ok(())
}

/// Moves a file or folder, also to another file system; there, too, it appears as a whole. A folder that was
/// read only is writable afterwards.
///
/// # Errors
/// When it cannot be moved; it is then still where it was.
pub fn move_to(from: &Path, to: &Path) -> Result<(), FsError> {
    let is_dir = fs::symlink_metadata(from).map_err(FsError::at("read", from))?.is_dir();
    if is_dir {
        // A folder that changes its parent must be writable.
        files::set_writable(from, true)?;
    }
    match fault::change().and_then(|()| fs::rename(from, to)) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        result => return result.map_err(FsError::at("move", from)),
    }
    if is_dir {
        let temp = TemporaryDir::for_path(to)?;
        copy_entries(from, temp.path())?;
        temp.persist(to)?;
        remove_dir_all(from)
    } else {
        match fs::read_link(from) {
            Ok(link) => files::replace_symlink(to, &link)?,
            Err(_) => copy_file(from, to)?,
        }
        files::remove_file(from)
    }
}

/// Removes a folder with everything in it, read-only parts included. Links are removed, not followed.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_dir_all(path: &Path) -> Result<(), FsError> {
    match fault::change().and_then(|()| fs::remove_dir_all(path)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            make_dirs_writable(path);
            fault::change().and_then(|()| fs::remove_dir_all(path)).map_err(FsError::at("remove", path))
        }
    }
}

fn make_dirs_writable(path: &Path) {
    let mode = fs::metadata(path).map_or(0o755, |meta| meta.permissions().mode());
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_dirs_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_trees_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        files::create_dir_all(&tree.join("sub")).unwrap();
        fs::write(tree.join("sub/a"), "x").unwrap();
        files::set_writable(&tree.join("sub"), false).unwrap();
        remove_dir_all(&tree).unwrap();
        assert!(!files::exists(&tree));
        remove_dir_all(&tree).unwrap();
    }

    #[test]
    fn the_first_byte_that_differs_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("1"), dir.path().join("2"));
        let mut bytes: Vec<u8> = (0..40_000_u32).map(|idx| (idx % 251) as u8).collect();
        let differ = |bytes: &[u8]| {
            fs::write(&other, bytes).unwrap();
            first_difference(&one, &other).unwrap()
        };
        fs::write(&one, &bytes).unwrap();
        assert_eq!(differ(&bytes), None);
        assert_eq!(differ(&bytes[..30_000]), Some(30_000));
        assert_eq!(differ(&[]), Some(0));
        bytes[20_000] ^= 1;
        assert_eq!(differ(&bytes), Some(20_000));
    }

    /// A folder on another file system than the temporary folder, where this machine has one.
    fn elsewhere() -> Option<tempfile::TempDir> {
        use std::os::unix::fs::MetadataExt as _;
        let elsewhere = tempfile::tempdir_in("/dev/shm").ok()?;
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        (device(elsewhere.path()) != device(&std::env::temp_dir())).then_some(elsewhere)
    }

    #[test]
    fn a_tree_is_moved_to_another_file_system_with_its_links() {
        let here = tempfile::tempdir().unwrap();
        let Some(there) = elsewhere() else { return };
        let from = here.path().join("tree");
        files::create_dir_all(&from.join("sub")).unwrap();
        fs::write(from.join("sub/a"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
        files::set_writable(&from.join("sub"), false).unwrap();
        files::set_writable(&from, false).unwrap();
        let to = there.path().join("tree");
        move_to(&from, &to).unwrap();
        assert!(!files::exists(&from));
        assert_eq!(entries_below(&to).unwrap(), [PathBuf::from("link"), PathBuf::from("sub/a")]);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 1);
        move_to(&to.join("sub/a"), &here.path().join("a")).unwrap();
        assert_eq!(fs::read(here.path().join("a")).unwrap(), b"x");
    }
}
