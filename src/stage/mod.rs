//! The bridge between the pipeline and the domain: one thin adapter per stage kind.

pub mod augment;
pub mod command;
pub mod context;
pub mod earlier;
mod earlier_embeddings;
pub mod external_input;
pub mod extract;
#[cfg(test)]
pub(crate) mod extract_tests;
pub mod fit;
mod fit_frozen;
mod fit_trained;
pub mod forecast;
pub mod ingest;
mod knn_monitor;
mod leak;
pub mod pretrain;
pub mod report;
mod report_data;
mod report_embeddings;
mod report_thumbnails;
pub mod stage_config;
pub mod stage_error;
pub mod stage_kind;
pub mod workload;

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
        StageConfig::Ingest(config) => ingest::run(config, ctx),
        StageConfig::Augment(config) => augment::run(config, ctx),
        StageConfig::Pretrain(config) => pretrain::run(config, ctx),
        StageConfig::Extract(config) => extract::execute(config, ctx),
        StageConfig::Fit(config) => fit::execute(config, ctx),
        StageConfig::Report(config) => report::run(config, ctx),
        StageConfig::Command(config) => command::run(config, ctx),
    }
}
