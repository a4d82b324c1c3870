//! `runs.jsonl`: one line for each run, only ever appended to.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CacheError, Layout};
use crate::{digest::Digest, fs::files, sys::Timestamp};

/// Version of a line's format.
pub const HISTORY_FORMAT: u32 = 1;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of the line's format.
    pub format: u32,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Its file.
    pub path: PathBuf,
    /// Root of the project, absolute.
    pub project_root: PathBuf,
    /// How it ended.
    pub outcome: Outcome,
    /// What became of each stage.
    pub stages: Vec<StageRecord>,
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name of the stage.
    pub stage: String,
    /// What became of it.
    pub action: Action,
    /// Its cache key, unless it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// Digest of the artifact, unless it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Digest>,
    /// How long it took when it was made.
    #[serde(default)]
    pub seconds: f64,
    /// Headline figures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every selected stage is done.
    Done,
    /// A stage failed.
    Failed,
    /// The user asked to stop.
    Cancelled,
}

/// What became of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It ran.
    Executed,
    /// The cache had it.
    Restored,
    /// It failed.
    Failed,
}

impl RunRecord {
    /// Adds the record to the history.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, layout: &Layout) -> Result<(), CacheError> {
        let path = layout.history();
        let line = serde_json::to_vec(self)
            .map_err(|error| CacheError::Damaged { path: path.clone(), message: error.to_string() })?;
        Ok(files::append_line(&path, &line)?)
    }

    /// All runs, oldest first. Lines that cannot be read, such as one cut off by a full disk or one of a newer
    /// version, are left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load_all(layout: &Layout) -> Result<Vec<Self>, CacheError> {
        let bytes = files::read_if_exists(&layout.history())?.unwrap_or_default();
        let runs = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Self>(line).ok());
        Ok(runs.filter(|run| run.format <= HISTORY_FORMAT).collect())
    }
}
