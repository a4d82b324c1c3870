//! Why a dataset cannot be made or read.

use std::path::PathBuf;

/// Why a dataset cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The user's images are not as they must be.
    #[error("{message}")]
    Source {
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
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `write`, `create`, `open`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A dataset artifact is damaged or of another version.
    #[error("`{}` cannot be used as a dataset: {message}", path.display())]
    Artifact {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The user asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl DataError {
    pub(super) fn source(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Source { message: message.into(), help: Some(help.into()) }
    }

    pub(super) fn config(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Config { message: message.into(), help: Some(help.into()) }
    }

    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Source { help, .. } | Self::Config { help, .. } => help.as_deref(),
            Self::Io { .. } | Self::Artifact { .. } | Self::Cancelled => None,
        }
    }
}
