//! Plans and executes a run.
//!
//! `plan`, `run --dry-run` and `run` share one path: [`planner::Planner`] finds out, [`plan::decide`] decides,
//! [`execute::Runner`] does it and tells observers through [`event::RunEvent`].

pub mod cancel;
pub mod console;
pub mod event;
pub mod execute;
pub mod links;
pub mod plan;
pub mod planner;
pub mod runner_error;
pub mod selection;
mod stage_run;
#[cfg(test)]
pub(crate) mod tests;
pub mod text;

pub use cancel::Cancel;
pub use event::{RunEvent, RunObserver};
pub use execute::{RunOptions, RunSummary, Runner};
pub use plan::{Plan, PlannedStage, Reason, Verdict};
pub use planner::Planner;
pub use runner_error::RunnerError;
pub use selection::Selection;

use crate::stage::{StageConfig, StageContext, StageError, StageOutcome};

/// Who does the work of a stage: [`crate::stage::execute`], or something quick in tests.
pub trait StageExecutor: Sync {
    /// Reads inputs and leaves outputs as `ctx` says.
    ///
    /// # Errors
    /// When the stage fails or is cancelled.
    fn execute(&self, config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError>;
}
