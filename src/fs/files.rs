//! Reading, atomic writing, digests, permissions and links.
//!
//! Whatever changes the disk first asks `fault.rs`, which tests use to stop the program there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

pub use super::tree::remove_dir_all;
use super::{FileStat, FsError, ReplacingFile, fault, shared::share_like_parent, temporary};
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

/// The first bytes of a file, `length` of them at most; `None` where there is none or it is a folder.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_start(path: &Path, length: usize) -> Result<Option<Vec<u8>>, FsError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        File::open(path)?.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(FsError::at("read", path)(error)),
    }
}

/// Creates a folder and those above it.
///
/// # Errors
/// When that fails.
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    if parent != path {
        create_dir_all(&parent)?;
    }
    match fault::change().and_then(|()| fs::create_dir(path)) {
        // Somebody else was faster, or a file is in the way.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Ok(()) => share_like_parent(path),
        Err(error) => Err(error),
    }
    .map_err(FsError::at("create the folder", path))
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
    replace(path, bytes, true).map_err(FsError::at("write", path))?;
    sync_dir(&parent_of(path));
    Ok(())
}

/// Writes a file of which nobody minds if it is lost in a crash, as long as it is never seen half written.
///
/// # Errors
/// When any step fails.
pub fn write_atomic_unsynced(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    replace(path, bytes, false).map_err(FsError::at("write", path))
}

fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = ReplacingFile::for_path(path)?;
    file.write_all(bytes)?;
    if sync {
        file.sync()?;
    }
    file.persist()
}

/// Writes a new file and waits until it is on disk. Refuses to overwrite.
///
/// # Errors
/// When it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = fault::change().and_then(|()| File::create_new(path)).map_err(FsError::at("create", path))?;
    fault::change()
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .map_err(FsError::at("write", path))
}

/// Appends a line to a file in one write, so that lines of different processes never mix. A line that a full
/// disk cut off is ended first.
///
/// # Errors
/// When it cannot be written.
pub fn append_line(path: &Path, line: &[u8]) -> Result<(), FsError> {
    let append = || {
        fault::change()?;
        let new = !exists(path);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        if new {
            share_like_parent(path)?;
        }
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(io::SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let end: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
        file.write_all(&[end, line, b"\n"].concat())
    };
    append().map_err(FsError::at("write", path))
}

/// Opens a file for writing from the start, for a child's output.
///
/// # Errors
/// When it cannot be created.
pub fn create(path: &Path) -> Result<File, FsError> {
    fault::change().and_then(|()| File::create(path)).map_err(FsError::at("create", path))
}

/// Waits until a file's bytes are on disk.
///
/// # Errors
/// When the disk refuses.
pub fn sync_file(path: &Path) -> Result<(), FsError> {
    fault::change().and_then(|()| File::open(path)).and_then(|file| file.sync_all()).map_err(FsError::at("write", path))
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
    fault::change().and_then(|()| fs::rename(from, to)).map_err(FsError::at("rename", from))
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    match fault::change().and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Takes away or gives back the owner's right to write; what may be executed stays so.
///
/// # Errors
/// When the permissions cannot be changed.
pub fn set_writable(path: &Path, writable: bool) -> Result<(), FsError> {
    let mode = fs::metadata(path).map_err(FsError::at("read", path))?.permissions().mode();
    let mode = if writable { mode | 0o200 } else { mode & !0o222 };
    fault::change()
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(FsError::at("change the permissions of", path))
}

/// Takes away everybody's right to write into a file, and lets those read it who may list the folder around it: some
/// libraries make files that only their owner may read, whatever the umask.
///
/// # Errors
/// When the permissions cannot be changed.
pub fn make_read_only(path: &Path) -> Result<(), FsError> {
    let mode =
        |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode()).map_err(FsError::at("read", path));
    let mode = (mode(path)? | (mode(&parent_of(path))? & 0o444)) & !0o222;
    fault::change()
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(FsError::at("change the permissions of", path))
}

/// Whether a file can be created in this folder.
pub fn is_writable_dir(path: &Path) -> bool {
    let probe = path.join(unique_name(".probe"));
    let writable = File::create_new(&probe).is_ok();
    let _ = fs::remove_file(probe);
    writable
}

/// What `stat` says of a file; of a link itself.
///
/// # Errors
/// When it is not there or not readable.
pub fn stat(path: &Path) -> Result<FileStat, FsError> {
    fs::symlink_metadata(path).map(|meta| FileStat::of(&meta)).map_err(FsError::at("read", path))
}

/// Size in bytes and time of last change in nanoseconds since 1970.
///
/// # Errors
/// When the file is not there or not readable.
pub fn size_and_mtime(path: &Path) -> Result<(u64, i64), FsError> {
    stat(path).map(|stat| (stat.size, stat.mtime_ns))
}

/// Sets the time of last change, in nanoseconds since 1970.
///
/// # Errors
/// When that is not allowed.
pub fn set_mtime(path: &Path, nanoseconds: i64) -> Result<(), FsError> {
    let time = std::time::Duration::from_nanos(nanoseconds.unsigned_abs());
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let time = if nanoseconds < 0 { epoch.checked_sub(time) } else { epoch.checked_add(time) };
    fault::change()
        .and_then(|()| File::open(path))
        .and_then(|file| file.set_modified(time.unwrap_or(epoch)))
        .map_err(FsError::at("change the time of", path))
}

/// Gives the group of a shared folder the rights on a file that was made in it by other means than this module.
///
/// # Errors
/// When the permissions cannot be changed.
pub fn share_with_group(path: &Path) -> Result<(), FsError> {
    share_like_parent(path).map_err(FsError::at("change the permissions of", path))
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

/// As [`digest_file`] for an open file at `path` that had `size` bytes a moment ago. Makes as few calls to the system as
/// can be, which are most of the work where files are small and many; `buffer` is used again.
///
/// # Errors
/// When it cannot be read.
pub fn digest_open_file(mut file: File, path: &Path, size: u64, buffer: &mut Vec<u8>) -> Result<Digest, FsError> {
    if size <= SMALL_FILE {
        // Room for a byte more: who gets all and no more has seen the end.
        let room = size as usize + 1;
        buffer.resize(buffer.len().max(room), 0);
        if file.read(&mut buffer[..room]).is_ok_and(|len| len as u64 == size) {
            return Ok(Digest::of(&buffer[..size as usize]));
        }
    }
    drop(file);
    digest_file(path)
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
    match fault::change().and_then(|()| fs::hard_link(path, name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(FsError::at("link", name)(error)),
        _ => Ok(()),
    }
}

/// Points a symbolic link at `target`, atomically replacing an older link.
///
/// # Errors
/// When the link cannot be made.
pub fn replace_symlink(link: &Path, target: &Path) -> Result<(), FsError> {
    temporary::replace_link(link, target).map_err(FsError::at("create the link", link))
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
    fn who_may_list_a_folder_may_read_what_is_sealed_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for (around, before, after) in [(0o755, 0o600, 0o444), (0o750, 0o600, 0o440), (0o700, 0o755, 0o555)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(around)).unwrap();
            fs::write(&path, b"one").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            make_read_only(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, after);
            remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        append_line(&path, b"one").unwrap();
        fs::write(&path, "one\ntw").unwrap();
        append_line(&path, b"three").unwrap();
        append_line(&path, b"four").unwrap();
        assert_eq!(read(&path).unwrap(), b"one\ntw\nthree\nfour\n");
    }

    #[test]
    fn large_and_small_files_have_the_digest_of_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for len in [0, 1, SMALL_FILE as usize, SMALL_FILE as usize + 1, CHUNK, CHUNK + 7] {
            let bytes: Vec<u8> = (0..len).map(|idx| (idx * 31 % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            assert_eq!(digest_file(&path).unwrap(), Digest::of(&bytes), "length {len}");
            // Whatever size it was said to have, and whatever lies in the buffer.
            for size in [len, len + 3, len.saturating_sub(1), 0] {
                let mut buffer = vec![9; 5];
                let file = File::open(&path).unwrap();
                let digest = digest_open_file(file, &path, size as u64, &mut buffer).unwrap();
                assert_eq!(digest, Digest::of(&bytes), "length {len}, said to be {size}");
            }
        }
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
