//! `explain`: why a stage would run, field by field.

use std::{fmt::Write as _, path::PathBuf};

use super::{PipelineArgs, Session, load, run::RealExecutor};
use crate::{
    cache::CacheEntry,
    error::Error,
    graph::StageGraph,
    lockfile::Lockfile,
    runner::{
        Cancel, PlannedStage, RunOptions, Runner, Selection, Verdict, console::headline_figures, event::SilentObserver,
        text,
    },
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[command(
    after_help = "Examples:\n  simsiam-pipe explain pretrain\n  simsiam-pipe explain pipelines/intel.yaml pretrain"
)]
pub struct ExplainArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The stage.
    #[arg(value_name = "STAGE", required = true)]
    pub stage: String,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Prints why.
///
/// # Errors
/// When the pipeline is wrong, there is no such stage or the cache cannot be read.
pub fn run(args: &ExplainArgs, session: &Session) -> Result<(), Error> {
    let pipeline_args = PipelineArgs { pipeline: args.pipeline.clone(), set: args.set.clone() };
    let pipeline = load::load(&pipeline_args, session)?;
    let (project, store) = session.open()?;
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor,
        observer: &SilentObserver,
        cancel: &Cancel::default(),
    };
    let selection = Selection { stages: vec![args.stage.clone()], ..Selection::default() };
    let plan = runner.plan(&pipeline, &RunOptions { selection, ..RunOptions::default() })?;
    let Some(planned) = plan.stages.into_iter().find(|planned| planned.stage == args.stage) else {
        return Err(Error::usage(format!("`{}` is a pattern, not a stage", args.stage), "name one stage"));
    };
    if session.json() {
        return session.print_json(&planned);
    }
    let lockfile = Lockfile::load(&Lockfile::path_for(&pipeline.path))?;
    let fingerprint = planned.fingerprint.filter(|_| matches!(planned.verdict, Verdict::Hit { .. }));
    let fingerprint = fingerprint.or_else(|| lockfile.stages.get(&args.stage).map(|stage| stage.fingerprint));
    let last = fingerprint.and_then(|fingerprint| store.entry(&fingerprint).ok().flatten());

    let graph = StageGraph::build(&pipeline)?;
    let followers = graph.descendants(&args.stage);
    session.print(&render(&planned, last.as_ref(), &followers, session))
}

fn render(planned: &PlannedStage, last: Option<&CacheEntry>, followers: &[&str], session: &Session) -> String {
    let paint = session.paint();
    let mut out = String::new();
    let (headline, lines) = match &planned.verdict {
        Verdict::Hit { .. } => (paint.green("is up to date"), vec![]),
        Verdict::Run { reason } => {
            let (headline, lines) = text::reason(reason);
            (format!("{}: {headline}", paint.yellow("must run")), lines)
        }
        Verdict::Unknown { waits_for, changes } => {
            let names = waits_for.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let headline = if changes.is_empty() {
                format!("{}: not if {names} leads to the same content as before", paint.yellow("may run"))
            } else {
                format!("{} after {names}, for its own sake too", paint.yellow("must run"))
            };
            (headline, changes.iter().map(text::change).collect())
        }
    };
    let _ = writeln!(out, "{} ({}) {headline}", paint.bold(&planned.stage), planned.uses.name());
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
    if let Some(fingerprint) = planned.fingerprint {
        let _ = writeln!(out, "\nfingerprint  {fingerprint}");
    }
    if let Some(last) = last {
        let made = &last.provenance;
        let _ = writeln!(
            out,
            "last made    {} on {} ({}), took {}, {}",
            made.created,
            made.host,
            made.device,
            text::duration(made.wall_seconds),
            text::bytes(last.size)
        );
        let _ = writeln!(out, "artifact     {}", last.artifact);
        if !last.metrics.is_empty() {
            let _ = writeln!(out, "figures      {}", headline_figures(&last.metrics));
        }
        if session.verbosity() > 0 {
            let record = serde_json::to_string_pretty(&last.fingerprint).unwrap_or_default();
            let _ = writeln!(out, "\nwhat decided it:\n{record}");
        }
    }
    if !matches!(planned.verdict, Verdict::Hit { .. }) && !followers.is_empty() {
        let _ = writeln!(out, "after it     {}", followers.join(", "));
    }
    if last.is_some() && matches!(planned.verdict, Verdict::Run { .. }) {
        let _ = writeln!(out, "\nSet the old values again and the old artifact is restored: it stays in the cache.");
    }
    out
}
