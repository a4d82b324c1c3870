//! `log`: earlier runs, newest first.

use super::{Session, table::Table};
use crate::{
    cache::history::{Action, Outcome, RunRecord},
    error::Error,
    runner::text,
};

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Only runs of the pipeline of this name.
    #[arg(value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Show the last N runs.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub number: usize,
}

/// Prints the history.
///
/// # Errors
/// When it cannot be read.
pub fn run(args: &LogArgs, session: &Session) -> Result<(), Error> {
    let (_, store) = session.open()?;
    let mut runs = RunRecord::load_all(store.layout())?;
    if let Some(name) = &args.pipeline {
        let stem = std::path::Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        runs.retain(|run| run.pipeline == *name || Some(&run.pipeline) == stem.as_ref());
    }
    let runs: Vec<_> = runs.into_iter().rev().take(args.number).collect();
    if session.json() {
        return session.print_json(&runs);
    }
    if runs.is_empty() {
        session.note("no runs yet");
        return Ok(());
    }
    let mut table = Table::new(&["began", "pipeline", "outcome", "time", "ran", "restored", "top-1"]);
    for run in runs {
        let names = |action: Action| run.stages.iter().filter(move |stage| stage.action == action);
        let outcome = match run.outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Cancelled => "stopped".to_owned(),
            Outcome::Failed => {
                let failed: Vec<_> = names(Action::Failed).map(|stage| stage.stage.as_str()).collect();
                format!("failed: {}", failed.join(", "))
            }
        };
        let figures: Vec<_> = names(Action::Executed)
            .filter_map(|stage| {
                // Accuracies of the stages that have any, all figures of the others would be a page.
                let top1 = stage.metrics.iter().find(|(name, _)| name.ends_with("/top1"))?;
                Some(format!("{} {:.1} %", stage.stage, 100.0 * top1.1))
            })
            .collect();
        table.row([
            run.began.to_string(),
            run.pipeline.clone(),
            outcome,
            text::duration(run.seconds),
            names(Action::Executed).count().to_string(),
            names(Action::Restored).count().to_string(),
            figures.join("  "),
        ]);
    }
    session.print(&table.render(session.paint()))
}
