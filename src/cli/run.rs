//! `run`: run what changed, restore the rest.

use std::sync::{Mutex, PoisonError};

use super::{PipelineArgs, Session, load, stage_worker};
use crate::{
    compute::{self, Compute, DeviceChoice, Opened, Precision},
    error::Error,
    fs::FsError,
    graph::StageGraph,
    runner::{Cancel, RunEvent, RunOptions, Runner, Selection, StageExecutor, StageJob, live::Live},
    stage::{self, StageConfig, StageError, StageOutcome, StageReporter},
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
    /// What computes, instead of what the pipeline says: `auto`, `cpu` or `cuda:N`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// How a GPU computes, instead of what the pipeline says: `f32`, `tf32`, `bf16` or `f16`.
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
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
#[derive(Debug, Default)]
pub struct RealExecutor {
    /// What computes, opened when the first stage needs it.
    opened: Mutex<Option<Opened>>,
}

impl StageExecutor for RealExecutor {
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        let compute = match job.config {
            StageConfig::Pretrain(_) | StageConfig::Extract(_) => self.open(job, reporter)?,
            _ => Compute::Cpu,
        };
        stage::execute(&job.config, &job.context(&compute, reporter))
    }
}

impl RealExecutor {
    /// What computes; the same for all stages of a run.
    fn open(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<Compute, StageError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            let new = compute::open(job.device, job.precision)
                .map_err(|error| StageError::Config { message: error.to_string(), help: Some(NO_DEVICE.to_owned()) })?;
            if let Some(note) = &new.note {
                reporter.warn(note);
            }
            *opened = Some(new);
        }
        let opened = opened.clone().unwrap_or_default();
        if !matches!(opened.compute, Compute::Cpu) {
            reporter.computes_on(&opened.name);
        }
        Ok(opened.compute)
    }
}

/// What to do where a device cannot be used.
const NO_DEVICE: &str = "`simsiam-pipe doctor` says what it found; `--device cpu` computes on the CPU";

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
        None => &RealExecutor::default(),
    };
    let device = args.device.unwrap_or(pipeline.device);
    // Before anything runs, not when the first stage needs it.
    compute::check(device).map_err(|error| Error::usage(error.to_string(), NO_DEVICE))?;
    let live = Live::new(&*observer, StageGraph::build(&pipeline)?, &store.layout().live(), &pipeline.name);
    let runner = Runner { project: &project, store: &store, executor, observer: &live, cancel: &cancel };
    let options = RunOptions {
        jobs: usize::from(args.jobs),
        keep_going: args.keep_going,
        device: args.device,
        precision: args.precision,
        ..args.selection.options()
    };
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
