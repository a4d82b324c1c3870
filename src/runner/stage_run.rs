//! Takes one stage after the other: restores it or executes it, independent ones side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
    time::Instant,
};

use super::{
    RunEvent, RunOptions, Runner, RunnerError, StageJob, Verdict,
    earlier::{self, find_earlier},
    event::{Holder, Metrics},
    execute::StageSummary,
    links,
    planner::{Decision, Known, Planner, parents},
    reporter::Reporter,
    runner_error::{FailureCause, StageFailure, chain},
    worker::panic_message,
};
use crate::{
    cache::{CacheEntry, CacheError, CacheStatus, Provenance, history::Action, workspace::Claim},
    config::{Pipeline, Stage, render_resolved},
    digest::Digest,
    lockfile::Lockfile,
    stage::{InputArtifact, StageError, earlier::Earlier},
    sys::{self, GitState, Timestamp},
};

/// One walk through the selected stages.
pub(super) struct Walk<'a> {
    pub(super) runner: &'a Runner<'a>,
    pub(super) planner: &'a Planner<'a>,
    pub(super) pipeline: &'a Pipeline,
    pub(super) options: &'a RunOptions,
    pub(super) forced: &'a BTreeSet<&'a str>,
    /// What the project is at; asked for when the first stage executes.
    pub(super) git: OnceLock<Option<GitState>>,
}

/// Why a stage failed, and where what it said is kept.
struct Failed {
    error: FailureCause,
    log: Option<PathBuf>,
}

impl<E: Into<FailureCause>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), log: None }
    }
}

/// Stages that are up to date, with their cache entries.
pub(super) type Done = BTreeMap<String, (StageSummary, CacheEntry)>;

impl Walk<'_> {
    /// Brings every stage up to date, as far as failures and the user allow.
    pub(super) fn run(&self, stages: &[&Stage]) -> (Done, Vec<StageFailure>) {
        let mut done = Done::new();
        let mut failures: Vec<StageFailure> = Vec::new();
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        let mut pending: Vec<&Stage> = stages.to_vec();
        let mut num_running = 0;
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            loop {
                let stop = self.runner.cancel.is_set() || (!failures.is_empty() && !self.options.keep_going);
                while !stop && num_running < self.options.jobs.max(1) {
                    let Some(idx) = pending.iter().position(|stage| {
                        parents(stage).iter().all(|name| done.contains_key(*name) || lost.contains(name))
                    }) else {
                        break;
                    };
                    let stage = pending.remove(idx);
                    if let Some(because) = parents(stage).into_iter().find(|name| lost.contains(name)) {
                        lost.insert(&stage.name);
                        self.tell(&RunEvent::StageSkipped { stage: stage.name.clone(), because: because.to_owned() });
                        continue;
                    }
                    let known: Known =
                        done.iter().map(|(name, (summary, _))| (name.clone(), summary.artifact)).collect();
                    let sender = sender.clone();
                    num_running += 1;
                    scope.spawn(move || {
                        // The receiver outlives every worker: it is dropped after the last has reported.
                        let _ = sender.send((stage, self.bring_up_to_date(stage, &known)));
                    });
                }
                if num_running == 0 {
                    break;
                }
                let Ok((stage, result)) = receiver.recv() else { break };
                num_running -= 1;
                match result {
                    Ok(finished) => {
                        done.insert(stage.name.clone(), finished);
                    }
                    Err(Failed { error: FailureCause::Stage(StageError::Cancelled), .. }) => {
                        lost.insert(&stage.name);
                        self.tell(&RunEvent::StageCancelled { stage: stage.name.clone() });
                    }
                    Err(Failed { error, log }) => {
                        lost.insert(&stage.name);
                        let log = log.map(|log| self.runner.project.display(&log).to_string());
                        self.tell(&RunEvent::stage_failed(&stage.name, &error, log));
                        failures.push(StageFailure { stage: stage.name.clone(), error });
                    }
                }
            }
        });
        (done, failures)
    }

    pub(super) fn tell(&self, event: &RunEvent) {
        self.runner.observer.on_event(event);
    }

    /// Restores or executes one stage whose inputs are all there.
    fn bring_up_to_date(&self, stage: &Stage, known: &Known) -> Result<(StageSummary, CacheEntry), Failed> {
        let store = self.runner.store;
        let forced = self.forced.contains(stage.name.as_str());
        let Decision { planned, fingerprint, status } = self.planner.decide(stage, known, forced).map_err(Box::new)?;
        let (Some(fingerprint), Some(digest)) = (fingerprint, planned.fingerprint) else {
            return Err(FailureCause::Panic { message: "a stage was started before what it needs".into() }.into());
        };
        if !parents(stage).is_empty() {
            self.tell(&RunEvent::StagePlanned { plan: planned.clone() });
        }
        if let (Verdict::Hit { .. }, CacheStatus::Hit(entry)) = (&planned.verdict, &status)
            && store.pin(&entry.artifact)?
        {
            return Ok(self.restore(stage, digest, entry)?);
        }

        let mut waited = false;
        let claim = store.claim(&digest, &mut |holder| {
            if !std::mem::replace(&mut waited, true) {
                let holder = holder.map(Holder::from);
                self.tell(&RunEvent::StageWaiting { stage: stage.name.clone(), holder });
            }
            !self.runner.cancel.is_set()
        })?;
        let Claim::Granted(workspace) = claim else { return Err(StageError::Cancelled.into()) };
        match store.lookup(&digest)? {
            // Whoever held the lock may have made just what we need.
            CacheStatus::Hit(entry)
                if (waited || !(forced || self.options.no_cache)) && store.pin(&entry.artifact)? =>
            {
                drop(workspace);
                return Ok(self.restore(stage, digest, &entry)?);
            }
            CacheStatus::Damaged { entry: Some(entry), edited: true, .. } => {
                self.move_edited_aside(stage, &entry.artifact)?;
            }
            _ => {}
        }

        self.tell(&RunEvent::StageStarted {
            stage: stage.name.clone(),
            uses: stage.kind().name().to_owned(),
            last_seconds: planned.last_seconds,
            log_dir: self.runner.project.display(&workspace.out_dir().join(crate::cache::artifact::LOGS)).to_string(),
        });
        let started = Instant::now();
        if self.options.jobs <= 1 {
            sys::reset_peak_rss();
        }
        let git = self.git.get_or_init(|| {
            let lockfile = std::path::absolute(Lockfile::path_for(&self.pipeline.path)).unwrap_or_default();
            GitState::of(&self.runner.project.root, &[&lockfile])
        });
        let reporter = Reporter::new(self, &stage.name);
        // Who asks for everything anew does not believe the cache.
        let believes = !(forced || self.options.no_cache);
        let earlier = believes.then(|| find_earlier(store, self.pipeline, stage, &fingerprint)).flatten();
        let job = self.job(stage, known, digest, earlier, workspace.out_dir(), workspace.work_dir());
        let metrics = match self.execute(stage, known, &job, &reporter) {
            Ok(metrics) => metrics,
            Err(error @ FailureCause::Stage(StageError::Cancelled)) => return Err(error.into()),
            Err(error) => {
                let log = workspace.keep_logs(&reporter.log(&chain(&error)));
                return Err(Failed { error, log });
            }
        };
        let provenance = Provenance {
            pipeline: self.pipeline.name.clone(),
            stage: stage.name.clone(),
            created: Timestamp::now(),
            host: sys::host_name(),
            device: reporter.device(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            git: git.clone(),
            wall_seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            peak_rss_bytes: reporter.program_peak_bytes().unwrap_or_else(sys::peak_rss_bytes),
        };
        let config_yaml = render_resolved(stage).map_err(|error| Box::new(RunnerError::Parameters(error)))?;
        let aside = links::aside_path(&self.runner.project.run_link(&self.pipeline.name, &stage.name));
        let taken_from = job.earlier.as_ref().map(|earlier| earlier.artifact.dir.as_path());
        let (entry, moved) = workspace.save(fingerprint, &config_yaml, metrics, provenance, taken_from, &aside)?;
        // Who looks for it later and does not find it does more work, nothing worse.
        let _ = earlier::remember(store, &entry.fingerprint, &digest);
        if moved {
            self.tell_moved(stage, &aside);
        }
        self.move_strangers_aside(stage, &entry.artifact)?;
        let path = self.link(stage, &entry.artifact)?;
        let before = self.planner.lockfile.stages.get(&stage.name).map(|locked| locked.artifact);
        self.tell(&RunEvent::StageFinished {
            stage: stage.name.clone(),
            artifact: entry.artifact,
            metrics: entry.metrics.clone(),
            seconds: entry.provenance.wall_seconds,
            unchanged: before == Some(entry.artifact),
            logs: self.logs(&path, &entry.artifact),
            path,
        });
        Ok((summary(stage, Action::Executed, digest, &entry), entry))
    }

    /// The files and folders with logs in an artifact, as seen through its link.
    fn logs(&self, link: &str, artifact: &Digest) -> Vec<String> {
        let logs = crate::cache::artifact::LOGS;
        let folder = self.runner.store.layout().object(artifact).join(logs);
        // Logs are a convenience: where they cannot be listed, none are named.
        let names = crate::fs::files::list(&folder).unwrap_or_default();
        names.into_iter().map(|name| format!("{link}/{logs}{name}")).collect()
    }

    fn restore(
        &self,
        stage: &Stage,
        digest: Digest,
        entry: &CacheEntry,
    ) -> Result<(StageSummary, CacheEntry), FailureCause> {
        self.move_strangers_aside(stage, &entry.artifact)?;
        let path = self.link(stage, &entry.artifact)?;
        self.tell(&RunEvent::StageRestored {
            stage: stage.name.clone(),
            artifact: entry.artifact,
            metrics: entry.metrics.clone(),
            saved_seconds: entry.provenance.wall_seconds,
            logs: self.logs(&path, &entry.artifact),
            path,
        });
        Ok((summary(stage, Action::Restored, digest, entry), entry.clone()))
    }

    /// What a stage is to do, and where.
    pub(super) fn job(
        &self,
        stage: &Stage,
        known: &Known,
        fingerprint: Digest,
        earlier: Option<Earlier>,
        out_dir: &Path,
        work_dir: &Path,
    ) -> StageJob {
        let layout = self.runner.store.layout();
        let mut inputs: BTreeMap<String, Vec<InputArtifact>> = BTreeMap::new();
        for (name, stages) in &stage.inputs {
            let artifacts = inputs.entry(name.clone()).or_default();
            for parent in stages {
                if let Some(digest) = known.get(parent) {
                    let dir = layout.object(digest);
                    artifacts.push(InputArtifact { stage: parent.clone(), digest: *digest, dir });
                }
            }
        }
        StageJob {
            fingerprint,
            pipeline: self.pipeline.name.clone(),
            stage: stage.name.clone(),
            config: stage.config.clone(),
            inputs,
            out_dir: out_dir.to_owned(),
            work_dir: work_dir.to_owned(),
            project_root: self.runner.project.root.clone(),
            seed: stage.seed,
            earlier,
            threads: (rayon::current_num_threads() / self.options.jobs.max(1)).max(1),
            device: self.options.device.unwrap_or(self.pipeline.device),
            precision: self.options.precision.unwrap_or(self.pipeline.precision),
        }
    }

    /// Executes a stage and checks that nobody has changed what it read.
    pub(super) fn execute(
        &self,
        stage: &Stage,
        known: &Known,
        job: &StageJob,
        reporter: &Reporter<'_>,
    ) -> Result<Metrics, FailureCause> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.runner.executor.execute(job, reporter)))
            .map_err(|payload| FailureCause::Panic { message: panic_message(&*payload) })??;
        if let Some(input) = self.planner.changed_source(stage).map_err(Box::new)? {
            return Err(FailureCause::SourceChanged { key: format!("with.{}", input.key), path: input.path });
        }
        for parent in parents(stage) {
            if let Some(artifact) = known.get(parent)
                && let Some(message) = self.runner.store.damage(artifact)?
            {
                return Err(FailureCause::InputChanged { stage: parent.to_owned(), message });
            }
        }
        Ok(outcome.metrics)
    }

    fn link(&self, stage: &Stage, artifact: &Digest) -> Result<String, FailureCause> {
        let project = self.runner.project;
        let object = self.runner.store.layout().object(artifact);
        let moved =
            links::link_artifact(project, &self.pipeline.name, &stage.name, &object).map_err(CacheError::from)?;
        if let Some(aside) = moved {
            self.tell_moved(stage, &aside);
        }
        Ok(project.display(&project.run_link(&self.pipeline.name, &stage.name)).to_string())
    }

    /// The artifact is what a link under `runs/` leads to: whoever edits there, edits it.
    fn move_edited_aside(&self, stage: &Stage, artifact: &Digest) -> Result<(), FailureCause> {
        let aside = links::aside_path(&self.runner.project.run_link(&self.pipeline.name, &stage.name));
        if self.runner.store.set_aside_if_edited(artifact, &aside)? {
            self.tell_moved(stage, &aside);
        }
        Ok(())
    }

    /// What somebody has put beside the outputs.
    fn move_strangers_aside(&self, stage: &Stage, artifact: &Digest) -> Result<(), FailureCause> {
        let aside = links::aside_path(&self.runner.project.run_link(&self.pipeline.name, &stage.name));
        if self.runner.store.set_strangers_aside(artifact, &aside)? {
            self.tell(&RunEvent::Warning {
                message: format!(
                    "somebody put files into the output of `{}`; they are now at `{}`",
                    stage.name,
                    self.runner.project.display(&aside)
                ),
            });
        }
        Ok(())
    }

    fn tell_moved(&self, stage: &Stage, aside: &Path) {
        self.tell(&RunEvent::Warning {
            message: format!(
                "the output of `{}` was changed by somebody; that copy is now at `{}`",
                stage.name,
                self.runner.project.display(aside)
            ),
        });
    }
}

fn summary(stage: &Stage, action: Action, fingerprint: Digest, entry: &CacheEntry) -> StageSummary {
    StageSummary {
        stage: stage.name.clone(),
        action,
        artifact: entry.artifact,
        fingerprint,
        seconds: entry.provenance.wall_seconds,
        metrics: entry.metrics.clone(),
    }
}
