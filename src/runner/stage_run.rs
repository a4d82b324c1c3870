//! Takes one stage after the other: restores it or executes it, independent ones side by side.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    RunEvent, RunOptions, Runner, RunnerError, Verdict,
    event::{Holder, Level, Metrics},
    execute::StageSummary,
    links,
    planner::{Decision, Known, Planner, parents},
    runner_error::{FailureCause, StageFailure, chain},
};
use crate::{
    cache::{CacheEntry, CacheError, CacheStatus, Provenance, history::Action, workspace::Claim},
    config::{Pipeline, Stage, render_resolved},
    digest::Digest,
    stage::{InputArtifact, StageContext, StageError, StageReporter},
    sys::{self, Timestamp},
};

/// Progress of a stage is passed on this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// One walk through the selected stages.
pub(super) struct Walk<'a> {
    pub(super) runner: &'a Runner<'a>,
    pub(super) planner: &'a Planner<'a>,
    pub(super) pipeline: &'a Pipeline,
    pub(super) options: &'a RunOptions,
    pub(super) forced: &'a BTreeSet<&'a str>,
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
                    Err(FailureCause::Stage(StageError::Cancelled)) => {
                        lost.insert(&stage.name);
                        self.tell(&RunEvent::StageCancelled { stage: stage.name.clone() });
                    }
                    Err(error) => {
                        lost.insert(&stage.name);
                        self.tell(&RunEvent::StageFailed {
                            stage: stage.name.clone(),
                            message: chain(&error),
                            help: error.help(),
                        });
                        failures.push(StageFailure { stage: stage.name.clone(), error });
                    }
                }
            }
        });
        (done, failures)
    }

    fn tell(&self, event: &RunEvent) {
        self.runner.observer.on_event(event);
    }

    /// Restores or executes one stage whose inputs are all there.
    fn bring_up_to_date(&self, stage: &Stage, known: &Known) -> Result<(StageSummary, CacheEntry), FailureCause> {
        let store = self.runner.store;
        let forced = self.forced.contains(stage.name.as_str());
        let Decision { planned, fingerprint, status } = self.planner.decide(stage, known, forced).map_err(Box::new)?;
        let (Some(fingerprint), Some(digest)) = (fingerprint, planned.fingerprint) else {
            return Err(FailureCause::Panic { message: "a stage was started before what it needs".into() });
        };
        if !parents(stage).is_empty() {
            self.tell(&RunEvent::StagePlanned { plan: planned.clone() });
        }
        if let (Verdict::Hit { .. }, CacheStatus::Hit(entry)) = (&planned.verdict, &status)
            && store.pin(&entry.artifact)?
        {
            return self.restore(stage, digest, entry);
        }
        if let CacheStatus::Damaged { entry: Some(entry), edited: true, .. } = &status {
            self.move_edited_aside(stage, &entry.artifact)?;
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
        // Whoever held the lock may have made just what we need.
        if (waited || !(forced || self.options.no_cache))
            && let CacheStatus::Hit(entry) = store.lookup(&digest)?
            && store.pin(&entry.artifact)?
        {
            drop(workspace);
            return self.restore(stage, digest, &entry);
        }

        self.tell(&RunEvent::StageStarted {
            stage: stage.name.clone(),
            uses: stage.kind().name().to_owned(),
            last_seconds: planned.last_seconds,
        });
        let started = Instant::now();
        if self.options.jobs <= 1 {
            sys::reset_peak_rss();
        }
        let metrics = self.execute(stage, known, workspace.out_dir(), workspace.work_dir())?;
        if let Some(input) = self.planner.changed_source(stage).map_err(Box::new)? {
            return Err(FailureCause::SourceChanged { key: format!("with.{}", input.key), path: input.path });
        }
        let provenance = Provenance {
            pipeline: self.pipeline.name.clone(),
            stage: stage.name.clone(),
            created: Timestamp::now(),
            host: sys::host_name(),
            device: "cpu".to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            wall_seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            peak_rss_bytes: sys::peak_rss_bytes(),
        };
        let config_yaml = render_resolved(stage).map_err(|error| Box::new(RunnerError::Parameters(error)))?;
        let aside = links::aside_path(&self.runner.project.run_link(&self.pipeline.name, &stage.name));
        let (entry, moved) = workspace.save(fingerprint, &config_yaml, metrics, provenance, &aside)?;
        if moved {
            self.tell_moved(stage, &aside);
        }
        let path = self.link(stage, &entry.artifact)?;
        let before = self.planner.lockfile.stages.get(&stage.name).map(|locked| locked.artifact);
        self.tell(&RunEvent::StageFinished {
            stage: stage.name.clone(),
            artifact: entry.artifact,
            metrics: entry.metrics.clone(),
            seconds: entry.provenance.wall_seconds,
            unchanged: before == Some(entry.artifact),
            path,
        });
        Ok((summary(stage, Action::Executed, digest, &entry), entry))
    }

    fn restore(
        &self,
        stage: &Stage,
        digest: Digest,
        entry: &CacheEntry,
    ) -> Result<(StageSummary, CacheEntry), FailureCause> {
        let path = self.link(stage, &entry.artifact)?;
        self.tell(&RunEvent::StageRestored {
            stage: stage.name.clone(),
            artifact: entry.artifact,
            metrics: entry.metrics.clone(),
            saved_seconds: entry.provenance.wall_seconds,
            path,
        });
        Ok((summary(stage, Action::Restored, digest, entry), entry.clone()))
    }

    fn execute(&self, stage: &Stage, known: &Known, out_dir: &Path, work_dir: &Path) -> Result<Metrics, FailureCause> {
        let store = self.runner.store;
        let mut inputs: BTreeMap<String, Vec<InputArtifact>> = BTreeMap::new();
        for (name, stages) in &stage.inputs {
            let artifacts = inputs.entry(name.clone()).or_default();
            for parent in stages {
                if let Some(digest) = known.get(parent) {
                    let dir = store.layout().object(digest);
                    artifacts.push(InputArtifact { stage: parent.clone(), digest: *digest, dir });
                }
            }
        }
        let reporter = Reporter { walk: self, stage: &stage.name, last_progress: Mutex::new(None) };
        let ctx = StageContext {
            pipeline: &self.pipeline.name,
            stage: &stage.name,
            inputs: &inputs,
            out_dir,
            work_dir,
            project_root: &self.runner.project.root,
            seed: stage.seed,
            reporter: &reporter,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| self.runner.executor.execute(&stage.config, &ctx)))
            .map_err(|payload| FailureCause::Panic { message: panic_message(&*payload) })??;
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

    fn move_edited_aside(&self, stage: &Stage, artifact: &Digest) -> Result<(), FailureCause> {
        let aside = links::aside_path(&self.runner.project.run_link(&self.pipeline.name, &stage.name));
        if self.runner.store.move_aside(artifact, &aside)? {
            self.tell_moved(stage, &aside);
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

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Passes on what a stage says.
struct Reporter<'a> {
    walk: &'a Walk<'a>,
    stage: &'a str,
    last_progress: Mutex<Option<Instant>>,
}

impl StageReporter for Reporter<'_> {
    fn progress(&self, done: u64, total: u64, unit: &str, message: &str) {
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && last.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        self.walk.tell(&RunEvent::StageProgress {
            stage: self.stage.to_owned(),
            done,
            total,
            unit: unit.to_owned(),
            message: message.to_owned(),
        });
    }

    fn warn(&self, message: &str) {
        self.say(Level::Warning, message);
    }

    fn info(&self, message: &str) {
        self.say(Level::Info, message);
    }

    fn metric(&self, name: &str, step: u64, value: f64) {
        self.walk.tell(&RunEvent::StageMetric {
            stage: self.stage.to_owned(),
            name: name.to_owned(),
            step,
            value: value.is_finite().then_some(value),
        });
    }

    fn is_cancelled(&self) -> bool {
        self.walk.runner.cancel.is_set()
    }
}

impl Reporter<'_> {
    fn say(&self, level: Level, message: &str) {
        self.walk.tell(&RunEvent::StageMessage { stage: self.stage.to_owned(), level, message: message.to_owned() });
    }
}
