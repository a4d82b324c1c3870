//! Reading, atomic writing, digests, permissions and links.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::FsError;
use crate::digest::Digest;

/// Files up to this size are hashed from one read.
const SMALL_FILE: u64 = 1 << 20;
/// Larger ones are hashed by all threads, this many bytes at a time.
const CHUNK: usize = 8 << 20;

/// The bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    fs::read(path).map_err(FsError::at("read", path))
}

/// The bytes of a file, `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FsError::at("read", path)(error)),
    }
}

/// Creates a folder and those above it.
///
/// # Errors
/// When that fails.
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    fs::create_dir_all(path).map_err(FsError::at("create the folder", path))
}

/// Whether something is there, a dangling link included.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A name that no other process uses: for temporary files and folders.
pub fn unique_name(stem: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanos = crate::sys::now_ns();
    format!("{stem}.{}-{count}-{:x}", std::process::id(), nanos & 0xffff_ffff)
}

/// Writes a file so that readers see the old or the new content and nothing between, even after a crash.
///
/// # Errors
/// When any step fails; the old content is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let parent = parent_of(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temp = parent.join(unique_name(&format!(".{name}")));
    let written = (|| {
        let mut file = File::create_new(&temp).map_err(FsError::at("write", path))?;
        file.write_all(bytes).map_err(FsError::at("write", path))?;
        file.sync_all().map_err(FsError::at("write", path))?;
        fs::rename(&temp, path).map_err(FsError::at("write", path))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written?;
    sync_dir(&parent);
    Ok(())
}

/// Writes a file of which nobody minds if it is lost in a crash, as long as it is never seen half written.
///
/// # Errors
/// When any step fails.
pub fn write_atomic_unsynced(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temp = parent_of(path).join(unique_name(&format!(".{name}")));
    fs::write(&temp, bytes).and_then(|()| fs::rename(&temp, path)).map_err(|error| {
        let _ = fs::remove_file(&temp);
        FsError::at("write", path)(error)
    })
}

/// Writes a new file and waits until it is on disk. Refuses to overwrite.
///
/// # Errors
/// When it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = File::create_new(path).map_err(FsError::at("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FsError::at("write", path))
}

/// Appends to a file in one write, so that lines of different processes never mix.
///
/// # Errors
/// When it cannot be written.
pub fn append(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(FsError::at("write", path))?;
    file.write_all(bytes).map_err(FsError::at("write", path))
}

/// Opens a file for writing from the start, for a child's output.
///
/// # Errors
/// When it cannot be created.
pub fn create(path: &Path) -> Result<File, FsError> {
    File::create(path).map_err(FsError::at("create", path))
}

/// Waits until a file's bytes are on disk.
///
/// # Errors
/// When the disk refuses.
pub fn sync_file(path: &Path) -> Result<(), FsError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(FsError::at("write", path))
}

/// Waits until a folder's entries are on disk, where the file system can do that.
pub fn sync_dir(path: &Path) {
    if let Ok(dir) = File::open(path) {
        let _ = dir.sync_all();
    }
}

/// Renames within one file system.
///
/// # Errors
/// When that fails.
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    fs::rename(from, to).map_err(FsError::at("rename", from))
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder with everything in it, read-only parts included. Links are removed, not followed.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_dir_all(path: &Path) -> Result<(), FsError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            make_dirs_writable(path);
            fs::remove_dir_all(path).map_err(FsError::at("remove", path))
        }
    }
}

fn make_dirs_writable(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_dirs_writable(&entry.path());
        }
    }
}

/// Takes away or gives back the owner's right to write; what may be executed stays so.
///
/// # Errors
/// When the permissions cannot be changed.
pub fn set_writable(path: &Path, writable: bool) -> Result<(), FsError> {
    let mode = fs::metadata(path).map_err(FsError::at("read", path))?.permissions().mode();
    let mode = if writable { mode | 0o200 } else { mode & !0o222 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(FsError::at("change the permissions of", path))
}

/// Whether a file can be created in this folder.
pub fn is_writable_dir(path: &Path) -> bool {
    let probe = path.join(unique_name(".probe"));
    let writable = File::create_new(&probe).is_ok();
    let _ = fs::remove_file(probe);
    writable
}

/// Size in bytes and time of last change in nanoseconds since 1970.
///
/// # Errors
/// When the file is not there or not readable.
pub fn size_and_mtime(path: &Path) -> Result<(u64, i64), FsError> {
    let meta = fs::symlink_metadata(path).map_err(FsError::at("read", path))?;
    Ok((meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec()))
}

/// Sets the time of last change to now.
///
/// # Errors
/// When that is not allowed.
pub fn touch(path: &Path) -> Result<(), FsError> {
    File::open(path)
        .and_then(|file| file.set_modified(std::time::SystemTime::now()))
        .map_err(FsError::at("change the time of", path))
}

/// BLAKE3 digest of a file's bytes. Large files use every thread.
///
/// Reads instead of mapping: a file that somebody truncates meanwhile must be an error, not a crash.
///
/// # Errors
/// When it cannot be read.
pub fn digest_file(path: &Path) -> Result<Digest, FsError> {
    let mut file = File::open(path).map_err(FsError::at("read", path))?;
    let size = file.metadata().map_err(FsError::at("read", path))?.len();
    if size <= SMALL_FILE {
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes).map_err(FsError::at("read", path))?;
        return Ok(Digest::of(&bytes));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FsError::at("read", path)(error)),
            }
        }
        hasher.update_rayon(&buffer[..filled]);
        if filled < CHUNK {
            return Ok(Digest::from_bytes(*hasher.finalize().as_bytes()));
        }
    }
}

/// Names in a folder, sorted; empty where there is no such folder. Hidden names are left out.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn list(path: &Path) -> Result<Vec<String>, FsError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(FsError::at("read", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(FsError::at("read", path))?.file_name();
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The target of a symbolic link, `None` where there is none or something else.
pub fn read_link(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

/// Gives a file a second name, unless that is taken.
///
/// # Errors
/// When the file system cannot do that.
pub fn hard_link(path: &Path, name: &Path) -> Result<(), FsError> {
    match fs::hard_link(path, name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(FsError::at("link", name)(error)),
        _ => Ok(()),
    }
}

/// Points a symbolic link at `target`, atomically replacing an older link.
///
/// # Errors
/// When the link cannot be made.
pub fn replace_symlink(link: &Path, target: &Path) -> Result<(), FsError> {
    let temp = parent_of(link).join(unique_name(".link"));
    std::os::unix::fs::symlink(target, &temp).and_then(|()| fs::rename(&temp, link)).map_err(|error| {
        let _ = fs::remove_file(&temp);
        FsError::at("create the link", link)(error)
    })
}

/// The path without links and `..`.
///
/// # Errors
/// When it does not exist.
pub fn canonicalize(path: &Path) -> Result<PathBuf, FsError> {
    fs::canonicalize(path).map_err(FsError::at("find", path))
}

/// `target` as seen from the folder `from`; both absolute.
pub fn relative_path(from: &Path, target: &Path) -> PathBuf {
    let from: Vec<_> = from.components().collect();
    let target: Vec<_> = target.components().collect();
    let common = from.iter().zip(&target).take_while(|(a, b)| a == b).count();
    std::iter::repeat_n(std::path::Component::ParentDir, from.len() - common)
        .chain(target[common..].iter().copied())
        .collect()
}

/// Folder of a path; `.` for a bare name.
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Marks a folder as a cache for backup programs (<https://bford.info/cachedir/>).
///
/// # Errors
/// When it cannot be written.
pub fn write_cachedir_tag(dir: &Path) -> Result<(), FsError> {
    let text = "Signature: 8a477f597d28d172789f06886806bc55\n\
                # This folder is a cache made by simsiam-pipe; backup programs may leave it out.\n";
    write_atomic(&dir.join("CACHEDIR.TAG"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn large_and_small_files_have_the_digest_of_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for len in [0, 1, SMALL_FILE as usize, SMALL_FILE as usize + 1, CHUNK, CHUNK + 7] {
            let bytes: Vec<u8> = (0..len).map(|idx| (idx * 31 % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            assert_eq!(digest_file(&path).unwrap(), Digest::of(&bytes), "length {len}");
        }
    }

    #[test]
    fn read_only_trees_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        create_dir_all(&tree.join("sub")).unwrap();
        fs::write(tree.join("sub/a"), "x").unwrap();
        set_writable(&tree.join("sub"), false).unwrap();
        remove_dir_all(&tree).unwrap();
        assert!(!exists(&tree));
        remove_dir_all(&tree).unwrap();
    }

    #[test]
    fn relative_paths_lead_from_folder_to_target() {
        let path = relative_path(Path::new("/p/runs/intel"), Path::new("/p/.simsiam-pipe/objects/aa"));
        assert_eq!(path, Path::new("../../.simsiam-pipe/objects/aa"));
    }

    #[test]
    fn links_are_replaced_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        replace_symlink(&link, Path::new("one")).unwrap();
        replace_symlink(&link, Path::new("two")).unwrap();
        assert_eq!(read_link(&link), Some(PathBuf::from("two")));
    }

    #[test]
    fn errors_name_action_and_path() {
        let error = read(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/no/such/file`");
        assert!(error.is_not_found());
    }
}
