//! `explain`: why a stage would run, field by field, what that costs, and who made what the cache has.

use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;

use super::{PipelineArgs, Session, load, run::RealExecutor};
use crate::{
    cache::{
        CacheEntry, Store,
        history::{Action, RunRecord},
    },
    config::{Pipeline, cell::selects},
    digest::Digest,
    error::Error,
    graph::StageGraph,
    lockfile::Lockfile,
    runner::{
        Basis, Cancel, Estimate, PlannedStage, RunOptions, Runner, Selection, Verdict,
        console::headline_figures,
        event::{Metrics, SilentObserver},
        text,
    },
    sys::Timestamp,
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[command(after_help = "Examples:\n  simsiam-pipe explain pretrain\n  \
                        simsiam-pipe explain pipelines/intel.yaml pretrain\n  \
                        simsiam-pipe explain 'pretrain@seed=0'")]
pub struct ExplainArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The stage; a pattern explains every stage that it matches.
    #[arg(value_name = "STAGE", required = true)]
    pub stage: String,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A stage explained.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    planned: PlannedStage,
    /// The stages that depend on it, in execution order.
    follows: Vec<String>,
    /// Who made the artifact: the one that the cache has for a hit, else the last one.
    made: Option<Made>,
    #[serde(skip)]
    entry: Option<CacheEntry>,
}

/// Who made an artifact.
#[derive(Serialize)]
struct Made {
    /// The pipeline at that time.
    pipeline: String,
    /// The stage at that time.
    stage: String,
    /// When the run began, where the history says so.
    run_began: Option<Timestamp>,
    /// When the stage was done.
    created: Timestamp,
    host: String,
    device: String,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
    disk_bytes: u64,
    artifact: Digest,
    metrics: Metrics,
}

/// Prints why.
///
/// # Errors
/// When the pipeline is wrong, there is no such stage or the cache cannot be read.
pub fn run(args: &ExplainArgs, session: &Session) -> Result<(), Error> {
    let pipeline_args = PipelineArgs { pipeline: args.pipeline.clone(), set: args.set.clone() };
    let pipeline = load::load(&pipeline_args, session)?;
    let explained = explain(&pipeline, &args.stage, session)?;
    if session.json() {
        // One stage is one object; a pattern leads to a list, however many it matches.
        return match explained.as_slice() {
            [one] if one.planned.stage == args.stage => session.print_json(one),
            list => session.print_json(&list),
        };
    }
    let texts: Vec<String> = explained.iter().map(|explained| render(explained, session)).collect();
    session.print(&texts.join("\n"))
}

fn explain(pipeline: &Pipeline, pattern: &str, session: &Session) -> Result<Vec<Explained>, Error> {
    let (project, store) = session.open()?;
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor::default(),
        observer: &SilentObserver,
        cancel: &Cancel::default(),
    };
    let selection = Selection { stages: vec![pattern.to_owned()], ..Selection::default() };
    let plan = runner.plan(pipeline, &RunOptions { selection, ..RunOptions::default() })?;
    let lockfile = Lockfile::load(&Lockfile::path_for(&pipeline.path))?;
    let graph = StageGraph::build(pipeline)?;
    let history = RunRecord::load_all(store.layout())?;
    let explained = plan.stages.into_iter().filter(|planned| selects(pattern, &planned.stage)).map(|planned| {
        let locked = lockfile.stages.get(&planned.stage).map(|stage| stage.fingerprint);
        let fingerprint = if planned.verdict.is_hit() { planned.fingerprint } else { locked };
        let entry = fingerprint.and_then(|fingerprint| entry(&store, &fingerprint));
        let made = fingerprint.zip(entry.as_ref()).map(|(fingerprint, entry)| Made::of(fingerprint, entry, &history));
        let follows = graph.descendants(&planned.stage).into_iter().map(str::to_owned).collect();
        Explained { planned, follows, made, entry }
    });
    Ok(explained.collect())
}

/// What the cache knows about a fingerprint; what it cannot read explains nothing.
fn entry(store: &Store, fingerprint: &Digest) -> Option<CacheEntry> {
    store.entry(fingerprint).ok().flatten()
}

impl Made {
    fn of(fingerprint: Digest, entry: &CacheEntry, history: &[RunRecord]) -> Self {
        let made = &entry.provenance;
        let is_maker = |run: &&RunRecord| {
            run.stages.iter().any(|stage| stage.action == Action::Executed && stage.fingerprint == Some(fingerprint))
        };
        Self {
            pipeline: made.pipeline.clone(),
            stage: made.stage.clone(),
            run_began: history.iter().rev().find(is_maker).map(|run| run.began),
            created: made.created,
            host: made.host.clone(),
            device: made.device.clone(),
            seconds: made.wall_seconds,
            peak_memory_bytes: (made.peak_rss_bytes > 0).then_some(made.peak_rss_bytes),
            disk_bytes: entry.size,
            artifact: entry.artifact,
            metrics: entry.metrics.clone(),
        }
    }
}

fn render(explained: &Explained, session: &Session) -> String {
    let Explained { planned, follows, made, entry } = explained;
    let paint = session.paint();
    let mut out = String::new();
    let (headline, lines) = match &planned.verdict {
        Verdict::Hit { .. } => (paint.green("is up to date"), vec![]),
        Verdict::Run { reason } => {
            let (headline, lines) = text::reason(reason);
            (format!("{}: {headline}", paint.yellow("must run")), lines)
        }
        Verdict::Unknown { waits_for, changes } => {
            let names = text::names(waits_for);
            let headline = if planned.last_seconds.is_none() {
                format!("{} after {names}: it has never run", paint.yellow("must run"))
            } else if changes.is_empty() {
                format!("{}: not if {names} leads to the same content as before", paint.yellow("may run"))
            } else {
                format!("{}: {}, after {names}", paint.yellow("must run"), text::num_changes(changes))
            };
            (headline, changes.iter().map(text::change).collect())
        }
    };
    let _ = writeln!(out, "{} ({}) {headline}", paint.bold(&planned.stage), planned.uses.name());
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
    let is_hit = planned.verdict.is_hit();
    if !is_hit {
        if !follows.is_empty() {
            let _ = writeln!(out, "\nafter it     {}", text::names(follows));
        }
        let estimate = match &planned.estimate {
            None => "no earlier run to go by".to_owned(),
            Some(estimate) => format!("{}{}", text::cost(estimate), basis(estimate, planned.last_seconds.is_some())),
        };
        let gap = if follows.is_empty() { "\n" } else { "" };
        let _ = writeln!(out, "{gap}estimate     {estimate}");
    }
    if let Some(fingerprint) = planned.fingerprint {
        let _ = writeln!(out, "\nfingerprint  {fingerprint}");
    }
    if let Some(made) = made {
        let run = made.run_began.map(|began| format!(", in the run of {began}")).unwrap_or_default();
        let word = if is_hit { "made by    " } else { "last made  " };
        let _ = writeln!(out, "{word}  `{}` of pipeline `{}`{run}", made.stage, made.pipeline);
        let memory = made.peak_memory_bytes.map(|peak| format!(", {} of memory", text::bytes(peak)));
        let _ = writeln!(
            out,
            "             done {} on {} ({}), took {}{}, {} of disk",
            made.created,
            made.host,
            made.device,
            text::duration(made.seconds),
            memory.unwrap_or_default(),
            text::bytes(made.disk_bytes)
        );
        let _ = writeln!(out, "artifact     {}", made.artifact);
        if !made.metrics.is_empty() {
            let _ = writeln!(out, "figures      {}", headline_figures(&made.metrics));
        }
    }
    if let Some(entry) = entry.as_ref().filter(|_| session.verbosity() > 0) {
        let record = serde_json::to_string_pretty(&entry.fingerprint).unwrap_or_default();
        let _ = writeln!(out, "\nwhat decided it:\n{record}");
    }
    if made.is_some() && matches!(planned.verdict, Verdict::Run { .. }) {
        let _ = writeln!(out, "\nSet the old values again and the old artifact is restored: it stays in the cache.");
    }
    out
}

/// What an estimate goes by, where that is not the last run of the stage itself with as much to do.
fn basis(estimate: &Estimate, ran_before: bool) -> String {
    match &estimate.basis {
        Basis::Shapes => " (by the shapes of its work and the speed of this machine)".to_owned(),
        Basis::EarlierRun { stage, work, .. } => {
            let like = if ran_before { "the last run".to_owned() } else { format!("`{stage}`") };
            match (text::is_same_work(*work), ran_before) {
                (true, true) => String::new(),
                (true, false) => format!(" (as {like})"),
                (false, _) => format!(" ({work:.2} times the work of {like})"),
            }
        }
    }
}
