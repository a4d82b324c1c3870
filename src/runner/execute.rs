//! Executes a plan: restores what the cache has, runs the rest, independent stages side by side.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    Cancel, Plan, RunEvent, RunObserver, RunnerError, Selection, StageExecutor, Verdict,
    event::{Holder, Level, Metrics, Outcome},
    links, order,
    planner::{Decision, Known, Planner},
    runner_error::{FailureCause, StageFailure, chain},
};
use crate::{
    cache::{
        CacheEntry, CacheError, CacheStatus, Project, Provenance, Sources, Store,
        history::{Action, RunRecord, StageRecord},
        workspace::Claim,
    },
    config::{Pipeline, Stage},
    digest::Digest,
    lockfile::Lockfile,
    stage::{ArtifactKind, InputArtifact, StageContext, StageError, StageReporter},
    sys::{self, Timestamp},
};

/// Progress of a stage is passed on this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

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
        Ok(Plan {
            pipeline: pipeline.name.clone(),
            stages: decisions.into_iter().map(|decision| decision.planned).collect(),
        })
    }

    fn planner<'b>(
        &'b self,
        pipeline: &'b Pipeline,
        lockfile: &'b Lockfile,
        sources: &'b Sources,
        options: &RunOptions,
    ) -> Planner<'b> {
        Planner { project: self.project, store: self.store, sources, pipeline, lockfile, no_cache: options.no_cache }
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

        let walk = Walk { runner: self, planner: &planner, pipeline, options, forced: &selected.forced };
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
        lockfile.stages.retain(|name, _| pipeline.stage(name).is_some());
        self.warn_if(lockfile.save(&lockfile_path).map(drop), "the lockfile was not updated");
        let seconds = started.elapsed().as_secs_f64();
        let record = self.record(pipeline, began, seconds, outcome, &stages, &failures);
        self.warn_if(record.append(self.store.layout()), "the run is missing in the history");

        self.finish(pipeline, &stages, seconds, outcome);
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
            format: 1,
            began,
            seconds,
            pipeline: pipeline.name.clone(),
            path: std::path::absolute(&pipeline.path).unwrap_or_else(|_| pipeline.path.clone()),
            project_root: self.project.root.clone(),
            outcome,
            stages: done.chain(failed).collect(),
        }
    }

    fn finish(&self, pipeline: &Pipeline, stages: &[StageSummary], seconds: f64, outcome: Outcome) {
        let restored: Vec<_> = stages.iter().filter(|stage| stage.action == Action::Restored).collect();
        let report = pipeline
            .stages
            .iter()
            .rfind(|stage| stage.kind().output() == ArtifactKind::Report)
            .map(|stage| self.project.run_link(&pipeline.name, &stage.name).join("report.html"))
            .filter(|path| path.exists());
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

/// One walk through the selected stages.
struct Walk<'a> {
    runner: &'a Runner<'a>,
    planner: &'a Planner<'a>,
    pipeline: &'a Pipeline,
    options: &'a RunOptions,
    forced: &'a BTreeSet<&'a str>,
}

type Done = BTreeMap<String, (StageSummary, CacheEntry)>;

impl Walk<'_> {
    fn run(&self, stages: &[&Stage]) -> (Done, Vec<StageFailure>) {
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
                        order::parents(stage).iter().all(|name| done.contains_key(*name) || lost.contains(name))
                    }) else {
                        break;
                    };
                    let stage = pending.remove(idx);
                    if let Some(because) = order::parents(stage).into_iter().find(|name| lost.contains(name)) {
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
        if !order::parents(stage).is_empty() {
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
        let config_yaml = render_config(stage)?;
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
        let aside: PathBuf = self.runner.project.display(aside).to_string().into();
        self.tell(&RunEvent::Warning {
            message: format!(
                "the output of `{}` was changed by somebody; that copy is now at `{}`",
                stage.name,
                aside.display()
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

/// The resolved stage as it is kept beside its artifact: no paths of inputs, which are in the manifest.
fn render_config(stage: &Stage) -> Result<String, FailureCause> {
    let parameters = |source| Box::new(RunnerError::Parameters { stage: stage.name.clone(), source });
    let with = stage.config.to_json().map_err(parameters)?;
    let value = serde_json::json!({
        "uses": stage.kind().name(),
        "inputs": stage.inputs,
        "seed": stage.seed,
        "with": with,
    });
    serde_yaml::to_string(&value).map_err(|error| {
        let source = serde::ser::Error::custom(error);
        FailureCause::from(Box::new(RunnerError::Parameters { stage: stage.name.clone(), source }))
    })
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

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{
        cache::Layout,
        runner::{Reason, event::SilentObserver},
        stage::{CommandConfig, StageConfig, StageOutcome},
    };

    /// A pipeline of `command` stages for the quick executor: `run` holds what the stage writes.
    pub(crate) fn pipeline(stages: &[(&str, &[&str])]) -> Pipeline {
        let stages = stages.iter().map(|(name, parents)| {
            let config = CommandConfig {
                run: vec![(*name).to_owned()],
                outputs: vec!["out".into()],
                sources: vec![],
                env: BTreeMap::new(),
            };
            Stage {
                name: (*name).to_owned(),
                config: StageConfig::Command(config),
                inputs: parents.iter().map(|parent| ((*parent).to_owned(), vec![(*parent).to_owned()])).collect(),
                seed: 0,
                places: BTreeMap::new(),
            }
        });
        Pipeline { name: "p".into(), seed: 0, path: "p.yaml".into(), stages: stages.collect() }
    }

    fn command<'a>(pipeline: &'a mut Pipeline, name: &str) -> &'a mut CommandConfig {
        match pipeline.stages.iter_mut().find(|stage| stage.name == name).map(|stage| &mut stage.config) {
            Some(StageConfig::Command(config)) => config,
            _ => panic!("no command `{name}`"),
        }
    }

    type Hook<'a> = &'a (dyn Fn(&StageContext<'_>) -> Result<(), StageError> + Sync);

    /// Writes `run[0]` and counts. A hook can fail or meddle.
    struct Quick<'a> {
        count: AtomicUsize,
        hook: Hook<'a>,
    }

    impl<'a> Quick<'a> {
        fn new(hook: Hook<'a>) -> Self {
            Self { count: AtomicUsize::new(0), hook }
        }

        fn taken(&self) -> usize {
            self.count.swap(0, Ordering::SeqCst)
        }
    }

    impl StageExecutor for Quick<'_> {
        fn execute(&self, config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
            self.count.fetch_add(1, Ordering::SeqCst);
            (self.hook)(ctx)?;
            let StageConfig::Command(config) = config else { panic!("only commands here") };
            fs::write(ctx.out_dir.join("out"), &config.run[0]).unwrap();
            Ok(StageOutcome { metrics: [("x/y".to_owned(), 0.5)].into() })
        }
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        project: Project,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let project = Project::find(dir.path(), None, None).unwrap();
            Self { _dir: dir, project }
        }

        fn pipeline(&self, stages: &[(&str, &[&str])]) -> Pipeline {
            Pipeline { path: self.project.root.join("p.yaml"), ..pipeline(stages) }
        }

        fn run(
            &self,
            pipeline: &Pipeline,
            executor: &Quick<'_>,
            options: &RunOptions,
        ) -> Result<RunSummary, RunnerError> {
            let store = Store::open(Layout::new(&self.project.cache_dir)).unwrap();
            let runner = Runner {
                project: &self.project,
                store: &store,
                executor,
                observer: &SilentObserver,
                cancel: &Cancel::default(),
            };
            runner.run(pipeline, options)
        }

        fn plan(&self, pipeline: &Pipeline) -> Vec<Verdict> {
            let store = Store::open(Layout::new(&self.project.cache_dir)).unwrap();
            let runner = Runner {
                project: &self.project,
                store: &store,
                executor: &Quick::new(&|_| Ok(())),
                observer: &SilentObserver,
                cancel: &Cancel::default(),
            };
            let plan = runner.plan(pipeline, &RunOptions::default()).unwrap();
            plan.stages.into_iter().map(|stage| stage.verdict).collect()
        }

        fn count(&self, folder: &str) -> usize {
            files::list(&self.project.cache_dir.join(folder)).unwrap().len()
        }
    }

    use crate::fs::files;

    const CHAIN: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"])];

    #[test]
    fn a_second_run_executes_nothing() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(CHAIN);
        let quick = Quick::new(&|_| Ok(()));
        assert!(matches!(
            fixture.plan(&pipeline)[..],
            [Verdict::Run { reason: Reason::NeverRan }, Verdict::Unknown { .. }, Verdict::Unknown { .. }]
        ));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 3);
        assert!(fixture.plan(&pipeline).iter().all(|verdict| matches!(verdict, Verdict::Hit { .. })));
        let summary = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 0);
        assert!(summary.stages.iter().all(|stage| stage.action == Action::Restored && stage.metrics["x/y"] == 0.5));
        let link = fixture.project.run_link("p", "c");
        assert_eq!(fs::read_to_string(link.join("out")).unwrap(), "c");
        assert!(fs::read_link(link).unwrap().is_relative());
        assert_eq!((fixture.count("tmp"), fixture.count("work"), fixture.count("pins")), (0, 0, 0));
    }

    #[test]
    fn a_change_runs_what_depends_on_its_result_and_names_the_field() {
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(CHAIN);
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        command(&mut pipeline, "b").run[0] = "changed".into();
        let plan = fixture.plan(&pipeline);
        let Verdict::Run { reason: Reason::Changed { changes } } = &plan[1] else { panic!("{plan:?}") };
        assert_eq!(changes[0].key, "with.run[0]");
        assert_eq!((changes[0].old.as_deref(), changes[0].new.as_deref()), (Some("\"b\""), Some("\"changed\"")));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 2);
    }

    #[test]
    fn an_unchanged_result_ends_the_wave() {
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(CHAIN);
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        command(&mut pipeline, "a").env.insert("NO_EFFECT".into(), "1".into());
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 1);
    }

    #[test]
    fn going_back_to_an_older_pipeline_is_a_hit() {
        let fixture = Fixture::new();
        let old = fixture.pipeline(CHAIN);
        let mut new = old.clone();
        command(&mut new, "a").run[0] = "changed".into();
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&old, &quick, &RunOptions::default()).unwrap();
        fixture.run(&new, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        fixture.run(&old, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 0);
    }

    #[test]
    fn a_renamed_stage_is_a_hit() {
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(&[("a", &[])]);
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        pipeline.stages[0].name = "other".into();
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 0);
        let lockfile = Lockfile::load(&fixture.project.root.join("p.lock")).unwrap();
        assert_eq!(lockfile.stages.keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn force_and_no_cache_execute_again() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(CHAIN);
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        let selection = Selection { force: vec!["b".into()], ..Selection::default() };
        fixture.run(&pipeline, &quick, &RunOptions { selection, ..RunOptions::default() }).unwrap();
        assert_eq!(quick.taken(), 1);
        fixture.run(&pipeline, &quick, &RunOptions { no_cache: true, ..RunOptions::default() }).unwrap();
        assert_eq!(quick.taken(), 3);
    }

    #[test]
    fn a_failure_keeps_what_is_done_and_shows_nothing_half() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"])]);
        let fails = |ctx: &StageContext<'_>| {
            fs::write(ctx.out_dir.join("half"), "x").unwrap();
            let message = "no luck".to_owned();
            if ctx.stage == "b" { Err(StageError::Data { message, help: None }) } else { Ok(()) }
        };
        let quick = Quick::new(&fails);
        let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "stage `b` failed: no luck");
        assert_eq!((quick.taken(), fixture.count("entries"), fixture.count("tmp")), (2, 1, 0));
        let options = RunOptions { keep_going: true, ..RunOptions::default() };
        fixture.run(&pipeline, &quick, &options).unwrap_err();
        assert_eq!((quick.taken(), fixture.count("entries")), (2, 2));
    }

    #[test]
    fn a_panic_is_a_failure_of_its_stage() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(&[("a", &[])]);
        let quick = Quick::new(&|_| panic!("index out of bounds"));
        let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "stage `a` failed: the stage panicked: index out of bounds");
    }

    #[test]
    fn two_runs_at_once_execute_each_fingerprint_once() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(CHAIN);
        let slow = |_: &StageContext<'_>| {
            thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        let quick = Quick::new(&slow);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap());
            }
        });
        assert_eq!(quick.taken(), 3);
    }

    #[test]
    fn equal_stages_side_by_side_execute_once() {
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(&[("a", &[]), ("b", &[])]);
        command(&mut pipeline, "b").run[0] = "a".into();
        let slow = |_: &StageContext<'_>| {
            thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        let quick = Quick::new(&slow);
        fixture.run(&pipeline, &quick, &RunOptions { jobs: 2, ..RunOptions::default() }).unwrap();
        assert_eq!(quick.taken(), 1);
    }

    #[test]
    fn independent_stages_run_side_by_side() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(&[("a", &[]), ("b", &[])]);
        // Each waits for the other: one after the other they would wait for ever.
        let barrier = std::sync::Barrier::new(2);
        let meet = |_: &StageContext<'_>| {
            barrier.wait();
            Ok(())
        };
        fixture.run(&pipeline, &Quick::new(&meet), &RunOptions { jobs: 2, ..RunOptions::default() }).unwrap();
    }

    #[test]
    fn a_missing_source_stops_before_anything_runs() {
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(CHAIN);
        command(&mut pipeline, "c").sources = vec!["nowhere".into()];
        let quick = Quick::new(&|_| Ok(()));
        let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "`stages.c.with.sources[0]`: `nowhere` does not exist");
        assert_eq!(quick.taken(), 0);
    }

    #[test]
    fn a_source_edited_during_the_run_fails_the_stage() {
        let fixture = Fixture::new();
        let source = fixture.project.root.join("source");
        fs::write(&source, "before").unwrap();
        let mut pipeline = fixture.pipeline(&[("a", &[])]);
        command(&mut pipeline, "a").sources = vec!["source".into()];
        let meddle = |_: &StageContext<'_>| {
            fs::write(&source, "after!").unwrap();
            Ok(())
        };
        let error = fixture.run(&pipeline, &Quick::new(&meddle), &RunOptions::default()).unwrap_err();
        assert!(error.to_string().contains("`source` (`with.sources[0]`) was changed while the stage ran"), "{error}");
        assert_eq!(fixture.count("entries"), 0);
        fixture.run(&pipeline, &Quick::new(&|_| Ok(())), &RunOptions::default()).unwrap();
    }

    #[test]
    fn an_edited_output_is_kept_and_the_stage_runs_again() {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(&[("a", &[])]);
        let quick = Quick::new(&|_| Ok(()));
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        quick.taken();
        thread::sleep(Duration::from_millis(20));
        let out = fixture.project.run_link("p", "a").join("out");
        files::set_writable(&out, true).unwrap();
        fs::write(&out, "A").unwrap();
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        assert_eq!(quick.taken(), 1);
        assert_eq!(fs::read_to_string(&out).unwrap(), "a");
        let names = files::list(&fixture.project.root.join("runs/p")).unwrap();
        let aside = names.iter().find(|name| name.starts_with("a.edited-")).unwrap();
        assert_eq!(fs::read_to_string(fixture.project.root.join("runs/p").join(aside).join("out")).unwrap(), "A");
    }

    #[test]
    fn a_moved_project_is_a_hit() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.project.root.join("old")).unwrap();
        let at = |name: &str| {
            let root = fixture.project.root.join(name);
            Project { cache_dir: root.join(".simsiam-pipe"), root }
        };
        let quick = Quick::new(&|_| Ok(()));
        let run = |project: Project| {
            let fixture = Fixture { _dir: tempfile::tempdir().unwrap(), project };
            let pipeline = fixture.pipeline(CHAIN);
            fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
            fs::read_to_string(fixture.project.run_link("p", "c").join("out")).unwrap()
        };
        run(at("old"));
        quick.taken();
        fs::rename(at("old").root, at("new").root).unwrap();
        assert_eq!(run(at("new")), "c");
        assert_eq!(quick.taken(), 0);
    }
}
