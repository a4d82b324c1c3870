//! Why a stage failed.

use std::path::PathBuf;

/// Why a stage failed. Messages say what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The user asked to stop; what would be lost is saved.
    #[error("stopped on request")]
    Cancelled,
    /// The user's data is not as it must be.
    #[error("{message}")]
    Data {
        /// What and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// A parameter does not fit the data.
    #[error("{message}")]
    Config {
        /// What and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Training went wrong: not finite, or collapsed where the pipeline says to stop.
    #[error("{message}")]
    Training {
        /// What and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// A program of the user's failed.
    #[error("{message}")]
    Command {
        /// What and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The process that ran the stage ended without a word.
    #[error("{message}")]
    Crashed {
        /// How, and how much memory it had held.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `write`, `create`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// An input artifact is not as this version expects it.
    #[error("artifact `{}` cannot be used: {message}", path.display())]
    Artifact {
        /// Folder or file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl StageError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Data { help, .. }
            | Self::Config { help, .. }
            | Self::Training { help, .. }
            | Self::Command { help, .. }
            | Self::Crashed { help, .. } => help.as_deref(),
            Self::Artifact { .. } => Some("run `simsiam-pipe cache verify`, then run again"),
            Self::Cancelled | Self::Io { .. } => None,
        }
    }
}
