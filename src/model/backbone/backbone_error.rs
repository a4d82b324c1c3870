//! What can go wrong in the backbone.

use miette::Diagnostic;
use thiserror::Error;

/// An error of the backbone. Nothing has been changed when one is returned.
#[derive(Debug, Error, Diagnostic)]
pub enum BackboneError {
    /// The image vanishes on its way through the network.
    #[error("images of {image_size}×{image_size} pixels are too small for `{backbone}`")]
    #[diagnostic(help("use images of at least {minimum}×{minimum} pixels"))]
    ImageTooSmall {
        /// Name of the backbone.
        backbone: &'static str,
        /// Edge that was asked for, in pixels.
        image_size: usize,
        /// Smallest edge that works, in pixels.
        minimum: usize,
    },
    /// The activations of this batch could not even be addressed.
    #[error("a batch of {n} images of {image_size}×{image_size} pixels is too large to address")]
    #[diagnostic(help("use a smaller batch or smaller images"))]
    TooLarge {
        /// Images in the batch.
        n: usize,
        /// Edge in pixels.
        image_size: usize,
    },
    /// The variance of a single value does not exist.
    #[error("batch norm `{layer}` sees a single value per channel (batch of {n}, images of {image_size} pixels)")]
    #[diagnostic(help("use a batch of at least 2 images, or larger images"))]
    SingleValuePerChannel {
        /// Name of the layer.
        layer: String,
        /// Images in the batch.
        n: usize,
        /// Edge in pixels.
        image_size: usize,
    },
    /// A batch without images.
    #[error("the batch holds no image")]
    #[diagnostic(help("pass at least one image"))]
    EmptyBatch,
    /// A slice does not hold what its shape says.
    #[error("`{what}` holds {actual} values, expected {expected}")]
    #[diagnostic(help("{what} has the shape {shape}"))]
    WrongLength {
        /// Which argument.
        what: &'static str,
        /// Its shape in words.
        shape: &'static str,
        /// Values it should hold.
        expected: usize,
        /// Values it holds.
        actual: usize,
    },
    /// Backward without forward.
    #[error("there is nothing to go back through")]
    #[diagnostic(help("call `forward_train` before each `backward`"))]
    NothingKept,
    /// The tensors are not those of this network.
    #[error("the tensors do not fit `{backbone}`: {}", list(missing, unexpected, wrong_shape))]
    #[diagnostic(help("load a state that was saved from the same backbone with the same stem"))]
    StateMismatch {
        /// Name of the backbone.
        backbone: &'static str,
        /// Names that the network has and the state has not.
        missing: Vec<String>,
        /// Names that the state has and the network has not, or has once only.
        unexpected: Vec<String>,
        /// Names with what was found and what was expected.
        wrong_shape: Vec<String>,
    },
    /// A weight that is no number would silently spoil everything after it.
    #[error("tensor `{name}` holds a value that is not finite, or a negative variance")]
    #[diagnostic(help("the state is damaged or comes from a run that diverged; take an earlier one"))]
    UnusableValue {
        /// Name of the tensor.
        name: String,
    },
}

/// Names beyond this many are counted, not listed.
const MAX_LISTED: usize = 8;

fn list(missing: &[String], unexpected: &[String], wrong_shape: &[String]) -> String {
    let part = |title: &str, names: &[String]| {
        let mut text = format!("{title} ");
        for (idx, name) in names.iter().take(MAX_LISTED).enumerate() {
            text.push_str(if idx == 0 { "" } else { ", " });
            text.push_str(name);
        }
        if names.len() > MAX_LISTED {
            text.push_str(" and ");
            text.push_str(&(names.len() - MAX_LISTED).to_string());
            text.push_str(" more");
        }
        text
    };
    [("missing", missing), ("unexpected", unexpected), ("of another shape", wrong_shape)]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(title, names)| part(title, names))
        .collect::<Vec<_>>()
        .join("; ")
}
