//! The arguments that all subcommands share, and which subcommands there are.

use std::path::PathBuf;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::{
    Session, audit, augment, bench, cache, completions, doctor, embed, explain, export, graph, init, log, metrics,
    plan, predict, run as run_command, schema, similar, stage_worker, status, view,
};
use crate::error::{EXIT_CODES, Error};

const EXAMPLES: &str = "\
Examples:
  simsiam-pipe init data/photos -o pipelines/photos.yaml   a first pipeline for a folder of images
  simsiam-pipe plan pipelines/photos.yaml                  what would run, and why
  simsiam-pipe run pipelines/photos.yaml                   run what changed, restore the rest
  simsiam-pipe explain pretrain                            why a stage would run
  simsiam-pipe metrics --compare HEAD~1                    what changed since the last commit
  simsiam-pipe view                                        reports and runs in a browser
  simsiam-pipe predict --model runs/photos/probe new/      the classes of new images

";

fn after_help() -> String {
    format!("{EXAMPLES}{EXIT_CODES}")
}

/// Self-supervised image pretraining (SimSiam) as a declarative, cached, reproducible pipeline.
#[derive(Debug, Parser)]
#[command(name = "simsiam-pipe", version, about, after_help = after_help(), max_term_width = 110)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// What all subcommands understand.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// What all subcommands understand.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Do as if started in this folder.
    #[arg(short = 'C', value_name = "FOLDER", global = true)]
    pub directory: Option<PathBuf>,
    /// Where relative paths in pipelines start and `runs/` lies [default: the nearest folder upward with
    /// `.simsiam-pipe/`, or else the current one].
    #[arg(long, value_name = "FOLDER", global = true)]
    pub project_root: Option<PathBuf>,
    /// Where the cache lies [default: `.simsiam-pipe` in the project root, or `SIMSIAM_PIPE_CACHE`].
    #[arg(long, value_name = "FOLDER", global = true)]
    pub cache_dir: Option<PathBuf>,
    /// Threads for all stages together [default: one for each core]. Results do not depend on it.
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print JSON on stdout: one event a line for `run`, one image a line for `predict`, `embed` and
    /// `similar`, one document for the
    /// others. Errors too.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours.
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t = ColorWhen::Auto)]
    pub color: ColorWhen,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for every figure.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` or `CI` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which pipeline, and what to change in it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Change a value of the pipeline: `--set stages.pretrain.with.epochs=5`, `--set vars.data=/mnt/photos`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run what changed, restore the rest from the cache.
    Run(run_command::RunArgs),
    /// Say what `run` would do, and why.
    Plan(plan::PlanArgs),
    /// Say why a stage would run, field by field.
    Explain(explain::ExplainArgs),
    /// Draw the graph of stages.
    Graph(graph::GraphArgs),
    /// Say which stages are up to date and what they led to.
    Status(status::StatusArgs),
    /// Show headline figures, or compare them with another state of the lockfile.
    Metrics(metrics::MetricsArgs),
    /// Show reports and running pipelines in a browser.
    View(view::ViewArgs),
    /// Show earlier runs.
    Log(log::LogArgs),
    /// Write an artifact and all that it was made from into a folder that stands alone.
    Export(export::ExportArgs),
    /// Run stages again beside the cache and compare: are they deterministic?
    Audit(audit::AuditArgs),
    /// Try an augmentation policy on images, without a run.
    Augment(augment::AugmentArgs),
    /// List, check or shrink the cache.
    Cache(cache::CacheArgs),
    /// Name the classes of images with a fitted classifier.
    Predict(predict::PredictArgs),
    /// Write features of images with the network of an artifact.
    Embed(embed::EmbedArgs),
    /// Find the embedded images that are most like given ones.
    Similar(similar::SimilarArgs),
    /// Measure what throughput this machine gives.
    Bench(bench::BenchArgs),
    /// Write a commented starter pipeline for a folder of images.
    Init(init::InitArgs),
    /// Print the JSON Schema of a file format.
    Schema(schema::SchemaArgs),
    /// Check the machine, the project and the cache.
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Execute one stage that another process describes on stdin.
    #[command(hide = true)]
    StageWorker,
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever the subcommand fails with.
pub fn run(args: Args, session: &Session) -> Result<(), Error> {
    session.enter_directory()?;
    session.start_threads();
    match args.command {
        Command::Run(args) => run_command::run(&args, session),
        Command::Plan(args) => plan::run(&args, session),
        Command::Explain(args) => explain::run(&args, session),
        Command::Graph(args) => graph::run(&args, session),
        Command::Status(args) => status::run(&args, session),
        Command::Metrics(args) => metrics::run(&args, session),
        Command::View(args) => view::run(&args, session),
        Command::Log(args) => log::run(&args, session),
        Command::Export(args) => export::run(&args, session),
        Command::Audit(args) => audit::run(&args, session),
        Command::Augment(args) => augment::run(&args, session),
        Command::Cache(args) => cache::run(&args, session),
        Command::Predict(args) => predict::command(&args, session),
        Command::Embed(args) => embed::command(&args, session),
        Command::Similar(args) => similar::command(&args, session),
        Command::Bench(args) => bench::run(&args, session),
        Command::Init(args) => init::run(&args, session),
        Command::Schema(args) => schema::run(&args, session),
        Command::Doctor(args) => doctor::run(&args, session),
        Command::Completions(args) => completions::run(&args, session),
        Command::StageWorker => stage_worker::run(session),
    }
}

/// The arguments of this process; help, version and usage errors end it here. They come before `--color` is understood,
/// so that it is looked for in the words.
pub fn parse() -> Args {
    let words: Vec<_> = std::env::args_os().collect();
    let said = |when: &str| {
        let joined = format!("--color={when}");
        words.iter().any(|word| word == joined.as_str())
            || words.windows(2).any(|pair| pair[0] == "--color" && pair[1] == when)
    };
    let color = match () {
        () if said("always") => ColorChoice::Always,
        () if said("never") || super::session::wants_no_color() => ColorChoice::Never,
        () => ColorChoice::Auto,
    };
    let matches = Args::command().color(color).get_matches();
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
