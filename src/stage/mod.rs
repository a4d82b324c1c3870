//! The bridge between the pipeline and the domain: one thin adapter per stage kind.

pub mod augment;
pub mod command;
pub mod context;
pub mod external_input;
pub mod extract;
pub mod fit;
mod fit_frozen;
pub mod ingest;
pub mod report;
mod report_thumbnails;
pub mod stage_config;
pub mod stage_error;
pub mod stage_kind;

pub use context::{InputArtifact, SilentReporter, StageContext, StageOutcome, StageReporter};
pub use stage_config::{CommandConfig, ReportConfig, StageConfig};
pub use stage_error::StageError;
pub use stage_kind::{ArtifactKind, InputDecl, StageKind};

/// Runs a stage: reads its inputs, leaves its outputs in `ctx.out_dir`.
///
/// # Errors
/// See [`StageError`]; whatever lies in `ctx.out_dir` then is worthless.
pub fn execute(config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    match config {
        StageConfig::Command(config) => command::run(config, ctx),
        _ => Err(StageError::Config { message: format!("stage `{}` is not wired yet", ctx.stage), help: None }),
    }
}
