//! `graph`: a picture of the stages.

use std::{collections::BTreeMap, path::PathBuf};

use clap::ValueEnum;

use super::{PipelineArgs, Session, load, plan};
use crate::{
    error::Error,
    fs::files,
    graph::{self, StageGraph},
    runner::{RunOptions, Verdict},
};

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe graph --format svg --status -o graph.svg\n  simsiam-pipe graph | dot -Tpdf > graph.pdf"
)]
pub struct GraphArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// How to draw it.
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub format: GraphFormat,
    /// Show which stages are cached and which would run.
    #[arg(long)]
    pub status: bool,
    /// Write to a file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How to draw a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz.
    Dot,
    /// A flowchart that code forges draw in Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

/// Draws the graph.
///
/// # Errors
/// When the pipeline is wrong or the file cannot be written.
pub fn run(args: &GraphArgs, session: &Session) -> Result<(), Error> {
    let pipeline = load::load(&args.pipeline, session)?;
    let stages = StageGraph::build(&pipeline)?;
    let mut status = BTreeMap::new();
    if args.status {
        for planned in plan::make(&pipeline, &RunOptions::default(), session)?.stages {
            let word = match planned.verdict {
                Verdict::Hit { .. } => "cached",
                Verdict::Run { .. } => "run",
                Verdict::Unknown { .. } => "run, unless its inputs stay the same",
            };
            status.insert(planned.stage, word.to_owned());
        }
    }
    let picture = match args.format {
        GraphFormat::Dot => graph::dot(&stages, &status),
        GraphFormat::Mermaid => graph::mermaid(&stages, &status),
        GraphFormat::Svg => graph::svg(&stages, &status),
    };
    match &args.output {
        Some(path) => Ok(files::write_atomic(path, picture.as_bytes())?),
        None => session.print(&picture),
    }
}
