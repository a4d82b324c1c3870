//! `status`: which stages are up to date and what they led to.

use serde::Serialize;

use super::{PipelineArgs, Session, load, plan, table::Table};
use crate::{
    cache::{CacheEntry, Store},
    error::Error,
    lockfile::Lockfile,
    runner::{Verdict, console::headline_figures, event::Metrics, text},
    sys::Timestamp,
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

#[derive(Serialize)]
struct StageStatus {
    stage: String,
    uses: &'static str,
    state: &'static str,
    artifact: Option<String>,
    created: Option<Timestamp>,
    seconds: Option<f64>,
    size: Option<u64>,
    metrics: Metrics,
    path: String,
}

/// Prints one line for each stage.
///
/// # Errors
/// As [`plan::run`].
pub fn run(args: &StatusArgs, session: &Session) -> Result<(), Error> {
    let pipeline = load::load(&args.pipeline, session)?;
    let plan = plan::make(&pipeline, &crate::runner::RunOptions::default(), session)?;
    let (project, store) = session.open()?;
    let lockfile = Lockfile::load(&Lockfile::path_for(&pipeline.path))?;
    let mut statuses = Vec::new();
    for planned in &plan.stages {
        let locked = lockfile.stages.get(&planned.stage);
        let (state, fingerprint) = match &planned.verdict {
            Verdict::Hit { .. } => ("current", planned.fingerprint),
            Verdict::Run { .. } if locked.is_none() => ("new", None),
            Verdict::Run { .. } => ("stale", locked.map(|locked| locked.fingerprint)),
            Verdict::Unknown { .. } => ("open", locked.map(|locked| locked.fingerprint)),
        };
        let entry: Option<CacheEntry> = fingerprint.and_then(|fingerprint| entry(&store, &fingerprint));
        statuses.push(StageStatus {
            stage: planned.stage.clone(),
            uses: planned.uses.name(),
            state,
            artifact: entry.as_ref().map(|entry| entry.artifact.short()),
            created: entry.as_ref().map(|entry| entry.provenance.created),
            seconds: entry.as_ref().map(|entry| entry.provenance.wall_seconds),
            size: entry.as_ref().map(|entry| entry.size),
            metrics: entry.map(|entry| entry.metrics).unwrap_or_default(),
            path: project.display(&project.run_link(&pipeline.name, &planned.stage)).to_string(),
        });
    }
    if session.json() {
        return session.print_json(&statuses);
    }
    let paint = session.paint();
    let mut table = Table::new(&["stage", "kind", "state", "made", "took", "size", "figures"]);
    for status in &statuses {
        table.row([
            status.stage.clone(),
            status.uses.to_owned(),
            status.state.to_owned(),
            status.created.map(|created| created.to_string()).unwrap_or_default(),
            status.seconds.map(text::duration).unwrap_or_default(),
            status.size.map(text::bytes).unwrap_or_default(),
            headline_figures(&status.metrics),
        ]);
    }
    session.print(&table.render(paint))?;
    if statuses.iter().any(|status| status.state != "current") {
        session.note("`simsiam-pipe plan` says why");
    }
    Ok(())
}

fn entry(store: &Store, fingerprint: &crate::digest::Digest) -> Option<CacheEntry> {
    store.entry(fingerprint).ok().flatten()
}
