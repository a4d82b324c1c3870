//! Why nothing could be measured.

use crate::{augment::AugmentError, data::DataError, model::simsiam::SimSiamError};

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The network refused.
    #[error(transparent)]
    Model(#[from] SimSiamError),
    /// The views cannot be made so.
    #[error(transparent)]
    Augment(#[from] AugmentError),
    /// The images cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image cannot be decoded.
    #[error("`{file}` cannot be used: {reason}")]
    Image {
        /// Its name below the folder.
        file: String,
        /// In words.
        reason: String,
    },
    /// The loss is no longer a number.
    #[error("the loss is no longer finite after {steps} steps on random images")]
    NotFinite {
        /// How many.
        steps: u32,
    },
    /// There is no place for files.
    #[error("cannot create a temporary folder")]
    Temporary(#[source] std::io::Error),
}

impl BenchError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Augment(error) => error.help().map(str::to_owned),
            // The data's own words name keys of a pipeline.
            Self::Data(DataError::Source { .. }) => Some("give `--images` a folder of whole images".into()),
            Self::Data(error) => error.help().map(str::to_owned),
            Self::Image { .. } => Some("measure a folder whose images are whole".into()),
            Self::NotFinite { .. } => Some("take fewer `--steps`, or a larger `--batch-size`".into()),
            Self::Temporary(_) => Some("set `TMPDIR` to a folder with room".into()),
            Self::Model(_) => None,
        }
    }
}
