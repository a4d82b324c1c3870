//! The state of a run while it goes on, as a file for whoever wants to watch.
//!
//! Each run has files of its own, `<pipeline>.<number>.json`, `.svg` and, while its process lives, `.lock`. What a run
//! that is over leaves stays until the next run of its pipeline begins, and what one leaves that was killed until any does.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    RunEvent, RunObserver, Verdict,
    event::{Level, Metrics, Outcome},
};
use crate::{
    fs::{LockFile, files, lock, sweep_temporaries},
    graph::{self, StageGraph},
    sys::Timestamp,
};

/// Version of the file.
pub const LIVE_FORMAT: u32 = 1;
/// The file is written this often at most.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// Points of a curve; where there are more, every second one goes.
const MAX_POINTS: usize = 400;
/// Warnings and messages that are kept.
const MAX_WARNINGS: usize = 50;
/// Throughput is measured over so much time at least.
const RATE_OVER: Duration = Duration::from_secs(1);

/// What `live/<pipeline>.<number>.json` in the cache holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveRun {
    /// Version of the file.
    pub format: u32,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Process that runs it.
    pub pid: u32,
    /// When it began.
    pub began: Timestamp,
    /// When this was written.
    pub updated: Timestamp,
    /// How it ended; absent while it goes on.
    pub outcome: Option<Outcome>,
    /// Seconds since it began.
    pub seconds: f64,
    /// Seconds that restored stages took when they were made.
    pub saved_seconds: f64,
    /// The selected stages in execution order.
    pub stages: Vec<LiveStage>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The report page, once it is there.
    pub report: Option<String>,
}

/// A stage of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStage {
    /// Its name.
    pub stage: String,
    /// Its kind; empty until it is planned.
    pub uses: String,
    /// `waiting`, `running`, `ran`, `restored`, `failed`, `stopped` or `skipped`.
    pub state: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What is counted.
    pub unit: String,
    /// The last figures in words, or why it failed.
    pub message: String,
    /// Units a second.
    pub rate: Option<f64>,
    /// How long it took; when it was made, for a stage that was restored.
    pub seconds: Option<f64>,
    /// Headline figures.
    pub metrics: Metrics,
    /// Figures by step: `train/loss`, `throughput` and the like.
    pub curves: BTreeMap<String, Curve>,
}

/// A figure by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// One in so many points is kept.
    pub every: u64,
    /// Points that came.
    pub seen: u64,
    /// Step and value.
    pub points: Vec<(u64, f64)>,
}

impl Curve {
    fn push(&mut self, step: u64, value: f64) {
        self.every = self.every.max(1);
        if self.seen.is_multiple_of(self.every) {
            self.points.push((step, value));
        }
        self.seen += 1;
        if self.points.len() > MAX_POINTS {
            let mut idx = 0;
            self.points.retain(|_| {
                idx += 1;
                idx % 2 == 1
            });
            self.every *= 2;
        }
    }
}

/// An observer that passes everything on and keeps the file. A cache that cannot be written has none.
pub struct Live<'a> {
    inner: &'a dyn RunObserver,
    graph: StageGraph,
    dir: PathBuf,
    state: Mutex<State>,
}

/// The files of one run.
struct RunFiles {
    json: PathBuf,
    svg: PathBuf,
    /// Held for as long as the run goes on.
    _lock: LockFile,
}

impl RunFiles {
    /// Takes a name that nobody has, and removes what runs that are over have left.
    fn take(dir: &Path, pipeline: &str) -> Option<Self> {
        files::create_dir_all(dir).ok()?;
        sweep(dir, pipeline);
        let name = files::unique_name(pipeline);
        let lock = LockFile::try_acquire(&lock_path(dir, &name)).ok()?.ok()?;
        Some(Self { json: dir.join(format!("{name}.json")), svg: dir.join(format!("{name}.svg")), _lock: lock })
    }
}

fn lock_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.lock"))
}

/// Whether the run of this name goes on: its process lives.
pub fn is_alive(dir: &Path, name: &str) -> bool {
    lock::is_held(&lock_path(dir, name))
}

/// Removes what runs of this pipeline left, and what those left that were killed.
fn sweep(dir: &Path, pipeline: &str) {
    sweep_temporaries(dir);
    let files = files::list(dir).unwrap_or_default();
    let visible = files.iter().filter(|file| !file.starts_with('.'));
    let names: BTreeSet<&str> = visible.filter_map(|file| Some(file.rsplit_once('.')?.0)).collect();
    for name in names {
        // Who has the lock may remove: nobody writes there any more.
        let Ok(Ok(_lock)) = LockFile::try_acquire(&lock_path(dir, name)) else { continue };
        let json = dir.join(format!("{name}.json"));
        let run = files::read(&json).ok().and_then(|text| serde_json::from_slice::<LiveRun>(&text).ok());
        if !run.is_some_and(|run| run.outcome.is_some() && run.pipeline != pipeline) {
            let _ = files::remove_file(&json);
            let _ = files::remove_file(&dir.join(format!("{name}.svg")));
        }
    }
}

struct State {
    run: LiveRun,
    files: Option<RunFiles>,
    started: Instant,
    written: Option<Instant>,
    /// Where and when throughput was measured last, by stage.
    marks: BTreeMap<String, (u64, Instant)>,
    given_up: bool,
}

impl<'a> Live<'a> {
    /// Passes events on to `inner` and keeps the state in `dir`.
    pub fn new(inner: &'a dyn RunObserver, graph: StageGraph, dir: &Path, pipeline: &str) -> Self {
        Self { inner, graph, dir: dir.to_owned(), state: Mutex::new(State::new(pipeline)) }
    }

    fn write(&self, state: &mut State) {
        let now = Instant::now();
        state.written = Some(now);
        state.run.updated = Timestamp::now();
        state.run.seconds = state.started.elapsed().as_secs_f64();
        let words = state.run.stages.iter().map(|stage| {
            let time = stage.seconds.map(|seconds| format!(" in {}", super::text::duration(seconds)));
            let word = if stage.state == "restored" { "hit" } else { stage.state.as_str() };
            (stage.stage.clone(), format!("{word}{}", time.unwrap_or_default()))
        });
        let picture = graph::svg(&self.graph, &words.collect());
        if state.files.is_none() {
            state.files = RunFiles::take(&self.dir, &state.run.pipeline);
        }
        let written = state.files.as_ref().is_some_and(|run| {
            serde_json::to_vec(&state.run).is_ok_and(|json| {
                // The picture first: who finds the state finds its picture, too.
                files::write_atomic_unsynced(&run.svg, picture.as_bytes()).is_ok()
                    && files::write_atomic_unsynced(&run.json, &json).is_ok()
            })
        });
        state.given_up = !written;
        if state.run.outcome.is_some() || state.given_up {
            state.files = None;
        }
    }
}

impl RunObserver for Live<'_> {
    fn on_event(&self, event: &RunEvent) {
        self.inner.on_event(event);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What comes after the end, such as the error, is of no run any more.
        if state.given_up || state.run.outcome.is_some() {
            return;
        }
        state.apply(event);
        let whole = matches!(event, RunEvent::RunStarted { .. } | RunEvent::RunFinished { .. });
        if whole || state.written.is_none_or(|written| written.elapsed() >= WRITE_EVERY) {
            self.write(&mut state);
        }
    }
}

impl State {
    fn new(pipeline: &str) -> Self {
        let now = Timestamp::now();
        let run = LiveRun {
            format: LIVE_FORMAT,
            pipeline: pipeline.to_owned(),
            pid: std::process::id(),
            began: now,
            updated: now,
            outcome: None,
            seconds: 0.0,
            saved_seconds: 0.0,
            stages: vec![],
            warnings: vec![],
            report: None,
        };
        Self { run, files: None, started: Instant::now(), written: None, marks: BTreeMap::new(), given_up: false }
    }

    fn stage(&mut self, name: &str) -> Option<&mut LiveStage> {
        self.run.stages.iter_mut().find(|stage| stage.stage == name)
    }

    fn set(&mut self, name: &str, word: &str, seconds: Option<f64>) {
        if let Some(stage) = self.stage(name) {
            word.clone_into(&mut stage.state);
            stage.seconds = seconds.or(stage.seconds);
            stage.rate = None;
        }
    }

    fn warn(&mut self, message: String) {
        if self.run.warnings.len() < MAX_WARNINGS {
            self.run.warnings.push(message);
        }
    }

    fn apply(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunStarted { stages, .. } => {
                let waiting = |stage: &String| LiveStage {
                    stage: stage.clone(),
                    state: "waiting".into(),
                    ..LiveStage::default()
                };
                self.run.stages = stages.iter().map(waiting).collect();
            }
            RunEvent::StagePlanned { plan } => {
                if let Some(stage) = self.stage(&plan.stage) {
                    plan.uses.name().clone_into(&mut stage.uses);
                    if let Verdict::Hit { metrics, .. } = &plan.verdict {
                        stage.metrics.clone_from(metrics);
                    }
                }
            }
            RunEvent::StageStarted { stage, .. } => self.set(stage, "running", None),
            RunEvent::StageProgress { stage, done, total, unit, message } => {
                self.progress(stage, *done, *total, unit, message);
            }
            RunEvent::StageMetric { stage, name, step, value: Some(value) } => {
                if let Some(stage) = self.stage(stage) {
                    stage.curves.entry(name.clone()).or_default().push(*step, *value);
                }
            }
            RunEvent::StageMessage { stage, level: Level::Warning, message } => {
                self.warn(format!("`{stage}`: {message}"));
            }
            RunEvent::StageRestored { stage, metrics, saved_seconds, .. } => {
                self.set(stage, "restored", Some(*saved_seconds));
                self.run.saved_seconds += saved_seconds;
                self.figures(stage, metrics);
            }
            RunEvent::StageFinished { stage, metrics, seconds, .. } => {
                self.set(stage, "ran", Some(*seconds));
                self.figures(stage, metrics);
            }
            RunEvent::StageFailed { stage, message, .. } => {
                self.set(stage, "failed", None);
                if let Some(stage) = self.stage(stage) {
                    stage.message.clone_from(message);
                }
            }
            RunEvent::StageCancelled { stage } => self.set(stage, "stopped", None),
            RunEvent::StageSkipped { stage, .. } => self.set(stage, "skipped", None),
            RunEvent::Warning { message } => self.warn(message.clone()),
            RunEvent::RunFinished { outcome, report, .. } => {
                self.run.outcome = Some(*outcome);
                self.run.report.clone_from(report);
            }
            RunEvent::StageMetric { .. }
            | RunEvent::StageMessage { .. }
            | RunEvent::StageWaiting { .. }
            | RunEvent::StageAudited { .. }
            | RunEvent::Error { .. } => {}
        }
    }

    fn figures(&mut self, name: &str, metrics: &Metrics) {
        if let Some(stage) = self.stage(name) {
            stage.metrics.clone_from(metrics);
        }
    }

    fn progress(&mut self, name: &str, done: u64, total: u64, unit: &str, message: &str) {
        let now = Instant::now();
        // Another unit, or a count that begins again, is another measurement.
        let same = self.stage(name).is_some_and(|stage| stage.unit == unit && stage.done <= done);
        let mark = self.marks.get(name).copied().filter(|_| same);
        let measured = mark.filter(|(from, since)| done > *from && now.duration_since(*since) >= RATE_OVER);
        let rate = measured.map(|(from, since)| (done - from) as f64 / now.duration_since(since).as_secs_f64());
        if rate.is_some() || mark.is_none() {
            self.marks.insert(name.to_owned(), (done, now));
        }
        let Some(stage) = self.stage(name) else { return };
        (stage.done, stage.total) = (done, total);
        unit.clone_into(&mut stage.unit);
        message.clone_into(&mut stage.message);
        if !same {
            stage.rate = None;
        }
        if let Some(rate) = rate {
            stage.rate = Some(rate);
            stage.curves.entry("throughput".into()).or_default().push(done, rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new("p");
        state.apply(&RunEvent::RunStarted {
            pipeline: "p".into(),
            path: "p.yaml".into(),
            stages: vec!["train".into(), "pretrain".into()],
            dry_run: false,
        });
        state
    }

    #[test]
    fn long_curves_are_thinned_evenly() {
        let mut curve = Curve::default();
        (0..10_000).for_each(|step| curve.push(step, step as f64));
        assert!((MAX_POINTS / 2..=MAX_POINTS).contains(&curve.points.len()), "{}", curve.points.len());
        let steps: Vec<u64> = curve.points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(steps.iter().all(|step| *step == curve.every), "{steps:?}");
        assert_eq!(curve.points[0].0, 0);
    }

    #[test]
    fn events_become_states() {
        let mut state = state();
        assert!(state.run.stages.iter().all(|stage| stage.state == "waiting"));
        state.apply(&RunEvent::StageProgress {
            stage: "pretrain".into(),
            done: 3,
            total: 9,
            unit: "steps".into(),
            message: "loss -0.5".into(),
        });
        for (step, value) in [(1, Some(-0.5)), (2, None)] {
            let (stage, name) = ("pretrain".to_owned(), "train/loss".to_owned());
            state.apply(&RunEvent::StageMetric { stage, name, step, value });
        }
        state.apply(&RunEvent::StageFailed { stage: "train".into(), message: "no".into(), help: None, log: None });
        state.apply(&RunEvent::StageSkipped { stage: "unknown".into(), because: "train".into() });
        let [train, pretrain] = &state.run.stages[..] else { panic!() };
        assert_eq!((train.state.as_str(), train.message.as_str()), ("failed", "no"));
        assert_eq!((pretrain.done, pretrain.total, pretrain.curves["train/loss"].points.len()), (3, 9, 1));
        let text = serde_json::to_string(&state.run).unwrap();
        assert_eq!(serde_json::from_str::<LiveRun>(&text).unwrap(), state.run);
    }

    #[test]
    fn throughput_is_measured_over_some_time() {
        let mut state = state();
        state.progress("pretrain", 10, 100, "steps", "");
        let past = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        state.marks.insert("pretrain".into(), (10, past));
        state.progress("pretrain", 50, 100, "steps", "");
        let rate = state.run.stages[1].rate.unwrap();
        assert!((15.0..=20.1).contains(&rate), "{rate}");
        state.progress("pretrain", 5, 60, "images", "");
        assert_eq!(state.run.stages[1].rate, None);
    }

    #[test]
    fn two_runs_have_two_files_and_the_next_sweeps_what_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("live");
        let graph = || StageGraph::build(&crate::graph::stage_graph::tests::pipeline(&[("train", &[])])).unwrap();
        let start = |pipeline: &str| RunEvent::RunStarted {
            pipeline: pipeline.into(),
            path: "p.yaml".into(),
            stages: vec!["train".into()],
            dry_run: false,
        };
        let end = |pipeline: &str| RunEvent::RunFinished {
            pipeline: pipeline.into(),
            outcome: Outcome::Done,
            seconds: 1.0,
            executed: 1,
            restored: 0,
            saved_seconds: 0.0,
            report: None,
        };
        let silent = super::super::event::SilentObserver;
        let begin = |pipeline: &str| {
            let run = Live::new(&silent, graph(), &live, pipeline);
            run.on_event(&start(pipeline));
            run
        };
        let names = |ending: &str| {
            let mut names = files::list(&live).unwrap_or_default();
            names.retain(|name| name.ends_with(ending));
            names
        };
        let (one, two) = (begin("p"), begin("p"));
        assert_eq!((names(".json").len(), names(".svg").len(), names(".lock").len()), (2, 2, 2));
        let alive = || names(".json").iter().filter(|name| is_alive(&live, name.trim_end_matches(".json"))).count();
        assert_eq!(alive(), 2);
        one.on_event(&end("p"));
        assert_eq!((alive(), names(".json").len()), (1, 2), "what is over can still be seen");
        drop(two);
        assert_eq!((alive(), names(".json").len()), (0, 2), "one was killed");
        let other = begin("q");
        assert_eq!((alive(), names(".json").len()), (1, 2), "of another pipeline the finished run stays");
        let again = begin("p");
        assert_eq!((alive(), names(".json").len(), names(".svg").len()), (2, 2, 2));
        drop((again, other));
        assert_eq!(names(".lock").len(), 0);
    }
}
