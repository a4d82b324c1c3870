//! Runs stages again beside the cache and compares what they leave with what the cache holds: determinism is
//! checked, not assumed.

use std::{collections::BTreeMap, path::Path, sync::OnceLock, time::Instant};

use serde::Serialize;

use super::{
    RunEvent, RunOptions, Runner, RunnerError, Selection, Verdict,
    planner::Known,
    reporter::Reporter,
    runner_error::{FailureCause, StageFailure},
    stage_run::Walk,
};
use crate::{
    cache::{
        CacheError, FileRecord, Sources,
        artifact::{is_content, record_files},
    },
    config::{Pipeline, Stage},
    digest::Digest,
    fs::tree,
    lockfile::Lockfile,
    stage::StageError,
};

/// What an audit found about a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditedStage {
    /// Name of the stage.
    pub stage: String,
    /// What the cache holds.
    pub artifact: Digest,
    /// How long the stage took now, in seconds.
    pub seconds: f64,
    /// What came out otherwise; empty if every byte is the same.
    pub differences: Vec<FileDifference>,
}

/// A file that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Relative path.
    pub file: String,
    /// `missing`, `new` or `changed`.
    pub what: &'static str,
    /// The first byte that differs, from 0, where both have the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<u64>,
}

impl std::fmt::Display for FileDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.what, self.first_byte) {
            ("missing", _) => write!(f, "`{}` was not made this time", self.file),
            ("new", _) => write!(f, "`{}` was made that is not in the cache", self.file),
            (_, Some(offset)) => write!(f, "`{}` differs from byte {offset} on", self.file),
            _ => write!(f, "`{}` differs", self.file),
        }
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audit {
    /// The stages that ran again, in execution order.
    pub stages: Vec<AuditedStage>,
    /// Stages of which the cache holds nothing to compare with.
    pub not_in_cache: Vec<String>,
}

impl Audit {
    /// How many stages came out otherwise.
    pub fn num_different(&self) -> usize {
        self.stages.iter().filter(|stage| !stage.differences.is_empty()).count()
    }
}

impl Runner<'_> {
    /// Runs a stage, or all, again in a scratch folder. The cache's entries and artifacts stay as they are.
    ///
    /// # Errors
    /// When the stage that was asked for is not in the cache, a stage fails, or the user stops it.
    pub fn audit(&self, pipeline: &Pipeline, stage: Option<&str>) -> Result<Audit, RunnerError> {
        let stages = stage.map(str::to_owned).into_iter().collect();
        let options = RunOptions { selection: Selection { stages, ..Selection::default() }, ..RunOptions::default() };
        let lockfile = Lockfile::load(&Lockfile::path_for(&pipeline.path))?;
        let selected = options.selection.apply(pipeline)?;
        self.store.create()?;
        let sources = Sources::new(self.store.layout().clone());
        let planner = self.planner(pipeline, &lockfile, &sources, &options);
        let decisions = planner.plan(&selected)?;
        let forced = std::collections::BTreeSet::new();
        let walk = Walk {
            runner: self,
            planner: &planner,
            pipeline,
            options: &options,
            forced: &forced,
            git: OnceLock::new(),
        };
        let wanted = |name: &str| stage.is_none_or(|pattern| crate::config::cell::selects(pattern, name));
        self.observer.on_event(&RunEvent::RunStarted {
            pipeline: pipeline.name.clone(),
            path: pipeline.path.display().to_string(),
            stages: selected.stages.iter().map(|stage| stage.name.clone()).filter(|name| wanted(name)).collect(),
            dry_run: false,
        });
        let mut known = Known::new();
        let mut audit = Audit::default();
        for (stage, decision) in selected.stages.iter().zip(decisions) {
            match (decision.planned.verdict, decision.planned.fingerprint) {
                (Verdict::Hit { artifact, .. }, Some(fingerprint)) if self.store.pin(&artifact)? => {
                    if wanted(&stage.name) {
                        audit.stages.push(self.audit_stage(&walk, stage, &known, fingerprint, artifact)?);
                    }
                    known.insert(stage.name.clone(), artifact);
                }
                _ if wanted(&stage.name) => audit.not_in_cache.push(stage.name.clone()),
                _ => {}
            }
        }
        if audit.stages.is_empty() {
            return Err(RunnerError::NotUpToDate { stages: audit.not_in_cache });
        }
        Ok(audit)
    }

    fn audit_stage(
        &self,
        walk: &Walk<'_>,
        stage: &Stage,
        known: &Known,
        fingerprint: Digest,
        artifact: Digest,
    ) -> Result<AuditedStage, RunnerError> {
        let scratch = self.store.scratch(&fingerprint)?;
        let uses = stage.kind().name().to_owned();
        let last_seconds = self.store.entry(&fingerprint)?.map(|entry| entry.provenance.wall_seconds);
        let log_dir = self.project.display(&scratch.out_dir().join(crate::cache::artifact::LOGS)).to_string();
        walk.tell(&RunEvent::StageStarted { stage: stage.name.clone(), uses, last_seconds, log_dir });
        let started = Instant::now();
        let job = walk.job(stage, known, fingerprint, None, scratch.out_dir(), scratch.work_dir());
        let reporter = Reporter::new(walk, &stage.name);
        if let Err(error) = walk.execute(stage, known, &job, &reporter) {
            return Err(match (error, self.cancel.signal()) {
                (FailureCause::Stage(StageError::Cancelled), Some(signal)) => RunnerError::Cancelled { signal },
                (error, _) => {
                    let (stage, log) = (stage.name.clone(), None);
                    walk.tell(&RunEvent::stage_failed(&stage, &error, log));
                    RunnerError::StagesFailed { failures: vec![StageFailure { stage, error }] }
                }
            });
        }
        let manifest = self.store.manifest(&artifact)?;
        let now = record_files(scratch.out_dir(), &stage.name)?;
        let object = self.store.layout().object(&artifact);
        let differences = compare(&object, &manifest.files, scratch.out_dir(), &now)?;
        let seconds = started.elapsed().as_secs_f64();
        walk.tell(&RunEvent::StageAudited {
            stage: stage.name.clone(),
            artifact,
            seconds,
            differences: differences.iter().map(ToString::to_string).collect(),
        });
        Ok(AuditedStage { stage: stage.name.clone(), artifact, seconds, differences })
    }
}

/// Compares content file by file; logs may differ.
fn compare(
    object: &Path,
    before: &BTreeMap<String, FileRecord>,
    out_dir: &Path,
    now: &BTreeMap<String, FileRecord>,
) -> Result<Vec<FileDifference>, CacheError> {
    let mut differences = Vec::new();
    for (name, file) in before.iter().filter(|(name, _)| is_content(name)) {
        let (what, first_byte) = match now.get(name) {
            None => ("missing", None),
            Some(found) if found.digest == file.digest => continue,
            Some(_) => ("changed", tree::first_difference(&object.join(name), &out_dir.join(name))?),
        };
        differences.push(FileDifference { file: name.clone(), what, first_byte });
    }
    for name in now.keys().filter(|name| is_content(name) && !before.contains_key(*name)) {
        differences.push(FileDifference { file: name.clone(), what: "new", first_byte: None });
    }
    Ok(differences)
}
