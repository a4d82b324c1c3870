//! `runs/<pipeline>/<stage>`: a link to the artifact of the last successful run.

use std::path::{Path, PathBuf};

use crate::{
    cache::Project,
    digest::Digest,
    fs::{FsError, files},
    sys::Timestamp,
};

/// Points the link of a stage at an artifact. What sits there and is no such link is moved aside and its new
/// place returned: it may hold somebody's work.
///
/// # Errors
/// When the link cannot be made.
pub fn link_artifact(
    project: &Project,
    pipeline: &str,
    stage: &str,
    object: &Path,
) -> Result<Option<PathBuf>, FsError> {
    let link = project.run_link(pipeline, stage);
    let folder = files::parent_of(&link);
    let target = files::relative_path(&folder, object);
    let current = files::read_link(&link);
    if current.as_deref() == Some(&target) {
        return Ok(None);
    }
    files::create_dir_all(&folder)?;
    let ours = current.as_deref().is_some_and(|target| digest_of_link(target).is_some());
    let mut moved = None;
    if files::exists(&link) && !ours {
        let aside = aside_path(&link);
        files::rename(&link, &aside)?;
        moved = Some(aside);
    }
    files::replace_symlink(&link, &target)?;
    Ok(moved)
}

/// Removes the link of a stage that its pipeline no longer has. What sits there and is no such link stays. Returns
/// whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_link(project: &Project, pipeline: &str, stage: &str) -> Result<bool, FsError> {
    let link = project.run_link(pipeline, stage);
    let ours = files::read_link(&link).is_some_and(|target| digest_of_link(&target).is_some());
    if ours {
        files::remove_file(&link)?;
    }
    Ok(ours)
}

/// The artifact that a link of ours points at, judged by its text.
pub fn digest_of_link(target: &Path) -> Option<Digest> {
    let digest: Digest = target.file_name()?.to_str()?.parse().ok()?;
    let objects = target.parent()?.parent()?.file_name()?;
    (objects == "objects").then_some(digest)
}

/// Where something that may be somebody's work is moved to: `<name>.edited-<time>`.
pub fn aside_path(link: &Path) -> PathBuf {
    let name = link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let base = format!("{name}.edited-{}", Timestamp::now().compact());
    let mut path = link.with_file_name(&base);
    let mut count = 1;
    while files::exists(&path) {
        count += 1;
        path = link.with_file_name(format!("{base}-{count}"));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_things_are_moved_aside_and_own_links_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let project = Project { root: root.clone(), cache_dir: root.join(".simsiam-pipe") };
        let object = |text: &str| {
            let digest = Digest::of(text.as_bytes()).hex();
            let object = project.cache_dir.join("objects").join(&digest[..2]).join(digest);
            files::create_dir_all(&object).unwrap();
            object
        };
        let link = project.run_link("p", "s");
        files::create_dir_all(&link).unwrap();
        files::write_new(&link.join("mine.txt"), b"mine").unwrap();

        let aside = link_artifact(&project, "p", "s", &object("one")).unwrap().unwrap();
        assert_eq!(files::read(&aside.join("mine.txt")).unwrap(), b"mine");
        assert_eq!(link.canonicalize().unwrap(), object("one"));
        assert_eq!(link_artifact(&project, "p", "s", &object("one")).unwrap(), None);
        assert_eq!(link_artifact(&project, "p", "s", &object("two")).unwrap(), None);
        assert_eq!(link.canonicalize().unwrap(), object("two"));

        assert!(remove_link(&project, "p", "s").unwrap() && !remove_link(&project, "p", "s").unwrap());
        files::replace_symlink(&link, Path::new("/etc")).unwrap();
        assert!(!remove_link(&project, "p", "s").unwrap() && files::exists(&link));
        assert!(link_artifact(&project, "p", "s", &object("two")).unwrap().is_some());
    }
}
