//! `fit`: a classifier, how good it is, and what the same protocol reaches without pretraining.
//!
//! One file a family of protocols: `fit_frozen` for those on frozen embeddings, `fit_trained` for
//! those that train the backbone. Here is what all of them need.

use std::path::Path;

use super::{
    StageContext, StageError, StageOutcome,
    fit_frozen::{Frozen, execute_frozen},
    fit_trained::{Trained, execute_trained},
};
use crate::eval::{EvalError, FitConfig, eval_config::LinearProbeConfig};

/// Version of `metrics.json`.
pub const METRICS_FORMAT: u32 = 1;

/// Fits a classifier and leaves it in `ctx.out_dir`.
///
/// # Errors
/// See [`StageError`].
pub fn execute(config: &FitConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    match config {
        FitConfig::LinearProbe(LinearProbeConfig { sgd: Some(sgd), label_fraction, .. }) => {
            execute_trained(Trained::Probe(&sgd.train(*label_fraction)), ctx)
        }
        FitConfig::LinearProbe(config) => execute_frozen(Frozen::LinearProbe(config), ctx),
        FitConfig::Knn(config) => execute_frozen(Frozen::Knn(config), ctx),
        FitConfig::FineTune(config) => execute_trained(Trained::FineTune(config), ctx),
        FitConfig::Supervised(config) => execute_trained(Trained::Supervised(config), ctx),
    }
}

/// The labels of training images, of which there must be two kinds; `owner` is the stage that takes the images.
pub(super) fn usable_train_labels(
    labels: Option<Vec<u32>>,
    class_names: &[String],
    owner: &str,
) -> Result<Vec<u32>, StageError> {
    let data = |message: String, help: String| StageError::Data { message, help: Some(help) };
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
        let help = format!("give the `train` input of {owner} a folder of class folders");
        return Err(data("the training images have no labels".into(), help));
    };
    if labels.iter().all(|&label| label == labels[0]) {
        let name = &class_names[labels[0] as usize];
        return Err(data(
            format!("all training images are of one class, `{name}`: there is nothing to tell apart"),
            format!("give the `train` input of {owner} at least two classes"),
        ));
    }
    Ok(labels)
}

/// Checks that every test label is one of the first `num_train_classes` of `class_names`.
pub(super) fn check_test_labels(
    labels: &[u32],
    class_names: &[String],
    num_train_classes: usize,
) -> Result<(), StageError> {
    let (known, extra) = class_names.split_at(num_train_classes);
    let names = |names: &[String]| quoted(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let unknown: Vec<String> = (num_train_classes as u32..)
        .zip(extra)
        .filter(|(idx, _)| labels.contains(idx))
        .map(|(_, name)| name.clone())
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(StageError::Data {
        message: format!("there are test images of {}, which no training image shows", names(&unknown)),
        help: Some(format!("the training classes are {}; name the folders alike", names(known))),
    })
}

/// Names in backticks, the first few of them.
pub(super) fn quoted(names: &[&str]) -> String {
    const MAX_LISTED: usize = 12;
    let listed: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(MAX_LISTED);
    if rest > 0 { format!("{} and {rest} more", listed.join(", ")) } else { listed.join(", ") }
}

/// Copies a file; what is written is the same bytes.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), StageError> {
    std::fs::copy(from, to).map(drop).map_err(|source| StageError::Io { action: "copy", path: from.to_owned(), source })
}

impl From<EvalError> for StageError {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Io { action, path, source } => Self::Io { action, path, source },
            EvalError::NoModel { ref path } => Self::Artifact { path: path.clone(), message: error.to_string() },
            EvalError::Format { path, message } => Self::Artifact { path, message },
            EvalError::NotFinite { .. } => Self::Data {
                message: error.to_string(),
                help: Some("the pretraining has probably diverged: look at its loss, lower its learning rate".into()),
            },
            EvalError::Network { .. } => Self::Config { message: error.to_string(), help: None },
            EvalError::Length { .. }
            | EvalError::Empty { .. }
            | EvalError::Label { .. }
            | EvalError::OneClass { .. } => Self::Data { message: error.to_string(), help: None },
        }
    }
}
