//! What went wrong on which path.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Reading or writing failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FsError {
    /// `read`, `write`, `create`, …
    pub action: &'static str,
    /// Which file or folder.
    pub path: PathBuf,
    /// The system's word.
    pub source: io::Error,
}

impl FsError {
    /// For `map_err`: adds the action and the path to the system's word.
    pub fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_path_buf(), source }
    }

    /// Whether the file or folder is simply not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether this process may not write there.
    pub fn is_read_only(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }

    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
                "free some space (`simsiam-pipe cache gc` shows what can go) and run again: finished stages are kept",
            ),
            io::ErrorKind::PermissionDenied => Some(
                "check the permissions of the file and of its folder, or put the cache elsewhere with `--cache-dir`",
            ),
            io::ErrorKind::ReadOnlyFilesystem => Some("put the cache on a writable disk with `--cache-dir`"),
            io::ErrorKind::NotADirectory => Some(
                "a part of this path is a file where a folder belongs: move that file away, or put the cache elsewhere \
                 with `--cache-dir`",
            ),
            io::ErrorKind::IsADirectory => Some("there is a folder where a file belongs: move it away"),
            io::ErrorKind::NotFound if self.action.starts_with("create") => {
                Some("this place takes no folders: choose another, for the cache with `--cache-dir`")
            }
            _ => None,
        }
    }
}
