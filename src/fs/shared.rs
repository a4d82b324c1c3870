//! Folders that several users share.
//!
//! What is made in a folder that its group may write is the group's too, whatever the maker's umask: a cache
//! for a team is made by `chgrp team cache; chmod 2775 cache`, and nobody has to think of it again.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use super::files::parent_of;

const GROUP_WRITES: u32 = 0o020;
/// Anybody's folders, such as `/tmp`, are nobody's team.
const FOR_ANYBODY: u32 = 0o1002;

/// Gives the group the rights on a new file or folder that it has on the folder around it.
pub(super) fn share_like_parent(path: &Path) -> io::Result<()> {
    let around = fs::metadata(parent_of(path))?.permissions().mode();
    if around & GROUP_WRITES == 0 || around & FOR_ANYBODY != 0 {
        return Ok(());
    }
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        // A lock whose holder has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let wanted = around & if meta.is_dir() { 0o2070 } else { 0o0060 };
    let mode = meta.permissions().mode();
    // Another user's file has what that user gave it.
    if mode & wanted == wanted || !is_ours(meta.uid()) {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode((mode & 0o7777) | wanted))
}

/// Whether this process may change the permissions of a file and so remove it; what is not there is nobody's.
pub fn may_remove(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| is_ours(meta.uid()))
}

fn is_ours(owner: u32) -> bool {
    // SAFETY: the call has no arguments and always succeeds.
    let user = unsafe { libc::geteuid() };
    user == 0 || user == owner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_group_gets_what_it_has_on_the_folder_around() {
        let dir = tempfile::tempdir().unwrap();
        let made = |folder_mode: u32| {
            let folder = dir.path().join(format!("{folder_mode:o}"));
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(folder_mode)).unwrap();
            let (file, below) = (folder.join("file"), folder.join("below"));
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            fs::create_dir(&below).unwrap();
            fs::set_permissions(&below, fs::Permissions::from_mode(0o700)).unwrap();
            share_like_parent(&file).unwrap();
            share_like_parent(&below).unwrap();
            (mode(&file), mode(&below) & 0o777)
        };
        assert_eq!(made(0o755), (0o600, 0o700));
        assert_eq!(made(0o2775), (0o660, 0o770));
        assert_eq!(made(0o1777), (0o600, 0o700));
    }
}
