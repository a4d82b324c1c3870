//! Finds out what a decision about a stage rests on: sources, cache, lockfile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use super::{
    PlannedStage, Reason, RunnerError, Verdict,
    forecaster::{Forecaster, Surroundings},
    past_runs::PastRuns,
    plan::{Estimate, Findings, decide, place_of},
    runner_error::SourceProblem,
    selection::Selected,
};
use crate::{
    cache::{CacheEntry, CacheStatus, Project, Sources, Store, TreeDiff},
    config::{Pipeline, Stage, resolved::RenderError},
    digest::Digest,
    fingerprint::{
        StageFingerprint,
        diff::{self, CONTENT_OF},
    },
    fs::Ignore,
    lockfile::Lockfile,
    stage::{
        StageConfig, StageKind,
        external_input::{ExternalInput, PathKind, external_inputs},
        workload::relative_work,
    },
};

/// Artifacts of stages that are done, by name of the stage.
pub type Known = BTreeMap<String, Digest>;

/// Finds out what becomes of stages.
pub struct Planner<'a> {
    /// Where relative paths start.
    pub project: &'a Project,
    /// The cache.
    pub store: &'a Store,
    /// Digests of sources.
    pub sources: &'a Sources,
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// What ran last.
    pub lockfile: &'a Lockfile,
    /// Whether every stage is executed whatever the cache says.
    pub no_cache: bool,
    /// What earlier runs left; read when it is first needed.
    pub past: OnceLock<PastRuns>,
    /// What stages that never ran will cost.
    pub forecaster: Forecaster,
    /// What is said of two states of a source.
    pub tree_diffs: Mutex<BTreeMap<(Digest, Digest), Option<String>>>,
}

/// A decision with all that is needed to act on it.
pub struct Decision {
    /// What observers hear.
    pub planned: PlannedStage,
    /// The fingerprint, where the inputs are known.
    pub fingerprint: Option<StageFingerprint>,
    /// What the cache said.
    pub status: CacheStatus,
}

impl Planner<'_> {
    /// Checks that every file and folder outside the cache is there, before anything runs.
    ///
    /// # Errors
    /// Names all that are missing or empty.
    pub fn check_sources(&self, stages: &[&Stage]) -> Result<(), RunnerError> {
        let mut problems = Vec::new();
        for stage in stages {
            for input in external_inputs(&stage.config) {
                let path = self.source_path(&input);
                let problem = match path.metadata() {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                    Err(error) => format!("cannot be read: {error}"),
                    Ok(meta) if meta.is_file() && input.kind == PathKind::Folder => {
                        "is a file, not a folder".to_owned()
                    }
                    Ok(meta) if meta.is_dir() && input.kind == PathKind::File => "is a folder, not a file".to_owned(),
                    Ok(_) => match self.sources.content(&path, ignore_for(stage)) {
                        Ok(content) if content.num_files > 0 => continue,
                        Ok(_) => "holds no files".to_owned(),
                        Err(error) => format!("cannot be read: {}", super::runner_error::chain(&error)),
                    },
                };
                let key = format!("with.{}", input.key);
                problems.push(SourceProblem {
                    place: place_of(stage, &key)
                        .map(|place| format!("{}:{}", self.pipeline.path.display(), place.line)),
                    key: format!("stages.{}.{key}", stage.name),
                    path: input.path,
                    problem,
                });
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(RunnerError::Sources { problems, project_root: self.project.root.clone() })
    }

    /// What becomes of a stage, given what the stages before it left.
    ///
    /// # Errors
    /// When a source or the cache cannot be read.
    pub fn decide(&self, stage: &Stage, known: &Known, forced: bool) -> Result<Decision, RunnerError> {
        let locked = self.lockfile.stages.get(&stage.name).map(|stage| stage.fingerprint);
        let sources = self.source_digests(stage)?;
        let parameters = |source: serde_json::Error| {
            RunnerError::Parameters(RenderError::Json { stage: stage.name.clone(), source })
        };

        let waits_for: Vec<String> =
            parents(stage).into_iter().filter(|name| !known.contains_key(*name)).map(str::to_owned).collect();
        if !waits_for.is_empty() {
            let own = StageFingerprint::new(stage, BTreeMap::new(), sources).map_err(parameters)?;
            let previous = self.previous_entry(stage, locked)?;
            let counts = stage.inputs.iter().map(|(name, stages)| (name.as_str(), stages.len())).collect();
            let changes = previous.as_ref().map(|entry| {
                let mut changes = diff::diff_own(&entry.fingerprint, &own);
                changes.extend(diff::diff_input_counts(&entry.fingerprint, &counts));
                changes
            });
            let changes = changes.unwrap_or_default();
            let mut verdict = if forced || self.no_cache {
                Verdict::Run { reason: Reason::Forced }
            } else {
                Verdict::Unknown { waits_for, changes }
            };
            if let Some(entry) = &previous {
                self.name_changed_files(&mut verdict, &entry.fingerprint, &own);
            }
            let planned = self.planned(stage, verdict, &own, None, previous.as_ref(), known)?;
            return Ok(Decision { planned, fingerprint: None, status: CacheStatus::Miss });
        }

        let inputs = self.input_digests(stage, known)?;
        let fingerprint = StageFingerprint::new(stage, inputs, sources).map_err(parameters)?;
        let digest = fingerprint.digest().map_err(parameters)?;
        let status = self.store.lookup(&digest)?;
        let previous = match &status {
            CacheStatus::Hit(_) => None,
            _ => self.previous_entry(stage, locked)?,
        };
        let mut verdict = decide(&Findings {
            fingerprint: &fingerprint,
            digest,
            status: &status,
            locked,
            previous: previous.as_ref().map(|entry| &entry.fingerprint),
            forced: forced || self.no_cache,
        });
        if let Some(entry) = &previous {
            self.name_changed_files(&mut verdict, &entry.fingerprint, &fingerprint);
        }
        let last = match &status {
            CacheStatus::Hit(entry) => Some(&**entry),
            _ => previous.as_ref(),
        };
        let planned = self.planned(stage, verdict, &fingerprint, Some(digest), last, known)?;
        Ok(Decision { planned, fingerprint: Some(fingerprint), status })
    }

    /// What becomes of every selected stage as far as that can be known now.
    ///
    /// # Errors
    /// When a source is missing or something cannot be read.
    pub fn plan(&self, selected: &Selected<'_>) -> Result<Vec<Decision>, RunnerError> {
        self.check_sources(&selected.stages)?;
        let mut known = Known::new();
        let mut decisions = Vec::with_capacity(selected.stages.len());
        for stage in &selected.stages {
            let decision = self.decide(stage, &known, selected.forced.contains(stage.name.as_str()))?;
            if let Verdict::Hit { artifact, .. } = decision.planned.verdict {
                known.insert(stage.name.clone(), artifact);
            }
            decisions.push(decision);
        }
        Ok(decisions)
    }

    /// Says which files of a source differ, where the lists of both states are kept.
    fn name_changed_files(&self, verdict: &mut Verdict, old: &StageFingerprint, new: &StageFingerprint) {
        for change in verdict.changes_mut() {
            let key = change.key.strip_prefix(CONTENT_OF).and_then(|key| key.strip_prefix("with."));
            if let Some(key) = key
                && let (Some(old), Some(new)) = (old.sources.get(key), new.sources.get(key))
            {
                change.details = self.tree_diff(old, new);
            }
        }
    }

    /// Which files of a source differ, in words; found out once, though a stage is planned and then decided on.
    fn tree_diff(&self, old: &Digest, new: &Digest) -> Option<String> {
        let mut known = self.tree_diffs.lock().unwrap_or_else(PoisonError::into_inner);
        let diff = known.entry((*old, *new));
        diff.or_insert_with(|| TreeDiff::load(self.store.layout(), old, new).map(|diff| diff.to_string())).clone()
    }

    fn planned(
        &self,
        stage: &Stage,
        mut verdict: Verdict,
        now: &StageFingerprint,
        fingerprint: Option<Digest>,
        last: Option<&CacheEntry>,
        known: &Known,
    ) -> Result<PlannedStage, RunnerError> {
        verdict.locate(stage, &self.pipeline.path.display().to_string());
        let is_hit = verdict.is_hit();
        let like = if last.is_some() { None } else { self.past()?.like(&stage.name) };
        let by_run = |entry: &CacheEntry| Estimate::of(entry, relative_work(&entry.fingerprint.config, &now.config));
        let by_shapes = || {
            let (pipeline, store, project_root) = (self.pipeline, self.store, self.project.root.as_path());
            self.forecaster.of(stage, &Surroundings { pipeline, store, project_root, known }).map(Estimate::from)
        };
        Ok(PlannedStage {
            stage: stage.name.clone(),
            uses: stage.kind(),
            verdict,
            fingerprint,
            last_seconds: last.map(|entry| entry.provenance.wall_seconds),
            estimate: match last.or(like).map(by_run) {
                None => by_shapes(),
                // What `ingest` will do is only what is new, which no sample of the source says.
                Some(run) if is_hit || stage.kind() == StageKind::Ingest => Some(run),
                Some(run) => Some(by_shapes().filter(|shapes| shapes.is_other_work_than(&run)).unwrap_or(run)),
            },
        })
    }

    fn past(&self) -> Result<&PastRuns, RunnerError> {
        if let Some(past) = self.past.get() {
            return Ok(past);
        }
        let past = PastRuns::load(self.store, &self.pipeline.name)?;
        Ok(self.past.get_or_init(|| past))
    }

    /// The entry of the fingerprint in the lockfile, or else the newest of this stage.
    fn previous_entry(&self, stage: &Stage, locked: Option<Digest>) -> Result<Option<CacheEntry>, RunnerError> {
        if let Some(locked) = locked
            && let Ok(Some(entry)) = self.store.entry(&locked)
        {
            return Ok(Some(entry));
        }
        Ok(self.past()?.of(&stage.name).cloned())
    }

    fn input_digests(&self, stage: &Stage, known: &Known) -> Result<BTreeMap<String, Vec<Digest>>, RunnerError> {
        let mut inputs = BTreeMap::new();
        for (name, stages) in &stage.inputs {
            let files = declared_files(&stage.config, name);
            let mut digests = Vec::with_capacity(stages.len());
            for artifact in stages.iter().filter_map(|stage| known.get(stage)) {
                digests.push(if files.is_empty() {
                    *artifact
                } else {
                    self.store.manifest(artifact)?.digest_of(files)
                });
            }
            inputs.insert(name.clone(), digests);
        }
        Ok(inputs)
    }

    fn source_digests(&self, stage: &Stage) -> Result<BTreeMap<String, Digest>, RunnerError> {
        external_inputs(&stage.config)
            .into_iter()
            .map(|input| {
                let content = self.sources.content(&self.source_path(&input), ignore_for(stage))?;
                Ok((input.key, content.digest))
            })
            .collect()
    }

    /// The first source of a stage that is not what it was when the run began, if any.
    ///
    /// # Errors
    /// When a source cannot be read any more.
    pub fn changed_source(&self, stage: &Stage) -> Result<Option<ExternalInput>, RunnerError> {
        for input in external_inputs(&stage.config) {
            let path = self.source_path(&input);
            let before = self.sources.content(&path, ignore_for(stage))?;
            if self.sources.content_now(&path, ignore_for(stage))?.digest != before.digest {
                return Ok(Some(input));
            }
        }
        Ok(None)
    }

    fn source_path(&self, input: &ExternalInput) -> PathBuf {
        self.project.root.join(&input.path)
    }
}

/// Names of the stages that a stage needs, each once.
pub fn parents(stage: &Stage) -> BTreeSet<&str> {
    stage.inputs.values().flatten().map(String::as_str).collect()
}

fn ignore_for(stage: &Stage) -> Ignore {
    match stage.kind() {
        StageKind::Ingest => Ignore::HiddenAndDesktopFiles,
        _ => Ignore::Nothing,
    }
}

/// The files that a stage reads of an input's artifact; empty means all.
fn declared_files(config: &StageConfig, input: &str) -> &'static [&'static str] {
    let protocol = match config {
        StageConfig::Fit(config) => config.protocol(),
        _ => "",
    };
    config
        .kind()
        .protocols()
        .iter()
        .find(|(name, _)| *name == protocol)
        .and_then(|(_, inputs)| inputs.iter().find(|decl| decl.name == input))
        .map_or(&[], |decl| decl.files)
}
