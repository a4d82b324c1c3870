//! What happens in a run: the only thing that observers see.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    PlannedStage,
    runner_error::{FailureCause, chain},
};
pub use crate::cache::history::Outcome;
use crate::{config::ErrorRecord, digest::Digest, fs::LockHolder, sys::Timestamp};

/// Version of the events. Raised when a field changes its meaning or goes away; new fields and events may come
/// without it.
pub const EVENTS_VERSION: u32 = 1;

/// Headline figures by name.
pub type Metrics = BTreeMap<String, f64>;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// A run begins.
    RunStarted {
        /// Name of the pipeline.
        pipeline: String,
        /// Its file.
        path: String,
        /// The selected stages in execution order.
        stages: Vec<String>,
        /// Whether nothing will be executed.
        dry_run: bool,
    },
    /// What will become of a stage. Said for every stage at the start, and again when the stages before an
    /// undecided one are done.
    StagePlanned {
        /// The decision and its reason.
        plan: PlannedStage,
    },
    /// Another process is making the same artifact; this one waits.
    StageWaiting {
        /// Name of the stage.
        stage: String,
        /// Who makes it, if known.
        holder: Option<Holder>,
    },
    /// A stage begins to execute.
    StageStarted {
        /// Name of the stage.
        stage: String,
        /// Kind of the stage.
        uses: String,
        /// How long it took last time, in seconds.
        last_seconds: Option<f64>,
        /// Where its logs grow while it runs; gone when it ends.
        log_dir: String,
    },
    /// A stage has come further. Sent a few times a second at most.
    StageProgress {
        /// Name of the stage.
        stage: String,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is counted.
        unit: String,
        /// The last figures.
        message: String,
    },
    /// A figure at a step or epoch.
    StageMetric {
        /// Name of the stage.
        stage: String,
        /// Name of the figure.
        name: String,
        /// Step or epoch.
        step: u64,
        /// The figure; null if it is not finite.
        value: Option<f64>,
    },
    /// A stage says something.
    StageMessage {
        /// Name of the stage.
        stage: String,
        /// How much it matters.
        level: Level,
        /// What it says.
        message: String,
    },
    /// The cache had the artifact.
    StageRestored {
        /// Name of the stage.
        stage: String,
        /// Digest of the artifact.
        #[schemars(with = "String")]
        artifact: Digest,
        /// Headline figures.
        metrics: Metrics,
        /// How long it took when it was made, in seconds.
        saved_seconds: f64,
        /// Link to the artifact.
        path: String,
        /// Log files in it.
        logs: Vec<String>,
    },
    /// A stage was executed.
    StageFinished {
        /// Name of the stage.
        stage: String,
        /// Digest of the artifact.
        #[schemars(with = "String")]
        artifact: Digest,
        /// Headline figures.
        metrics: Metrics,
        /// How long it took.
        seconds: f64,
        /// Whether the content is the same as the last time, so that nothing after it need run for its sake.
        unchanged: bool,
        /// Link to the artifact.
        path: String,
        /// Log files in it.
        logs: Vec<String>,
    },
    /// A stage failed.
    StageFailed {
        /// Name of the stage.
        stage: String,
        /// Why.
        message: String,
        /// What to do.
        help: Option<String>,
        /// Where what it said is kept.
        log: Option<String>,
    },
    /// `audit` has run a stage again.
    StageAudited {
        /// Name of the stage.
        stage: String,
        /// Digest of the artifact in the cache.
        #[schemars(with = "String")]
        artifact: Digest,
        /// How long it took.
        seconds: f64,
        /// What came out otherwise, file by file; empty if every byte is the same.
        differences: Vec<String>,
    },
    /// A stage stopped because the user asked; checkpoints are kept.
    StageCancelled {
        /// Name of the stage.
        stage: String,
    },
    /// A stage cannot run because one that it needs failed.
    StageSkipped {
        /// Name of the stage.
        stage: String,
        /// The one that failed.
        because: String,
    },
    /// Something that the user should know.
    Warning {
        /// What.
        message: String,
    },
    /// A run is over.
    RunFinished {
        /// Name of the pipeline.
        pipeline: String,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        seconds: f64,
        /// Number of executed stages.
        executed: usize,
        /// Number of restored stages.
        restored: usize,
        /// Seconds that the restored stages took when they were made.
        saved_seconds: f64,
        /// The report page, if one was made or restored.
        report: Option<String>,
    },
    /// The command ends with an error.
    Error {
        /// What went wrong.
        message: String,
        /// What to do.
        help: Option<String>,
        /// Exit code of the process.
        exit_code: u8,
        /// What is wrong in the pipeline file, where that is the reason.
        mistakes: Vec<Mistake>,
    },
}

impl RunEvent {
    /// A stage failed with this error.
    pub(super) fn stage_failed(stage: &str, error: &FailureCause, log: Option<String>) -> Self {
        Self::StageFailed { stage: stage.to_owned(), message: chain(error), help: error.help(), log }
    }
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth a line.
    Info,
    /// The user may want to change something.
    Warning,
}

/// A mistake in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Mistake {
    /// Stable name, such as `config::unknown_key`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to change, if we know.
    pub help: Option<String>,
    /// The pipeline file, or `--set` and its key.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl From<ErrorRecord> for Mistake {
    fn from(record: ErrorRecord) -> Self {
        let ErrorRecord { code, message, help, file, line, column } = record;
        Self { code, message, help, file, line, column }
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// Since when, UTC.
    pub since: String,
}

impl From<&LockHolder> for Holder {
    fn from(holder: &LockHolder) -> Self {
        Self { pid: holder.pid, host: holder.host.clone(), since: holder.since.clone() }
    }
}

/// One line of `--json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventLine<'a> {
    /// Version of the events.
    pub version: u32,
    /// When, UTC.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: &'a RunEvent,
}

impl<'a> EventLine<'a> {
    /// The event as of now.
    pub fn now(event: &'a RunEvent) -> Self {
        Self { version: EVENTS_VERSION, time: Timestamp::now(), event }
    }
}

/// Somebody who watches a run.
pub trait RunObserver: Sync {
    /// Hears of everything, from several threads.
    fn on_event(&self, event: &RunEvent);
}

/// Hears nothing.
pub struct SilentObserver;

impl RunObserver for SilentObserver {
    fn on_event(&self, _event: &RunEvent) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        runner::{Basis, Estimate, Verdict},
        stage::StageKind,
    };

    /// One of each event with every optional part, and the next with none: a new event does not compile until it
    /// has its place here.
    fn one_of_each() -> Vec<RunEvent> {
        let stage = || "pretrain".to_owned();
        let metrics = || Metrics::from([("train/loss".to_owned(), -0.5)]);
        let plan = PlannedStage {
            stage: stage(),
            uses: StageKind::Pretrain,
            verdict: Verdict::Unknown { waits_for: vec!["train".into()], changes: vec![] },
            fingerprint: None,
            last_seconds: Some(1.0),
            estimate: Some(Estimate {
                basis: Basis::EarlierRun {
                    stage: stage(),
                    made: Timestamp::from_seconds(0),
                    device: "cpu".into(),
                    work: 1.0,
                },
                seconds: 1.0,
                peak_memory_bytes: Some(5),
                disk_bytes: 7,
            }),
        };
        let digest = Digest::of(b"x");
        let mut events = vec![RunEvent::RunStarted {
            pipeline: "p".into(),
            path: "p.yaml".into(),
            stages: vec![stage()],
            dry_run: false,
        }];
        while let Some(last) = events.last() {
            let next = match last {
                RunEvent::RunStarted { .. } => RunEvent::StagePlanned { plan: plan.clone() },
                RunEvent::StagePlanned { .. } => RunEvent::StageWaiting {
                    stage: stage(),
                    holder: Some(Holder { pid: 1, host: "h".into(), since: "now".into() }),
                },
                RunEvent::StageWaiting { .. } => RunEvent::StageStarted {
                    stage: stage(),
                    uses: "pretrain".into(),
                    last_seconds: None,
                    log_dir: "l".into(),
                },
                RunEvent::StageStarted { .. } => RunEvent::StageProgress {
                    stage: stage(),
                    done: 3,
                    total: 10,
                    unit: "steps".into(),
                    message: "loss -0.5".into(),
                },
                RunEvent::StageProgress { .. } => {
                    RunEvent::StageMetric { stage: stage(), name: "train/loss".into(), step: 1, value: None }
                }
                RunEvent::StageMetric { .. } => {
                    RunEvent::StageMessage { stage: stage(), level: Level::Warning, message: "m".into() }
                }
                RunEvent::StageMessage { .. } => RunEvent::StageRestored {
                    stage: stage(),
                    artifact: digest,
                    metrics: metrics(),
                    saved_seconds: 1.0,
                    path: "runs/p/pretrain".into(),
                    logs: vec![],
                },
                RunEvent::StageRestored { .. } => RunEvent::StageFinished {
                    stage: stage(),
                    artifact: digest,
                    metrics: metrics(),
                    seconds: 1.0,
                    unchanged: false,
                    path: "runs/p/pretrain".into(),
                    logs: vec!["runs/p/pretrain/logs/tensorboard".into()],
                },
                RunEvent::StageFinished { .. } => {
                    RunEvent::StageFailed { stage: stage(), message: "m".into(), help: Some("h".into()), log: None }
                }
                RunEvent::StageFailed { .. } => RunEvent::StageAudited {
                    stage: stage(),
                    artifact: digest,
                    seconds: 1.0,
                    differences: vec!["a".into()],
                },
                RunEvent::StageAudited { .. } => RunEvent::StageCancelled { stage: stage() },
                RunEvent::StageCancelled { .. } => RunEvent::StageSkipped { stage: stage(), because: "train".into() },
                RunEvent::StageSkipped { .. } => RunEvent::Warning { message: "m".into() },
                RunEvent::Warning { .. } => RunEvent::RunFinished {
                    pipeline: "p".into(),
                    outcome: Outcome::Done,
                    seconds: 1.0,
                    executed: 1,
                    restored: 0,
                    saved_seconds: 0.0,
                    report: None,
                },
                RunEvent::RunFinished { .. } => RunEvent::Error {
                    message: "m".into(),
                    help: None,
                    exit_code: 3,
                    mistakes: vec![Mistake {
                        code: "config::type".into(),
                        message: "m".into(),
                        help: None,
                        file: "p.yaml".into(),
                        line: 1,
                        column: 1,
                    }],
                },
                RunEvent::Error { .. } => break,
            };
            events.push(next);
        }
        events
    }

    #[test]
    fn the_schema_file_matches_the_types_and_every_event() {
        let schema = schemars::schema_for!(EventLine<'_>).to_value();
        let schema = crate::schema_files::check("events.schema.json", &schema);
        let events = one_of_each();
        assert_eq!(events.len(), 16);
        for event in &events {
            let line = serde_json::to_value(EventLine::now(event)).unwrap();
            assert!(jsonschema::is_valid(&schema, &line), "{line}");
            assert!(line["version"] == EVENTS_VERSION && line["time"].is_string());
            // Documented, too.
            let name = line["event"].as_str().unwrap();
            assert!(include_str!("../../docs/cli.md").contains(&format!("`{name}`")), "{name} is not in docs/cli.md");
        }
        assert!(!jsonschema::is_valid(&schema, &serde_json::json!({"event": "stage_progress"})));
    }
}
