//! Whether an artifact is as it was left, as far as that can be said without reading it.
//!
//! All files of an artifact have one time of last change, that of the manifest. Whatever has another time has been
//! touched since, whichever way the clock went, and only then its bytes are read.

use std::path::{Path, PathBuf};

use super::{CacheError, Manifest, artifact::MANIFEST};
use crate::{
    digest::Digest,
    fs::{files, tree},
};

/// What was found.
#[derive(Debug)]
pub(super) enum Condition {
    /// All is there.
    Whole,
    /// Something is not as it was left.
    Damaged {
        /// What.
        message: String,
        /// Whether somebody may have put work into it.
        edited: bool,
    },
}

/// Checks names, sizes and times of an artifact's files.
pub(super) fn check_object(object: &Path, artifact: &Digest) -> Result<Condition, CacheError> {
    let damaged = |message: String, edited| Ok(Condition::Damaged { message, edited });
    if !files::exists(object) {
        return damaged("its artifact is gone".into(), false);
    }
    let manifest = match Manifest::load(object) {
        Ok(manifest) => manifest,
        Err(CacheError::Damaged { message, .. }) => {
            return damaged(format!("`{MANIFEST}` is damaged: {message}"), true);
        }
        Err(CacheError::Fs(error)) if error.is_not_found() => return damaged(format!("`{MANIFEST}` is gone"), true),
        Err(error) => return Err(error),
    };
    if manifest.artifact != *artifact {
        return damaged(format!("`{MANIFEST}` is that of another artifact"), true);
    }
    let (_, stamp) = files::size_and_mtime(&object.join(MANIFEST))?;
    let mut touched = Vec::new();
    for (name, file) in &manifest.files {
        let path = object.join(name);
        let (size, mtime) = match files::size_and_mtime(&path) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return damaged(format!("`{name}` is gone"), true),
            Err(error) => return Err(error.into()),
        };
        if size != file.size {
            return damaged(format!("`{name}` has {size} bytes, not {}", file.size), true);
        }
        if mtime != stamp {
            if files::digest_file(&path)? != file.digest {
                return damaged(format!("`{name}` has been changed"), true);
            }
            touched.push(path);
        }
    }
    // A copied cache has new times: read once is enough, where we may say so.
    for path in touched {
        let _ = files::set_mtime(&path, stamp);
    }
    Ok(Condition::Whole)
}

/// Whether somebody has touched a file of an artifact whose bytes are not what they were.
pub(super) fn is_touched(object: &Path, name: &str) -> bool {
    let time = |name: &str| files::size_and_mtime(&object.join(name)).map(|(_, mtime)| mtime).ok();
    time(name) != time(MANIFEST)
}

/// What lies in an artifact's folder and does not belong there, as relative paths.
pub(super) fn strangers(object: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let manifest = Manifest::load(object)?;
    let mut found = tree::entries_below(object)?;
    found.retain(|path| !path.to_str().is_some_and(|name| name == MANIFEST || manifest.files.contains_key(name)));
    Ok(found)
}
