//! `plan`: what `run` would do, and why.

use std::fmt::Write as _;

use super::{
    PipelineArgs, Session, load,
    run::{RealExecutor, SelectionArgs},
};
use crate::{
    config::Pipeline,
    error::Error,
    runner::{
        Cancel, Plan, RunOptions, Runner, Verdict,
        console::{Paint, headline_figures},
        event::SilentObserver,
        text,
    },
};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is executed and nothing but the index of source files is written.")]
pub struct PlanArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Which stages.
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Prints the plan.
///
/// # Errors
/// When the pipeline is wrong, a source is missing or the cache cannot be read.
pub fn run(args: &PlanArgs, session: &Session) -> Result<(), Error> {
    let pipeline = load::load(&args.pipeline, session)?;
    let plan = make(&pipeline, &args.selection.options(), session)?;
    if session.json() {
        return session.print_json(&plan);
    }
    session.print(&render(&plan, session.paint(), session.verbosity()))
}

/// The plan of a pipeline.
///
/// # Errors
/// As [`run`].
pub fn make(pipeline: &Pipeline, options: &RunOptions, session: &Session) -> Result<Plan, Error> {
    let (project, store) = session.open()?;
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor,
        observer: &SilentObserver,
        cancel: &Cancel::default(),
    };
    Ok(runner.plan(pipeline, options)?)
}

/// The plan for people.
pub fn render(plan: &Plan, paint: Paint, verbosity: i8) -> String {
    let mut out = String::new();
    let width = plan.stages.iter().map(|stage| stage.stage.chars().count()).max().unwrap_or(0);
    let (mut hits, mut runs, mut open, mut cost) = (0, 0, 0, 0.0);
    for stage in &plan.stages {
        let name = paint.bold(&format!("{:<width$}", stage.stage));
        let indent = " ".repeat(width + 4);
        let last = stage.last_seconds.map(|seconds| format!("; took {} last time", text::duration(seconds)));
        let last = paint.dim(&last.unwrap_or_default());
        match &stage.verdict {
            Verdict::Hit { artifact, metrics } => {
                hits += 1;
                let details = if verbosity > 0 { artifact.short() } else { headline_figures(metrics) };
                let details = if details.is_empty() { details } else { format!("  {}", paint.dim(&details)) };
                let state = paint.green(if details.is_empty() { "cached" } else { "cached " });
                let _ = writeln!(out, "  {name}  {state}{details}");
            }
            Verdict::Run { reason } => {
                runs += 1;
                cost += stage.last_seconds.unwrap_or(0.0);
                let (headline, lines) = text::reason(reason);
                let _ = writeln!(out, "  {name}  {}  {headline}{last}", paint.yellow("run    "));
                for line in lines {
                    let _ = writeln!(out, "{indent}         {line}");
                }
            }
            Verdict::Unknown { waits_for, changes } => {
                open += 1;
                cost += stage.last_seconds.unwrap_or(0.0);
                let names: Vec<_> = waits_for.iter().map(|name| format!("`{name}`")).collect();
                let headline = if changes.is_empty() {
                    format!(
                        "unless {} {} the same as before",
                        names.join(", "),
                        if names.len() == 1 { "gives" } else { "give" }
                    )
                } else {
                    format!("after {}", names.join(", "))
                };
                let word = if changes.is_empty() { "run?   " } else { "run    " };
                let _ = writeln!(out, "  {name}  {}  {headline}{last}", paint.yellow(word));
                for change in changes {
                    let _ = writeln!(out, "{indent}         {}", text::change(change));
                }
            }
        }
    }
    let summary = match (runs, open) {
        (0, 0) => "everything is up to date".to_owned(),
        (runs, 0) => format!("{runs} to run, {hits} cached"),
        (runs, open) => format!("{runs} to run, {open} depend on that, {hits} cached"),
    };
    let cost = if cost > 0.0 { format!("; these took {} last time", text::duration(cost)) } else { String::new() };
    let _ = writeln!(out, "{}: {summary}{cost}", plan.pipeline);
    out
}
