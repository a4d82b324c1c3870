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
        Basis, Cancel, Cost, Estimate, Plan, PlannedStage, RunOptions, Runner, Verdict,
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
    /// Estimate the time for up to N independent stages at a time.
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
}

/// Prints the plan.
///
/// # Errors
/// When the pipeline is wrong, a source is missing or the cache cannot be read.
pub fn run(args: &PlanArgs, session: &Session) -> Result<(), Error> {
    let pipeline = load::load(&args.pipeline, session)?;
    let options = RunOptions { jobs: usize::from(args.jobs), ..args.selection.options() };
    let plan = make(&pipeline, &options, session)?;
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
        executor: &RealExecutor::default(),
        observer: &SilentObserver,
        cancel: &Cancel::default(),
    };
    Ok(runner.plan(pipeline, options)?)
}

/// The plan for people.
pub fn render(plan: &Plan, paint: Paint, verbosity: i8) -> String {
    let mut out = String::new();
    let width = plan.stages.iter().map(|stage| stage.stage.chars().count()).max().unwrap_or(0);
    let (mut hits, mut runs, mut open) = (0, 0, 0);
    for stage in &plan.stages {
        let name = paint.bold(&format!("{:<width$}", stage.stage));
        let indent = " ".repeat(width + 4);
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
                let (headline, lines) = text::reason(reason);
                let _ = writeln!(out, "  {name}  {}  {headline}{}", paint.yellow("run    "), last(stage, paint));
                for line in lines {
                    let _ = writeln!(out, "{indent}         {line}");
                }
            }
            Verdict::Unknown { waits_for, changes } => {
                open += 1;
                let names = text::names(waits_for);
                let (word, headline) = if stage.last_seconds.is_none() {
                    ("run    ", format!("after {names}: it has never run"))
                } else if changes.is_empty() {
                    let give = if waits_for.len() == 1 { "gives" } else { "give" };
                    ("run?   ", format!("unless {names} {give} the same as before"))
                } else {
                    ("run    ", format!("{}, after {names}", text::num_changes(changes)))
                };
                let _ = writeln!(out, "  {name}  {}  {headline}{}", paint.yellow(word), last(stage, paint));
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
    let _ = writeln!(out, "{}: {summary}{}", plan.pipeline, cost(&plan.cost));
    out
}

/// What the stage took last time, or a cell like it.
fn last(stage: &PlannedStage, paint: Paint) -> String {
    let text = match &stage.estimate {
        Some(Estimate { basis: Basis::EarlierRun { stage: like, work, .. }, seconds, .. }) => {
            let before = text::duration(seconds / work);
            let took = match stage.last_seconds {
                Some(_) => format!("took {before} last time"),
                None => format!("`{like}` took {before}"),
            };
            if text::is_same_work(*work) { took } else { format!("about {}; {took}", text::duration(*seconds)) }
        }
        Some(Estimate { basis: Basis::Shapes, seconds, .. }) => {
            let took = stage.last_seconds.map(|last| format!("; other work took {}", text::duration(last)));
            format!("about {} by its shapes{}", text::duration(*seconds), took.unwrap_or_default())
        }
        None => return String::new(),
    };
    paint.dim(&format!("; {text}"))
}

/// What all that runs will cost, as far as that can be said.
fn cost(cost: &Cost) -> String {
    let known = cost.stages - cost.without_estimate;
    let mut text = String::new();
    if known > 0 {
        let memory = match cost.peak_memory_bytes {
            0 => String::new(),
            peak => format!(" and up to {} of memory", text::bytes(peak)),
        };
        let mut duration = text::duration(cost.seconds);
        if cost.jobs > 1 {
            let _ = write!(duration, " ({} with {} at a time)", text::duration(cost.elapsed_seconds), cost.jobs);
        }
        let by = match cost.by_shapes {
            0 => "earlier runs",
            count if count == known => "shapes",
            _ => "earlier runs and shapes",
        };
        let _ = write!(text, "; by {by} about {duration}, {} of disk{memory}", text::bytes(cost.disk_bytes));
    }
    match (cost.without_estimate, known) {
        (0, _) => {}
        (_, 0) => text.push_str("; nothing tells how long that takes"),
        (count, _) => {
            let _ = write!(text, "; nothing is known about {count} of them");
        }
    }
    text
}
