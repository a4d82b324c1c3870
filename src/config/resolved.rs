//! The resolved stage as YAML, for the artifact that it made.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pipeline::{Pipeline, Stage};
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

/// Some stages of a pipeline with every parameter written out, as a pipeline file that loads again to the same.
///
/// # Errors
/// Where a number is not finite, which validation has refused before.
pub fn render_resolved_pipeline(pipeline: &Pipeline, names: &[&str]) -> Result<String, RenderError> {
    #[derive(Serialize)]
    struct Full<'a> {
        uses: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        inputs: BTreeMap<&'a str, serde_json::Value>,
        seed: u64,
        with: serde_json::Value,
    }
    let mut text = String::new();
    let yaml = |stage: &str| {
        let stage = stage.to_owned();
        move |source| RenderError::Yaml { stage, source }
    };
    let head = [("version", serde_json::json!(1)), ("name", pipeline.name.as_str().into())];
    for (key, value) in head.into_iter().chain([("seed", pipeline.seed.into())]) {
        text.push_str(&serde_yaml::to_string(&BTreeMap::from([(key, value)])).map_err(yaml(key))?);
    }
    text.push_str("stages:\n");
    for stage in names.iter().filter_map(|name| pipeline.stage(name)) {
        let json = |source| RenderError::Json { stage: stage.name.clone(), source };
        let full = Full {
            uses: stage.kind().name(),
            inputs: stage
                .inputs
                .iter()
                .map(|(name, stages)| match &stages[..] {
                    [single] => (name.as_str(), single.as_str().into()),
                    stages => (name.as_str(), stages.into()),
                })
                .collect(),
            seed: stage.seed,
            with: stage.config.to_json().map_err(json)?,
        };
        let stage_text = serde_yaml::to_string(&BTreeMap::from([(&stage.name, full)])).map_err(yaml(&stage.name))?;
        // What is text here must not be taken for a reference there.
        for line in stage_text.replace("${", "$${").lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}
