//! A folder that is open: what lies in it, asked for by name, without the way from the root for each file.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::{FileStat, FsError, Ignore};

/// A folder that is open, with the names in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    key: Vec<u8>,
    dir: File,
    /// Each with a zero behind it.
    names: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    inode: u64,
    /// Where the name begins and how long it is, without its zero.
    start: usize,
    len: u32,
    is_link: bool,
}

/// What has a name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file, or a link to one.
    File {
        /// What `stat` says; of the link itself where it leads nowhere.
        stat: FileStat,
        /// The text of a link that leads nowhere.
        dangling: Option<Vec<u8>>,
    },
    /// A folder, or a link to one.
    Folder {
        /// Device and number.
        identity: (u64, u64),
    },
    /// A pipe, socket or device, or gone since the folder was listed.
    Nothing,
}

impl Folder {
    /// Opens and lists a folder. `key` is its path below the root of a walk with a `/` at the end; empty for the root.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(path: PathBuf, key: Vec<u8>, ignore: Ignore) -> Result<Self, FsError> {
        let list = || -> io::Result<(File, Vec<u8>, Vec<Entry>)> {
            let dir = File::open(&path)?;
            let (mut names, mut entries) = (Vec::new(), Vec::new());
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || ignore.skips(name) {
                    continue;
                }
                entries.push(Entry {
                    inode: entry.ino(),
                    start: names.len(),
                    len: name.len() as u32,
                    // Where the file system does not say, `stat` will.
                    is_link: entry.file_type() == FileType::Symlink,
                });
                names.extend_from_slice(entry.file_name().to_bytes_with_nul());
            }
            Ok((dir, names, entries))
        };
        let (dir, names, mut entries) = list().map_err(FsError::at("read", &path))?;
        // A folder lists its files in the order of a hash; on the disk and in the system's memory they lie by number.
        entries.sort_unstable_by(|a, b| {
            let name = |entry: &Entry| &names[entry.start..entry.start + entry.len as usize];
            a.inode.cmp(&b.inode).then_with(|| name(a).cmp(name(b)))
        });
        Ok(Self { path, key, dir, names, entries })
    }

    /// Its path below the root of the walk with a `/` at the end; empty for the root.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// How many names it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number that the folder lists for a name. Names are sorted by it, and equal numbers by name.
    pub fn inode(&self, idx: usize) -> u64 {
        self.entries[idx].inode
    }

    /// A name.
    pub fn name(&self, idx: usize) -> &[u8] {
        let Entry { start, len, .. } = self.entries[idx];
        &self.names[start..start + len as usize]
    }

    /// The path of what has this name.
    pub fn path_of(&self, idx: usize) -> PathBuf {
        self.path.join(OsStr::from_bytes(self.name(idx)))
    }

    fn c_name(&self, idx: usize) -> &CStr {
        let Entry { start, len, .. } = self.entries[idx];
        CStr::from_bytes_with_nul(&self.names[start..=start + len as usize]).unwrap_or_default()
    }

    /// Looks at what has this name.
    ///
    /// # Errors
    /// When that is refused.
    pub fn look(&self, idx: usize) -> Result<Found, FsError> {
        if self.entries[idx].is_link {
            return look_through(&self.path_of(idx));
        }
        match rustix::fs::statat(&self.dir, self.c_name(idx), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(Found::File { stat: file_stat(&stat), dangling: None }),
                FileType::Directory => {
                    let FileStat { device, inode, .. } = file_stat(&stat);
                    Ok(Found::Folder { identity: (device, inode) })
                }
                FileType::Symlink => look_through(&self.path_of(idx)),
                _ => Ok(Found::Nothing),
            },
            Err(rustix::io::Errno::NOENT) => Ok(Found::Nothing),
            Err(error) => Err(FsError::at("read", &self.path_of(idx))(error.into())),
        }
    }

    /// Opens the file that has this name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_file(&self, idx: usize) -> Result<File, FsError> {
        rustix::fs::openat(&self.dir, self.c_name(idx), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|error| FsError::at("read", &self.path_of(idx))(error.into()))
    }
}

/// The widths of these fields differ between systems.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
fn file_stat(stat: &Stat) -> FileStat {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    FileStat {
        size: stat.st_size as u64,
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
    }
}

/// What a link leads to.
fn look_through(path: &Path) -> Result<Found, FsError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ELOOP) => {
            // Removed since the folder was listed, or a link that leads nowhere.
            let Ok(target) = fs::read_link(path).map(PathBuf::into_os_string).map(OsString::into_vec) else {
                return Ok(Found::Nothing);
            };
            let meta = fs::symlink_metadata(path).map_err(FsError::at("read", path))?;
            return Ok(Found::File { stat: FileStat::of(&meta), dangling: Some(target) });
        }
        Err(error) => return Err(FsError::at("read", path)(error)),
    };
    Ok(found(&meta))
}

fn found(meta: &Metadata) -> Found {
    if meta.is_file() {
        Found::File { stat: FileStat::of(meta), dangling: None }
    } else if meta.is_dir() {
        Found::Folder { identity: (meta.dev(), meta.ino()) }
    } else {
        Found::Nothing
    }
}
