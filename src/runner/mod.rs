//! Plans and executes a run.
//!
//! `plan`, `run --dry-run` and `run` share one path: [`planner::Planner`] finds out, [`plan::decide`] decides,
//! [`execute::Runner`] does it and tells observers through [`event::RunEvent`].

pub mod audit;
pub mod cancel;
pub mod console;
mod earlier;
pub mod event;
pub mod execute;
pub mod export;
mod forecaster;
pub mod isolate;
pub mod job;
pub mod links;
pub mod live;
#[cfg(test)]
mod model_tests;
pub mod past_runs;
pub mod plan;
pub mod planner;
mod reporter;
mod run_page;
pub mod runner_error;
pub mod selection;
mod stage_run;
#[cfg(test)]
pub(crate) mod tests;
pub mod text;
pub mod worker;

pub use audit::Audit;
pub use cancel::Cancel;
pub use event::{RunEvent, RunObserver};
pub use execute::{RunOptions, RunSummary, Runner};
pub use export::{Exported, Transfer};
pub use isolate::IsolatedExecutor;
pub use job::StageJob;
pub use plan::{Basis, Cost, Estimate, Plan, PlannedStage, Reason, Verdict};
pub use planner::Planner;
pub use runner_error::RunnerError;
pub use selection::Selection;

use crate::stage::{StageError, StageOutcome, StageReporter};

/// Who does the work of a stage, and where: [`crate::stage::execute`] in this process, [`IsolatedExecutor`] in one
/// of its own, or something quick in tests. Nothing else knows.
pub trait StageExecutor: Sync {
    /// Reads inputs and leaves outputs as the job says.
    ///
    /// # Errors
    /// When the stage fails or is cancelled.
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError>;
}
