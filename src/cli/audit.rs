//! `audit`: run stages again beside the cache and compare.

use std::path::{Path, PathBuf};

use super::{PipelineArgs, Session, load, run::RealExecutor};
use crate::{
    error::Error,
    fs::FsError,
    runner::{Cancel, RunObserver, Runner, event::SilentObserver},
};

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe audit                                every stage\n  simsiam-pipe audit \
                        pretrain --threads 1           one stage, with another number of threads\n  simsiam-pipe \
                        audit pipelines/intel.yaml 'fit_*'"
)]
pub struct AuditArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Only this stage (`*` and `?` match) [default: all].
    #[arg(value_name = "STAGE")]
    pub stage: Option<String>,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl AuditArgs {
    /// One argument alone is a pipeline if it looks like a file, and else a stage.
    fn resolve(&self) -> (Option<PathBuf>, Option<String>) {
        match (&self.pipeline, &self.stage) {
            (Some(single), None) if !is_file(single) => (None, Some(single.to_string_lossy().into_owned())),
            (pipeline, stage) => (pipeline.clone(), stage.clone()),
        }
    }
}

fn is_file(path: &Path) -> bool {
    path.exists() || path.components().count() > 1 || path.extension().is_some_and(|it| it == "yaml" || it == "yml")
}

/// Runs the stages again and says what differs.
///
/// # Errors
/// When something differs, is not in the cache or fails.
pub fn run(args: &AuditArgs, session: &Session) -> Result<(), Error> {
    let (pipeline, stage) = args.resolve();
    let pipeline = load::load(&PipelineArgs { pipeline, set: args.set.clone() }, session)?;
    let (project, store) = session.open()?;
    let cancel = Cancel::install().map_err(FsError::at("listen to signals in", &project.root))?;
    let observer: Box<dyn RunObserver> = if session.json() { Box::new(SilentObserver) } else { session.observer() };
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor::default(),
        observer: &*observer,
        cancel: &cancel,
    };
    let audit = runner.audit(&pipeline, stage.as_deref())?;
    let (different, total) = (audit.num_different(), audit.stages.len());
    if session.json() {
        session.print_json(&audit)?;
    }
    if !audit.not_in_cache.is_empty() {
        let names: Vec<_> = audit.not_in_cache.iter().map(|name| format!("`{name}`")).collect();
        session.note(&format!("not in the cache, so not audited: {}", names.join(", ")));
    }
    if different > 0 {
        return Err(Error::AuditDiffers { different, total });
    }
    let stages = if total == 1 { "stage" } else { "stages" };
    session.note(&format!("{total} {stages} audited: every byte is the same"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_is_a_file_or_a_stage() {
        let resolve = |pipeline: &str, stage: Option<&str>| {
            let args = AuditArgs { pipeline: Some(pipeline.into()), stage: stage.map(str::to_owned), set: vec![] };
            args.resolve()
        };
        assert_eq!(resolve("pretrain", None), (None, Some("pretrain".to_owned())));
        assert_eq!(resolve("fit_*", None), (None, Some("fit_*".to_owned())));
        assert_eq!(resolve("x.yaml", None), (Some("x.yaml".into()), None));
        assert_eq!(resolve("pipelines/x", None), (Some("pipelines/x".into()), None));
        assert_eq!(resolve("a", Some("b")), (Some("a".into()), Some("b".to_owned())));
    }
}
