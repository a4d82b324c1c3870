//! What a running stage sees: its inputs, two folders, a seed and somebody to report to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::earlier::Earlier;
use crate::{compute::Compute, digest::Digest};

/// An artifact that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputArtifact {
    /// Name of the stage that made it.
    pub stage: String,
    /// Digest of the artifact.
    pub digest: Digest,
    /// Its folder; read only.
    pub dir: PathBuf,
}

/// What a running stage sees, and nothing else.
pub struct StageContext<'a> {
    /// Name of the pipeline, for titles only.
    pub pipeline: &'a str,
    /// Name of the stage, for titles only.
    pub stage: &'a str,
    /// Inputs by the name under which the stage asked for them.
    pub inputs: &'a BTreeMap<String, Vec<InputArtifact>>,
    /// Where outputs go. Files under `logs/` are kept but do not count as content: times belong there.
    pub out_dir: &'a Path,
    /// A folder of this fingerprint's own that survives a kill: checkpoints belong there.
    pub work_dir: &'a Path,
    /// Relative paths in the configuration start here.
    pub project_root: &'a Path,
    /// Seed of everything random.
    pub seed: u64,
    /// An artifact from which results for single images may be taken; decides how long it takes and nothing else.
    pub earlier: Option<&'a Earlier>,
    /// What trains and embeds.
    pub compute: &'a Compute,
    /// Where progress goes and whether to stop.
    pub reporter: &'a dyn StageReporter,
}

impl StageContext<'_> {
    /// The artifact of an input that takes one, if it was given.
    pub fn input(&self, name: &str) -> Option<&InputArtifact> {
        self.inputs.get(name).and_then(|artifacts| artifacts.first())
    }
}

/// Where a running stage reports.
pub trait StageReporter: Sync {
    /// `done` of `total` units (`images`, `steps`) are done; `message` holds the last figures.
    fn progress(&self, done: u64, total: u64, unit: &str, message: &str);
    /// Something that the user should know and may want to change.
    fn warn(&self, message: &str);
    /// Something worth a line: the end of an epoch, a resume.
    fn info(&self, message: &str);
    /// A figure at a step or epoch, such as `train/loss`.
    fn metric(&self, name: &str, step: u64, value: f64);
    /// Whether the user asked to stop: save what would be lost and return [`super::StageError::Cancelled`].
    fn is_cancelled(&self) -> bool;
    /// A process of its own that did the stage's work held so many bytes of memory at most.
    fn program_peak(&self, _bytes: u64) {}
    /// What computes, if that is not this processor.
    fn computes_on(&self, _device: &str) {}
}

/// A reporter that hears nothing, for tests and one-off calls.
pub struct SilentReporter;

impl StageReporter for SilentReporter {
    fn progress(&self, _done: u64, _total: u64, _unit: &str, _message: &str) {}
    fn warn(&self, _message: &str) {}
    fn info(&self, _message: &str) {}
    fn metric(&self, _name: &str, _step: u64, _value: f64) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// What a stage says when it is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageOutcome {
    /// Headline figures for the lockfile and the closing table, such as `probe/top1`.
    pub metrics: BTreeMap<String, f64>,
}
