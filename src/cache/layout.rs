//! Where everything lies.
//!
//! ```text
//! .simsiam-pipe/
//!   format                      version of this layout
//!   objects/<aa>/<digest>/      artifacts, read only
//!   entries/<fingerprint>.json  which artifact a fingerprint led to
//!   alike/<treatment>           fingerprints whose stages treat a single image alike
//!   locks/<fingerprint>.lock    who makes it at the moment
//!   work/<fingerprint>/         checkpoints of an unfinished stage
//!   logs/<fingerprint>/         what a stage printed before it failed
//!   live/<pipeline>.<n>.json    the state of a run while it goes on, and its graph as .svg
//!   edited/                     artifacts that somebody changed, set aside by `cache verify --repair` and `gc`
//!   tmp/                        unfinished artifacts; those of dead processes are swept
//!   pins/                       what living processes use
//!   sources/                    digests of files outside the cache by their `stat`
//!   runs.jsonl                  history of runs
//! ```

use std::path::{Path, PathBuf};

use super::CacheError;
use crate::{
    digest::Digest,
    fs::{FsError, files},
};

/// Version of the layout: 2 since entries and manifests name the commit. A cache with a newer one is refused.
pub const FORMAT: u32 = 2;

/// Name of the cache's folder in a project.
pub const CACHE_DIR_NAME: &str = ".simsiam-pipe";

/// A project: where relative paths start and where the cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Relative paths in pipelines start here; `runs/` is here too.
    pub root: PathBuf,
    /// The cache.
    pub cache_dir: PathBuf,
}

impl Project {
    /// The nearest folder upward from `start` that holds `.simsiam-pipe/`, or else `start`; both parts can be
    /// given instead.
    ///
    /// # Errors
    /// When a given folder does not exist.
    pub fn find(start: &Path, root: Option<&Path>, cache_dir: Option<&Path>) -> Result<Self, FsError> {
        let start = files::canonicalize(start)?;
        let root = match root {
            Some(root) => files::canonicalize(&start.join(root))?,
            None => start.ancestors().find(|dir| dir.join(CACHE_DIR_NAME).is_dir()).unwrap_or(&start).to_path_buf(),
        };
        let cache_dir = match cache_dir {
            Some(dir) => resolve(&start.join(dir)),
            None => root.join(CACHE_DIR_NAME),
        };
        Ok(Self { root, cache_dir })
    }

    /// Where the link to a stage's last artifact is.
    pub fn run_link(&self, pipeline: &str, stage: &str) -> PathBuf {
        self.root.join("runs").join(pipeline).join(stage)
    }

    /// A path for people: relative to the project where it lies inside.
    pub fn display<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The path without links and `..`, as far as it exists: links between cache and `runs/` are relative.
fn resolve(path: &Path) -> PathBuf {
    let parent = || Some((path.parent()?, path.file_name()?));
    match (files::canonicalize(path), parent()) {
        (Ok(path), _) => path,
        (Err(_), Some((parent, name))) => resolve(parent).join(name),
        (Err(_), None) => path.to_path_buf(),
    }
}

/// Paths in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Paths in the cache at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An artifact's folder.
    pub fn object(&self, artifact: &Digest) -> PathBuf {
        let hex = artifact.hex();
        self.objects().join(&hex[..2]).join(hex)
    }

    /// All artifacts.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// An entry.
    pub fn entry(&self, fingerprint: &Digest) -> PathBuf {
        self.entries().join(format!("{fingerprint}.json"))
    }

    /// All entries.
    pub fn entries(&self) -> PathBuf {
        self.root.join("entries")
    }

    /// Fingerprints whose stages treat a single image alike.
    pub fn alike(&self, treatment: &Digest) -> PathBuf {
        self.alike_root().join(treatment.hex())
    }

    /// All of them.
    pub fn alike_root(&self) -> PathBuf {
        self.root.join("alike")
    }

    /// The lock of a fingerprint.
    pub fn lock(&self, fingerprint: &Digest) -> PathBuf {
        self.locks().join(format!("{fingerprint}.lock"))
    }

    /// Held by those who pin (shared) and those who delete (alone).
    pub fn gc_lock(&self) -> PathBuf {
        self.locks().join("gc")
    }

    /// Checkpoints of a fingerprint.
    pub fn work(&self, fingerprint: &Digest) -> PathBuf {
        self.work_root().join(fingerprint.hex())
    }

    /// All checkpoints.
    pub fn work_root(&self) -> PathBuf {
        self.root.join("work")
    }

    /// What a fingerprint's stage printed before it failed.
    pub fn logs(&self, fingerprint: &Digest) -> PathBuf {
        self.logs_root().join(fingerprint.hex())
    }

    /// What failed stages printed.
    pub fn logs_root(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Artifacts that somebody changed.
    pub fn edited(&self) -> PathBuf {
        self.root.join("edited")
    }

    /// All locks.
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Unfinished artifacts.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What living processes use.
    pub fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// Digests of files outside.
    pub fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// The list of files of one state of a source.
    pub fn source_tree(&self, tree: &Digest) -> PathBuf {
        self.sources().join(format!("{tree}.tree"))
    }

    /// States of runs that go on, for whoever watches.
    pub fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    /// History of runs.
    pub fn history(&self) -> PathBuf {
        self.root.join("runs.jsonl")
    }

    fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    /// Refuses a cache that a newer version made. A cache that does not exist is fine.
    ///
    /// # Errors
    /// When the format is newer, unreadable or not a number.
    pub fn check(&self) -> Result<(), CacheError> {
        self.found_format().map(drop)
    }

    /// The format of the cache that is there.
    fn found_format(&self) -> Result<Option<u32>, CacheError> {
        let path = self.format();
        let Some(bytes) = files::read_if_exists(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let found: u32 = text
            .trim()
            .parse()
            .map_err(|_| CacheError::Damaged { path, message: format!("`{}` is not a version", text.trim()) })?;
        if found > FORMAT {
            return Err(CacheError::NewerFormat { path: self.root.clone(), found, known: FORMAT });
        }
        Ok(Some(found))
    }

    /// Makes the folders. A cache that is there and cannot be written stays as it is: it can still be read.
    ///
    /// # Errors
    /// When the cache cannot be made or a newer version made it.
    pub fn create(&self) -> Result<(), CacheError> {
        let found = self.found_format()?;
        match self.make_folders(found) {
            Err(CacheError::Fs(error)) if found.is_some() && error.is_read_only() => Ok(()),
            result => result,
        }
    }

    fn make_folders(&self, found: Option<u32>) -> Result<(), CacheError> {
        for dir in ["objects", "entries", "alike", "locks", "work", "tmp", "pins", "sources", "logs"] {
            files::create_dir_all(&self.root.join(dir))?;
        }
        if found.is_none() {
            files::write_cachedir_tag(&self.root)?;
            // A cache is nobody's source code, whatever the project's own .gitignore says.
            files::write_atomic(&self.root.join(".gitignore"), b"*\n")?;
        }
        if found != Some(FORMAT) {
            files::write_atomic(&self.format(), format!("{FORMAT}\n").as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_folder_upward_with_a_cache_is_the_project() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let below = root.join("a/b");
        files::create_dir_all(&below).unwrap();
        assert_eq!(Project::find(&below, None, None).unwrap().root, below);
        files::create_dir_all(&root.join(CACHE_DIR_NAME)).unwrap();
        let project = Project::find(&below, None, None).unwrap();
        assert_eq!(project.root, root);
        assert_eq!(project.cache_dir, root.join(CACHE_DIR_NAME));
        let elsewhere = Project::find(&below, Some(Path::new("..")), Some(Path::new("../cache"))).unwrap();
        assert_eq!((elsewhere.root, elsewhere.cache_dir), (root.join("a"), root.join("a/cache")));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        layout.create().unwrap();
        files::write_atomic(&dir.path().join("format"), b"3\n").unwrap();
        assert!(matches!(layout.create(), Err(CacheError::NewerFormat { found: 3, known: 2, .. })));
        files::write_atomic(&dir.path().join("format"), b"x\n").unwrap();
        assert!(matches!(layout.check(), Err(CacheError::Damaged { .. })));
    }

    #[test]
    fn an_older_cache_is_read_and_from_then_on_ours() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        files::write_atomic(&dir.path().join("format"), b"1\n").unwrap();
        layout.check().unwrap();
        layout.create().unwrap();
        assert_eq!(files::read(&dir.path().join("format")).unwrap(), b"2\n");
    }
}
