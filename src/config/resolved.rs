//! The resolved stage as YAML, for the artifact that it made.

use serde::Serialize;

use super::pipeline::Stage;
use crate::stage::external_input::uses_seed;

/// Why a stage could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A number is not finite; validation refuses those.
    #[error("the parameters of stage `{stage}` cannot be written")]
    Json {
        /// Name of the stage.
        stage: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The YAML writer refused the value.
    #[error("the parameters of stage `{stage}` cannot be written")]
    Yaml {
        /// Name of the stage.
        stage: String,
        /// What serde says.
        source: serde_yaml::Error,
    },
}

#[derive(Serialize)]
struct ResolvedStage<'a> {
    uses: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    with: serde_json::Value,
}

/// The resolved stage as YAML: its kind, its seed where that decides anything, and `with` with all defaults.
///
/// Names of stages are no part of it: renaming one changes nothing in an artifact.
///
/// # Errors
/// Where a number is not finite, which validation has refused before.
pub fn render_resolved(stage: &Stage) -> Result<String, RenderError> {
    // Through JSON, since serde_yaml would write choices as YAML tags, which the loader refuses.
    let with = stage.config.to_json().map_err(|source| RenderError::Json { stage: stage.name.clone(), source })?;
    let seed = uses_seed(&stage.config).then_some(stage.seed);
    serde_yaml::to_string(&ResolvedStage { uses: stage.kind().name(), seed, with })
        .map_err(|source| RenderError::Yaml { stage: stage.name.clone(), source })
}
