//! A run from beginning to end: plan, walk through the stages, lockfile, history.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::Instant,
};

use super::{
    Cancel, Plan, RunEvent, RunObserver, RunnerError, Selection, StageExecutor,
    event::{Metrics, Outcome},
    forecaster::Forecaster,
    links,
    planner::Planner,
    run_page::{self, Moment},
    runner_error::{StageFailure, chain},
    stage_run::{Done, Walk},
};
use crate::{
    cache::{
        Project, Sources, Store,
        history::{Action, HISTORY_FORMAT, RunRecord, StageRecord},
    },
    compute::{DeviceChoice, Precision},
    config::Pipeline,
    digest::Digest,
    fs::{files, sweep_temporaries},
    lockfile::Lockfile,
    stage::ArtifactKind,
    sys::Timestamp,
};

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Which stages.
    pub selection: Selection,
    /// Most stages at a time; 0 counts as 1.
    pub jobs: usize,
    /// Execute everything whatever the cache says; results are stored all the same.
    pub no_cache: bool,
    /// After a failure go on with what does not depend on it.
    pub keep_going: bool,
    /// What computes, instead of what the pipeline says.
    pub device: Option<DeviceChoice>,
    /// How a GPU computes, instead of what the pipeline says.
    pub precision: Option<Precision>,
}

/// What a run led to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Stages that are done, in execution order.
    pub stages: Vec<StageSummary>,
    /// How long it took.
    pub seconds: f64,
}

/// What became of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSummary {
    /// Name of the stage.
    pub stage: String,
    /// Whether it was executed or restored.
    pub action: Action,
    /// Digest of the artifact.
    pub artifact: Digest,
    /// Its cache key.
    pub fingerprint: Digest,
    /// How long it took: now if it was executed, then if it was restored.
    pub seconds: f64,
    /// Headline figures.
    pub metrics: Metrics,
}

/// Runs pipelines in a project.
pub struct Runner<'a> {
    /// Where relative paths and `runs/` are.
    pub project: &'a Project,
    /// The cache.
    pub store: &'a Store,
    /// Who does the work.
    pub executor: &'a dyn StageExecutor,
    /// Who watches.
    pub observer: &'a dyn RunObserver,
    /// Whether to stop.
    pub cancel: &'a Cancel,
}

impl Runner<'_> {
    /// What a run would do.
    ///
    /// # Errors
    /// When a source is missing or something cannot be read.
    pub fn plan(&self, pipeline: &Pipeline, options: &RunOptions) -> Result<Plan, RunnerError> {
        let lockfile = Lockfile::load(&Lockfile::path_for(&pipeline.path))?;
        let sources = Sources::new(self.store.layout().clone());
        let planner = self.planner(pipeline, &lockfile, &sources, options);
        let selected = options.selection.apply(pipeline)?;
        let decisions = planner.plan(&selected)?;
        let stages = decisions.into_iter().map(|decision| decision.planned).collect();
        Ok(Plan::new(pipeline, stages, options.jobs))
    }

    pub(super) fn planner<'b>(
        &'b self,
        pipeline: &'b Pipeline,
        lockfile: &'b Lockfile,
        sources: &'b Sources,
        options: &RunOptions,
    ) -> Planner<'b> {
        Planner {
            project: self.project,
            store: self.store,
            sources,
            pipeline,
            lockfile,
            no_cache: options.no_cache,
            past: OnceLock::new(),
            forecaster: Forecaster::default(),
            tree_diffs: Mutex::default(),
        }
    }

    /// Brings every selected stage up to date.
    ///
    /// # Errors
    /// When something is missing, a stage fails or the user stops it. What was finished before is kept.
    pub fn run(&self, pipeline: &Pipeline, options: &RunOptions) -> Result<RunSummary, RunnerError> {
        let started = Instant::now();
        let began = Timestamp::now();
        let lockfile_path = Lockfile::path_for(&pipeline.path);
        let mut lockfile = Lockfile::load(&lockfile_path)?;
        let selected = options.selection.apply(pipeline)?;
        self.store.create()?;
        // What a process that was killed left beside the lockfile and the links.
        for path in [&lockfile_path, &self.project.run_link(&pipeline.name, "any")] {
            sweep_temporaries(&files::parent_of(path));
        }
        let sources = Sources::new(self.store.layout().clone());
        let planner = self.planner(pipeline, &lockfile, &sources, options);

        self.observer.on_event(&RunEvent::RunStarted {
            pipeline: pipeline.name.clone(),
            path: pipeline.path.display().to_string(),
            stages: selected.stages.iter().map(|stage| stage.name.clone()).collect(),
            dry_run: false,
        });
        for decision in planner.plan(&selected)? {
            self.observer.on_event(&RunEvent::StagePlanned { plan: decision.planned });
        }

        let walk =
            Walk { runner: self, planner: &planner, pipeline, options, forced: &selected.forced, git: OnceLock::new() };
        let (done, failures) = walk.run(&selected.stages);

        let outcome = match (self.cancel.is_set() && done.len() < selected.stages.len(), failures.is_empty()) {
            (true, _) => Outcome::Cancelled,
            (false, true) => Outcome::Done,
            (false, false) => Outcome::Failed,
        };
        let stages: Vec<StageSummary> = selected
            .stages
            .iter()
            .filter_map(|stage| done.get(&stage.name).map(|(summary, _)| summary.clone()))
            .collect();
        for (summary, entry) in done.values() {
            lockfile.record(&summary.stage, summary.fingerprint, entry);
        }
        lockfile.stages.retain(|name, _| {
            let stays = pipeline.stage(name).is_some();
            if !stays {
                // Of stages that this pipeline had: another file may give its pipeline the same name.
                let removed = links::remove_link(self.project, &pipeline.name, name)
                    .and_then(|_| run_page::remove(self.project, &pipeline.name, name));
                self.warn_if(removed, "the link of a stage that is no longer there was not removed");
            }
            stays
        });
        if !lockfile.stages.is_empty() || files::exists(&lockfile_path) {
            self.warn_if(lockfile.save(&lockfile_path).map(drop), "the lockfile was not updated");
        }
        let seconds = started.elapsed().as_secs_f64();
        let record = self.record(pipeline, began, seconds, outcome, &stages, &failures);
        self.warn_if(record.append(self.store.layout()), "the run is missing in the history");

        let report = self.report_page(pipeline, &done, &Moment { began, seconds });
        self.finish(pipeline, &stages, seconds, outcome, report);
        match (outcome, self.cancel.signal()) {
            (Outcome::Cancelled, Some(signal)) => Err(RunnerError::Cancelled { signal }),
            (Outcome::Done, _) => Ok(RunSummary { stages, seconds }),
            _ => Err(RunnerError::StagesFailed { failures }),
        }
    }

    fn record(
        &self,
        pipeline: &Pipeline,
        began: Timestamp,
        seconds: f64,
        outcome: Outcome,
        done: &[StageSummary],
        failures: &[StageFailure],
    ) -> RunRecord {
        let done = done.iter().map(|stage| StageRecord {
            stage: stage.stage.clone(),
            action: stage.action,
            fingerprint: Some(stage.fingerprint),
            artifact: Some(stage.artifact),
            seconds: stage.seconds,
            metrics: stage.metrics.clone(),
        });
        let failed = failures.iter().map(|failure| StageRecord {
            stage: failure.stage.clone(),
            action: Action::Failed,
            fingerprint: None,
            artifact: None,
            seconds: 0.0,
            metrics: BTreeMap::new(),
        });
        RunRecord {
            format: HISTORY_FORMAT,
            began,
            seconds,
            pipeline: pipeline.name.clone(),
            path: std::path::absolute(&pipeline.path).unwrap_or_else(|_| pipeline.path.clone()),
            project_root: self.project.root.clone(),
            outcome,
            stages: done.chain(failed).collect(),
        }
    }

    /// Brings the pages of the reports up to date that were made or restored, and returns the last of them: a page of
    /// an earlier run is not what this one led to.
    fn report_page(&self, pipeline: &Pipeline, done: &Done, moment: &Moment) -> Option<PathBuf> {
        let mut last = None;
        for stage in pipeline.stages.iter().filter(|stage| stage.kind().output() == ArtifactKind::Report) {
            if !done.contains_key(&stage.name) {
                continue;
            }
            let in_artifact = self.project.run_link(&pipeline.name, &stage.name).join("report.html");
            let page = match run_page::update(self.project, self.store, pipeline, stage, done, moment) {
                Ok(Some((path, aside))) => {
                    if let Some(aside) = aside {
                        let (page, aside) = (self.project.display(&path), self.project.display(&aside));
                        let message = format!("`{page}` was changed by somebody; that copy is now at `{aside}`");
                        self.observer.on_event(&RunEvent::Warning { message });
                    }
                    path
                }
                Ok(None) => in_artifact,
                Err(error) => {
                    self.warn_if(Err(error), "the page of the run was not written");
                    in_artifact
                }
            };
            last = Some(page).filter(|path| path.exists()).or(last);
        }
        last
    }

    fn finish(
        &self,
        pipeline: &Pipeline,
        stages: &[StageSummary],
        seconds: f64,
        outcome: Outcome,
        report: Option<PathBuf>,
    ) {
        let restored: Vec<_> = stages.iter().filter(|stage| stage.action == Action::Restored).collect();
        self.observer.on_event(&RunEvent::RunFinished {
            pipeline: pipeline.name.clone(),
            outcome,
            seconds,
            executed: stages.len() - restored.len(),
            restored: restored.len(),
            saved_seconds: restored.iter().map(|stage| stage.seconds).sum(),
            report: report.map(|path| self.project.display(&path).to_string()),
        });
    }

    fn warn_if<E: std::error::Error>(&self, result: Result<(), E>, what: &str) {
        if let Err(error) = result {
            self.observer.on_event(&RunEvent::Warning { message: format!("{what}: {}", chain(&error)) });
        }
    }
}
