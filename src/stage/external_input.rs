//! What a stage reads from outside the pipeline, and which part of its parameters decides the result.

use serde_json::{Value, json};

use super::StageConfig;
pub use crate::data::source_config::PathKind;

/// A file or folder outside the cache whose content decides a stage's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalInput {
    /// Key path under `with`, for messages: `source.image_folder`, `sources[0]`.
    pub key: String,
    /// The path as written, relative to the project root.
    pub path: String,
    /// What must lie there.
    pub kind: PathKind,
}

/// The files and folders outside the cache that this stage reads.
pub fn external_inputs(config: &StageConfig) -> Vec<ExternalInput> {
    match config {
        StageConfig::Ingest(config) => config
            .paths()
            .into_iter()
            .map(|place| ExternalInput { key: place.key.into(), path: place.path.into(), kind: place.kind })
            .collect(),
        StageConfig::Pretrain(config) => config
            .init
            .iter()
            .map(|path| ExternalInput { key: "init".into(), path: path.clone(), kind: PathKind::File })
            .collect(),
        StageConfig::Command(config) => config
            .sources
            .iter()
            .enumerate()
            .map(|(idx, path)| ExternalInput {
                key: format!("sources[{idx}]"),
                path: path.clone(),
                kind: PathKind::Any,
            })
            .collect(),
        _ => vec![],
    }
}

/// The parameters as they enter the fingerprint: paths are replaced, since the digest of what they hold
/// stands beside them.
///
/// # Errors
/// Where a number is not finite, which validation has refused before.
pub fn fingerprint_config(config: &StageConfig) -> Result<Value, serde_json::Error> {
    let mut value = config.to_json()?;
    match config {
        StageConfig::Ingest(ingest) => {
            for place in ingest.paths() {
                if let Some(path) = value.pointer_mut(&format!("/{}", place.key.replace('.', "/"))) {
                    *path = json!("content");
                }
            }
        }
        StageConfig::Pretrain(pretrain) if pretrain.init.is_some() => value["init"] = json!("content"),
        StageConfig::Command(command) => value["sources"] = json!(command.sources.len()),
        _ => {}
    }
    Ok(value)
}

/// Whether the pipeline's seed decides anything in this stage.
pub fn uses_seed(config: &StageConfig) -> bool {
    match config {
        StageConfig::Augment(_) | StageConfig::Pretrain(_) | StageConfig::Fit(_) | StageConfig::Command(_) => true,
        StageConfig::Ingest(_) | StageConfig::Extract(_) | StageConfig::Report(_) => false,
    }
}
