//! Why an evaluation could not be made.

use std::path::PathBuf;

use crate::compute::ComputeError;

/// Why an evaluation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A slice is not as long as its shape says.
    #[error("{what} has {found} values where {expected} are needed")]
    Length {
        /// Which values.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Nothing to work on.
    #[error("{what} is empty")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// A value is NaN or infinite.
    #[error("{what} holds a value that is not finite: row {row}, column {column}")]
    NotFinite {
        /// Which values.
        what: String,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
    /// A label that names no class.
    #[error("label {label} of row {row} names none of the {num_classes} classes")]
    Label {
        /// Row, from 0.
        row: usize,
        /// The label.
        label: i64,
        /// Number of classes.
        num_classes: usize,
    },
    /// Fewer than two classes: there is nothing to tell apart.
    #[error("all labels are of one class, `{class}`: there is nothing to tell apart")]
    OneClass {
        /// The class, by name or number.
        class: String,
    },
    /// The network cannot be built or cannot take the images.
    #[error("the backbone cannot be used: {message}")]
    Network {
        /// Why, in the network's words.
        message: String,
    },
    /// A folder that holds no network.
    #[error("`{}` holds no network: it is no artifact of a `pretrain`, `extract` or `fit` stage", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// A file is not as this version expects it.
    #[error("`{}` cannot be used: {message}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
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
}

/// Checks that a slice is as long as its shape says.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), EvalError> {
    if expected == found { Ok(()) } else { Err(EvalError::Length { what, expected, found }) }
}

/// Checks that every label names a class.
pub(crate) fn check_labels(labels: &[u32], num_classes: usize) -> Result<(), EvalError> {
    match labels.iter().position(|&label| label as usize >= num_classes) {
        Some(row) => Err(EvalError::Label { row, label: i64::from(labels[row]), num_classes }),
        None => Ok(()),
    }
}

/// Checks that every value of `values` [n, dim] is finite.
pub(crate) fn check_finite(what: &str, values: &[f32], dim: usize) -> Result<(), EvalError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(idx) => {
            Err(EvalError::NotFinite { what: what.to_owned(), row: idx / dim.max(1), column: idx % dim.max(1) })
        }
        None => Ok(()),
    }
}

impl From<ComputeError> for EvalError {
    fn from(error: ComputeError) -> Self {
        Self::Network { message: error.to_string() }
    }
}
