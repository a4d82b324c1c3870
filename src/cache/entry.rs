//! An entry: which artifact a fingerprint led to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    fingerprint::StageFingerprint,
    sys::{GitState, Timestamp},
};

/// Version of an entry's format: 2 since it names the commit.
pub const ENTRY_FORMAT: u32 = 2;

/// Who made an artifact, when and where. Decides nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name of the pipeline at that time.
    pub pipeline: String,
    /// Name of the stage at that time.
    pub stage: String,
    /// When it was finished.
    pub created: Timestamp,
    /// Machine.
    pub host: String,
    /// `cpu` or the name of an accelerator.
    pub device: String,
    /// Version of this program.
    pub tool_version: String,
    /// What the project was at when the run began; absent where it is no git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitState>,
    /// Seconds that it took.
    pub wall_seconds: f64,
    /// Most memory held meanwhile, in bytes, by the program that did the work: this one with all that it was
    /// doing, or the stage's own process; 0 if unknown.
    pub peak_rss_bytes: u64,
}

/// `entries/<fingerprint>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheEntry {
    /// Version of this file's format.
    pub format: u32,
    /// The record whose digest names the file.
    pub fingerprint: StageFingerprint,
    /// The artifact.
    pub artifact: Digest,
    /// Bytes of the artifact.
    pub size: u64,
    /// Headline figures.
    pub metrics: BTreeMap<String, f64>,
    /// Who made it, when and where.
    pub provenance: Provenance,
}
