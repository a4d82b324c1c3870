//! The parameters of a stage, whatever its kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stage_kind::StageKind;
use crate::{
    augment::AugmentConfig,
    data::IngestConfig,
    eval::{ExtractConfig, FitConfig},
    train::PretrainConfig,
};

/// The resolved `with` of a stage: defaults filled in, ranges checked.
#[derive(Clone, Debug, PartialEq)]
pub enum StageConfig {
    /// `ingest`
    Ingest(IngestConfig),
    /// `augment`
    Augment(AugmentConfig),
    /// `pretrain`
    Pretrain(PretrainConfig),
    /// `extract`
    Extract(ExtractConfig),
    /// `fit`
    Fit(FitConfig),
    /// `report`
    Report(ReportConfig),
    /// `command`
    Command(CommandConfig),
}

impl StageConfig {
    /// The kind whose parameters these are.
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Ingest(_) => StageKind::Ingest,
            Self::Augment(_) => StageKind::Augment,
            Self::Pretrain(_) => StageKind::Pretrain,
            Self::Extract(_) => StageKind::Extract,
            Self::Fit(_) => StageKind::Fit,
            Self::Report(_) => StageKind::Report,
            Self::Command(_) => StageKind::Command,
        }
    }

    /// The parameters as a JSON object in which writing a default out changes nothing.
    ///
    /// # Errors
    /// Where a number is not finite, which validation has refused before.
    pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        match self {
            Self::Ingest(config) => serde_json::to_value(config),
            Self::Augment(config) => serde_json::to_value(config),
            Self::Pretrain(config) => serde_json::to_value(config),
            Self::Extract(config) => serde_json::to_value(config),
            Self::Fit(config) => serde_json::to_value(config),
            Self::Report(config) => serde_json::to_value(config),
            Self::Command(config) => serde_json::to_value(config),
        }
    }
}

impl StageConfig {
    /// The reverse of [`Self::to_json`]. Ranges are not checked: whoever wrote the JSON has.
    ///
    /// # Errors
    /// When the value is not that of this kind.
    pub fn from_json(kind: StageKind, value: serde_json::Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            StageKind::Ingest => Self::Ingest(serde_json::from_value(value)?),
            StageKind::Augment => Self::Augment(serde_json::from_value(value)?),
            StageKind::Pretrain => Self::Pretrain(serde_json::from_value(value)?),
            StageKind::Extract => Self::Extract(serde_json::from_value(value)?),
            StageKind::Fit => Self::Fit(serde_json::from_value(value)?),
            StageKind::Report => Self::Report(serde_json::from_value(value)?),
            StageKind::Command => Self::Command(serde_json::from_value(value)?),
        })
    }
}

/// Parameters of a `report` stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Title of the page; empty takes the pipeline's name.
    #[serde(default)]
    pub title: String,
}

/// Parameters of a `command` stage: any program as a stage.
///
/// Each input arrives as the path of its artifact in `SIMSIAM_PIPE_INPUT_<NAME>`, the folder for outputs in
/// `SIMSIAM_PIPE_OUTPUT`, the seed in `SIMSIAM_PIPE_SEED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// Program and arguments; no shell is involved. The program runs in the project root.
    #[schemars(length(min = 1))]
    pub run: Vec<String>,
    /// Files that the program leaves in the output folder, relative to it. A missing one fails the stage.
    #[schemars(length(min = 1))]
    pub outputs: Vec<String>,
    /// Files or folders whose content decides the result, such as the script itself, relative to the
    /// project root.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Environment variables for the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}
