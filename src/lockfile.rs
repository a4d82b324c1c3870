//! `<pipeline>.lock` beside the pipeline file: what ran last. Small, sorted, one line a stage, so that it
//! merges well; meant to be committed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cache::CacheEntry,
    digest::Digest,
    fs::{FsError, files},
    stage::StageKind,
};

/// Version of the lockfile's format.
pub const LOCKFILE_VERSION: u32 = 1;

const HEADER: &str =
    "# Written by `simsiam-pipe run`; commit it. To solve a merge conflict, keep either side and run again.\n";

/// What the last run of each stage led to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lockfile {
    /// Version of the format.
    pub version: u32,
    /// By stage.
    #[serde(default)]
    pub stages: BTreeMap<String, LockedStage>,
}

/// What the last run of a stage led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// Kind of the stage.
    #[schemars(with = "String")]
    pub uses: StageKind,
    /// Digest of everything that decided the result.
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))]
    pub fingerprint: Digest,
    /// Digest of the result.
    #[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))]
    pub artifact: Digest,
    /// Headline figures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// Why a lockfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockfileError {
    /// Reading or writing failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Its text is not a lockfile.
    #[error("`{}` is not a lockfile: {message}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// A newer version made it.
    #[error("`{}` has version {found}, this version knows up to {LOCKFILE_VERSION}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl LockfileError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Fs(error) => error.help(),
            Self::Invalid { .. } => {
                Some("solve a merge conflict by keeping either side, or delete the file: the next run writes it anew")
            }
            Self::Newer { .. } => Some("use the newer version of simsiam-pipe"),
        }
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Lockfile {
    /// The lockfile's place beside a pipeline file: `pipelines/intel.lock` for `pipelines/intel.yaml`.
    pub fn path_for(pipeline: &Path) -> PathBuf {
        pipeline.with_extension("lock")
    }

    /// Reads a lockfile; an absent one is empty.
    ///
    /// # Errors
    /// When it cannot be read or is no lockfile.
    pub fn load(path: &Path) -> Result<Self, LockfileError> {
        files::read_if_exists(path)?.map_or_else(|| Ok(Self::empty()), |bytes| Self::parse(path, &bytes))
    }

    /// A lockfile without stages.
    pub fn empty() -> Self {
        Self { version: LOCKFILE_VERSION, stages: BTreeMap::new() }
    }

    /// Parses the text of a lockfile; `path` is for messages.
    ///
    /// # Errors
    /// When it is no lockfile or a newer version made it.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LockfileError> {
        let invalid = |message: String| LockfileError::Invalid { path: path.to_path_buf(), message };
        let text = std::str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        if let Ok(VersionOnly { version }) = serde_yaml::from_str(text)
            && version > LOCKFILE_VERSION
        {
            return Err(LockfileError::Newer { path: path.to_path_buf(), found: version });
        }
        if let Some(idx) = text.lines().position(|line| line.starts_with("<<<<<<< ")) {
            return Err(invalid(format!("line {} begins a merge conflict", idx + 1)));
        }
        serde_yaml::from_str(text).map_err(|error| invalid(error.to_string()))
    }

    /// The text: YAML, each stage a JSON object on a line of its own.
    ///
    /// # Errors
    /// When a metric is not finite.
    pub fn render(&self) -> Result<String, serde_json::Error> {
        let mut text = format!("{HEADER}version: {}\nstages:", self.version);
        if self.stages.is_empty() {
            text.push_str(" {}");
        }
        text.push('\n');
        for (name, stage) in &self.stages {
            let _ = writeln!(text, "  {}: {}", serde_json::to_string(name)?, serde_json::to_string(stage)?);
        }
        Ok(text)
    }

    /// Writes the file if its text would change. Returns whether it did.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<bool, LockfileError> {
        let text = self
            .render()
            .map_err(|error| LockfileError::Invalid { path: path.to_path_buf(), message: error.to_string() })?;
        if files::read_if_exists(path)?.is_some_and(|old| old == text.as_bytes()) {
            return Ok(false);
        }
        files::write_atomic(path, text.as_bytes())?;
        Ok(true)
    }

    /// Notes what a stage led to.
    pub fn record(&mut self, stage: &str, fingerprint: Digest, entry: &CacheEntry) {
        let metrics = entry.metrics.iter().filter(|(_, value)| value.is_finite());
        self.stages.insert(
            stage.to_owned(),
            LockedStage {
                uses: entry.fingerprint.kind,
                fingerprint,
                artifact: entry.artifact,
                metrics: metrics.map(|(name, value)| (name.clone(), *value)).collect(),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Lockfile {
        let stage = |text: &str, metrics: &[(&str, f64)]| LockedStage {
            uses: StageKind::Fit,
            fingerprint: Digest::of(text.as_bytes()),
            artifact: Digest::of(b"artifact"),
            metrics: metrics.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        };
        let stages =
            [("probe", stage("a", &[("probe/top1", 0.814)])), ("knn", stage("b", &[])), ("1e3", stage("c", &[]))];
        Lockfile { version: 1, stages: stages.into_iter().map(|(name, stage)| (name.to_owned(), stage)).collect() }
    }

    #[test]
    fn text_round_trips_with_one_line_a_stage() {
        let text = example().render().unwrap();
        assert_eq!(text.lines().count(), 3 + 3);
        assert_eq!(Lockfile::parse(Path::new("x.lock"), text.as_bytes()).unwrap(), example());
        let empty = Lockfile::empty().render().unwrap();
        assert_eq!(Lockfile::parse(Path::new("x.lock"), empty.as_bytes()).unwrap(), Lockfile::empty());
        insta::assert_snapshot!("lockfile", text);
    }

    #[test]
    fn the_file_is_written_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intel.lock");
        assert_eq!(Lockfile::load(&path).unwrap(), Lockfile::empty());
        assert!(example().save(&path).unwrap());
        assert!(!example().save(&path).unwrap());
        assert_eq!(Lockfile::load(&path).unwrap(), example());
    }

    #[test]
    fn merge_conflicts_and_newer_versions_are_named() {
        let path = Path::new("intel.lock");
        let error = Lockfile::parse(path, b"version: 1\nstages:\n<<<<<<< HEAD\n").unwrap_err();
        assert_eq!(error.to_string(), "`intel.lock` is not a lockfile: line 3 begins a merge conflict");
        let error = Lockfile::parse(path, b"version: 2\nnew: 1\n").unwrap_err();
        assert_eq!(error.to_string(), "`intel.lock` has version 2, this version knows up to 1");
    }

    #[test]
    fn the_schema_file_matches_the_type_and_the_text() {
        let schema = crate::schema_files::check("lockfile.schema.json", &schemars::schema_for!(Lockfile).to_value());
        let value: serde_json::Value = serde_yaml::from_str(&example().render().unwrap()).unwrap();
        assert!(jsonschema::is_valid(&schema, &value));
        assert!(!jsonschema::is_valid(&schema, &serde_json::json!({"version": 1, "stage": {}})));
    }
}
