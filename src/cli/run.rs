//! `run`: run what changed, restore the rest.

use super::{PipelineArgs, Session, load, stage_worker};
use crate::{
    compute::Compute,
    error::Error,
    fs::FsError,
    graph::StageGraph,
    runner::{Cancel, RunEvent, RunOptions, Runner, Selection, StageExecutor, StageJob, live::Live},
    stage::{self, StageError, StageOutcome, StageReporter},
};

const EXAMPLES: &str = "\
Examples:
  simsiam-pipe run pipelines/intel.yaml
  simsiam-pipe run --stage 'fit_*'                         only these and what they need
  simsiam-pipe run --stage 'probe@seed=0'                  only cells of a matrix with this value
  simsiam-pipe run --set stages.pretrain.with.epochs=5     with another value
  simsiam-pipe run --force report --json                   report anew, events for a program
  simsiam-pipe run --isolate --jobs 2 --keep-going         each stage in a process of its own";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Which stages.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Only say what would be done.
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Run up to N independent stages at a time; they share `--threads`.
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// After a failure go on with the stages that do not depend on it.
    #[arg(long, short)]
    pub keep_going: bool,
    /// Execute each stage in a process of its own: one that crashes or runs out of memory fails alone.
    #[arg(long)]
    pub isolate: bool,
}

/// Which stages, and whether to believe the cache.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SelectionArgs {
    /// Only this stage and what it needs (`*` and `?` match, `STAGE@axis=value` names cells; can be repeated).
    #[arg(long, short, value_name = "STAGE")]
    pub stage: Vec<String>,
    /// Only this stage, what follows from it and what that needs (can be repeated).
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Execute this stage even if nothing changed (can be repeated).
    #[arg(long, short, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Execute every selected stage even if nothing changed. Results are stored all the same.
    #[arg(long)]
    pub no_cache: bool,
}

impl SelectionArgs {
    /// As options of a run.
    pub fn options(&self) -> RunOptions {
        RunOptions {
            selection: Selection { stages: self.stage.clone(), from: self.from.clone(), force: self.force.clone() },
            no_cache: self.no_cache,
            ..RunOptions::default()
        }
    }
}

/// Does the real work of stages, in this process.
pub struct RealExecutor;

impl StageExecutor for RealExecutor {
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        stage::execute(&job.config, &job.context(&Compute::Cpu, reporter))
    }
}

/// Runs the pipeline.
///
/// # Errors
/// When something is missing, a stage fails or the user stops it.
pub fn run(args: &RunArgs, session: &Session) -> Result<(), Error> {
    let pipeline = load::load(&args.pipeline, session)?;
    let (project, store) = session.open()?;
    let cancel = Cancel::install().map_err(FsError::at("listen to signals in", &project.root))?;
    let observer = session.observer();
    let isolated = args.isolate.then(stage_worker::executor).transpose()?;
    let executor: &dyn StageExecutor = match &isolated {
        Some(isolated) => isolated,
        None => &RealExecutor,
    };
    let live = Live::new(&*observer, StageGraph::build(&pipeline)?, &store.layout().live(), &pipeline.name);
    let runner = Runner { project: &project, store: &store, executor, observer: &live, cancel: &cancel };
    let options = RunOptions { jobs: usize::from(args.jobs), keep_going: args.keep_going, ..args.selection.options() };
    if !args.dry_run {
        runner.run(&pipeline, &options)?;
        return Ok(());
    }
    let plan = runner.plan(&pipeline, &options)?;
    if session.json() {
        observer.on_event(&RunEvent::RunStarted {
            pipeline: pipeline.name.clone(),
            path: pipeline.path.display().to_string(),
            stages: plan.stages.iter().map(|stage| stage.stage.clone()).collect(),
            dry_run: true,
        });
        for plan in plan.stages {
            observer.on_event(&RunEvent::StagePlanned { plan });
        }
        return Ok(());
    }
    session.print(&super::plan::render(&plan, session.paint(), session.verbosity()))
}
