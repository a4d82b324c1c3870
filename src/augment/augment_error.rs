//! Why a policy cannot be built or read.

use std::path::PathBuf;

/// Why a policy cannot be built, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum AugmentError {
    /// A parameter is out of range or two contradict each other.
    #[error("`{key}`: {message}")]
    Config {
        /// Key path below `with`, such as `ops[0].random_resized_crop.scale`.
        key: String,
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// A contact sheet that no file can hold.
    #[error("a contact sheet of {width}×{height} pixels is too large")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// `policy.json` is not as this version writes it.
    #[error("`{}` is not a policy: {message}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl AugmentError {
    pub(crate) fn config(key: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into(), help: help.into() }
    }

    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Config { help, .. } => Some(help),
            Self::TooLarge { .. } => Some("take fewer images or views"),
            Self::Io { .. } | Self::Format { .. } => None,
        }
    }
}
