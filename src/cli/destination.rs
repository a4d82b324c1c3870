//! Where a command's file will appear.

use std::path::Path;

use crate::{error::Error, fs::files};

/// Sees to it, before any work, that a file can appear at `path`: makes its folder.
///
/// # Errors
/// Where a folder has that name, or its own folder cannot be made.
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        let message = format!("`{}` is a folder, and a file is to be written there", path.display());
        return Err(Error::usage(message, "name a file, in that folder perhaps"));
    }
    Ok(files::create_dir_all(&files::parent_of(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_for_files_but_do_not_become_files() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a/b/x.npy");
        prepare(&file).unwrap();
        assert!(file.parent().unwrap().is_dir() && !file.exists());
        let error = prepare(file.parent().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("a/b` is a folder, and a file is to be written there"), "{error}");
        std::fs::write(&file, "a file").unwrap();
        prepare(&file).unwrap();
        let error = prepare(&file.join("y.npy")).unwrap_err();
        assert_eq!(error.exit_code(), 6);
    }
}
