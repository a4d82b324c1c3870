//! Why the cache cannot be used.

use std::path::PathBuf;

use crate::{digest::Digest, fs::FsError};

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Reading or writing failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A newer version made it.
    #[error("`{}` has format {found}, this version knows up to {known}", path.display())]
    NewerFormat {
        /// The cache, or the file in it.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// A file of the cache does not say what it must.
    #[error("`{}` in the cache is damaged: {message}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// An artifact that something refers to is gone.
    #[error("artifact {} is not in the cache", digest.short())]
    NoArtifact {
        /// Which.
        digest: Digest,
    },
    /// A stage left something that cannot be an artifact.
    #[error("stage `{stage}` left `{name}`, which {problem}")]
    BadOutput {
        /// Which stage.
        stage: String,
        /// Relative path.
        name: String,
        /// `is a symbolic link`.
        problem: String,
    },
}

impl CacheError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Fs(error) => error.help(),
            Self::NewerFormat { .. } => {
                Some("use the newer version of simsiam-pipe, or another cache with `--cache-dir`")
            }
            Self::Damaged { .. } | Self::NoArtifact { .. } => {
                Some("`simsiam-pipe cache verify --repair` removes what is damaged; the next run makes it again")
            }
            Self::BadOutput { .. } => Some("an artifact holds plain files and folders only"),
        }
    }
}
