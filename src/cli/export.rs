//! `export`: an artifact and all that it was made from as a folder that stands alone.

use std::path::PathBuf;

use super::{PipelineArgs, Session, load, run::RealExecutor};
use crate::{
    error::Error,
    fs::FsError,
    runner::{Cancel, Runner, Transfer, event::SilentObserver, text},
};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[command(after_help = "Examples:\n  simsiam-pipe export probe --to /mnt/share/probe-2026\n  simsiam-pipe export \
                        pipelines/intel.yaml pretrain --to encoder\n\nTo check the folder later, in it:\n  sha256sum \
                        -c SHA256SUMS")]
pub struct ExportArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The stage.
    #[arg(value_name = "STAGE", required = true)]
    pub stage: String,
    /// The folder to write: a new or an empty one.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Give the cache's own read-only files a second name instead of copying them, where that is possible. Whoever
    /// edits one edits it in the cache, too.
    #[arg(long)]
    pub hard_link: bool,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Writes the folder.
///
/// # Errors
/// When the stage is not up to date, the folder is taken or the disk fails.
pub fn run(args: &ExportArgs, session: &Session) -> Result<(), Error> {
    let pipeline_args = PipelineArgs { pipeline: args.pipeline.clone(), set: args.set.clone() };
    let pipeline = load::load(&pipeline_args, session)?;
    let (project, store) = session.open()?;
    let cancel = Cancel::install().map_err(FsError::at("listen to signals in", &project.root))?;
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor,
        observer: &SilentObserver,
        cancel: &cancel,
    };
    let transfer = if args.hard_link { Transfer::HardLink } else { Transfer::Copy };
    let exported = runner.export(&pipeline, &args.stage, &args.to, transfer)?;
    if session.json() {
        return session.print_json(&exported);
    }
    session.print(&format!("{}\n", exported.folder.display()))?;
    let (stages, files, size) = (exported.stages.len(), exported.files, text::bytes(exported.size));
    session.note(&format!("{stages} artifacts, {files} files, {size}; to check them: `sha256sum -c SHA256SUMS` there"));
    Ok(())
}
