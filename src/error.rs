//! Every way in which the program can end, and its exit codes.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    augment::AugmentError,
    bench::BenchError,
    cache::CacheError,
    config::ConfigErrors,
    data::DataError,
    eval::EvalError,
    fs::FsError,
    graph::GraphError,
    lockfile::LockfileError,
    runner::{RunnerError, runner_error::FailureCause},
    stage::StageError,
};

/// The table of exit codes, as `--help` and `docs/cli.md` show it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    everything is as asked
  1    a stage failed, for no reason below
  2    the command line is wrong (an unknown option, stage or file)
  3    the pipeline file or the lockfile is wrong
  4    data to be read is missing, empty, unreadable or unfit
  5    the cache is damaged or made by a newer version
  6    reading or writing failed (permissions, full disk, …)
  7    `audit` found a stage that leaves other bytes than the cache holds
  130  stopped by Ctrl-C; run again to go on
  143  stopped by SIGTERM; run again to go on";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A run failed.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Reading or writing failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The lockfile cannot be used.
    #[error(transparent)]
    Lockfile(#[from] LockfileError),
    /// The pipeline file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The command line asks for something that is not there.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// `cache verify` found damage.
    #[error("{count} of the artifacts in the cache {} damaged", if *count == 1 { "is" } else { "are" })]
    CacheDamaged {
        /// How many.
        count: usize,
    },
    /// `audit` found differences.
    #[error("{different} of {total} audited stages left other bytes than the cache holds")]
    AuditDiffers {
        /// How many.
        different: usize,
        /// Of how many.
        total: usize,
    },
    /// Stages do not form a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A result could not be written as text.
    #[error("cannot write the result")]
    Render {
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Nothing could be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A model cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Model {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        source: EvalError,
    },
    /// A policy cannot be used.
    #[error(transparent)]
    Augment(#[from] AugmentError),
    /// An image cannot be used.
    #[error("`{}` cannot be used: {reason}", path.display())]
    Image {
        /// Which one.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// `predict` went on without some images; each was named.
    #[error("{failed} of {total} images could not be used")]
    ImagesFailed {
        /// How many.
        failed: u64,
        /// Of how many.
        total: u64,
    },
    /// The user ended a command that runs until then.
    #[error("stopped")]
    Stopped {
        /// By which signal.
        signal: i32,
    },
    /// Whoever read our output has heard enough.
    #[error("nobody reads the output any more")]
    BrokenPipe,
}

impl Error {
    /// A usage error.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    /// The exit code of the process; see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Stopped { signal } => 128 + u8::try_from(*signal).unwrap_or(2),
            Self::Runner(error) => runner_code(error),
            Self::Usage { .. } | Self::Augment(AugmentError::Config { .. } | AugmentError::TooLarge { .. }) => 2,
            Self::Bench(error) => bench_code(error),
            Self::Config(_) | Self::Graph(_) => 3,
            Self::Lockfile(error) => lockfile_code(error),
            Self::Cache(error) => cache_code(error),
            Self::CacheDamaged { .. } => 5,
            Self::AuditDiffers { .. } => 7,
            Self::Model { source: EvalError::Io { .. }, .. }
            | Self::Augment(AugmentError::Io { .. })
            | Self::Fs(_)
            | Self::Render { .. } => 6,
            Self::Model { .. }
            | Self::Augment(AugmentError::Format { .. })
            | Self::Image { .. }
            | Self::ImagesFailed { .. } => 4,
        }
    }

    /// What the user can do, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Runner(error) => error.help(),
            Self::Cache(error) => error.help().map(str::to_owned),
            Self::Fs(error) => error.help().map(str::to_owned),
            Self::Lockfile(error) => error.help().map(str::to_owned),
            Self::Usage { help, .. } => help.clone(),
            Self::Augment(error) => error.help().map(str::to_owned),
            Self::Image { .. } => Some("JPEG, PNG, BMP, GIF, TIFF and WebP files are images".into()),
            Self::Bench(error) => error.help(),
            Self::Model { .. } => Some("`simsiam-pipe run` makes a stage's artifact again".into()),
            Self::CacheDamaged { .. } => {
                Some("`simsiam-pipe cache verify --repair` removes them; the next run makes them again".into())
            }
            Self::AuditDiffers { .. } => Some(
                "the cache keeps what it has; another processor may compute other last bits, and a `command` stage may \
                 use the clock, random numbers or files that it does not declare"
                    .into(),
            ),
            Self::Config(_) | Self::Graph(_) | Self::Render { .. } | Self::ImagesFailed { .. } | Self::Stopped { .. } | Self::BrokenPipe => {
                None
            }
        }
    }
}

fn runner_code(error: &RunnerError) -> u8 {
    match error {
        RunnerError::StagesFailed { failures } => {
            // Several failures of one sort are of that sort.
            let codes: BTreeSet<u8> = failures.iter().map(|failure| failure_code(&failure.error)).collect();
            if codes.len() == 1 { codes.into_iter().next().unwrap_or(1) } else { 1 }
        }
        RunnerError::UnknownStage { .. }
        | RunnerError::ForcedOutside { .. }
        | RunnerError::NotUpToDate { .. }
        | RunnerError::TargetTaken { .. } => 2,
        RunnerError::Parameters(_) | RunnerError::Graph(_) => 3,
        RunnerError::Lockfile(error) => lockfile_code(error),
        RunnerError::Sources { .. } => 4,
        RunnerError::Cache(error) => cache_code(error),
        RunnerError::Fs(_) => 6,
        RunnerError::Cancelled { signal } => 128 + u8::try_from(*signal).unwrap_or(2),
    }
}

fn failure_code(cause: &FailureCause) -> u8 {
    match cause {
        FailureCause::Stage(StageError::Data { .. }) => 4,
        FailureCause::Stage(StageError::Artifact { .. }) => 5,
        FailureCause::Stage(StageError::Io { .. }) => 6,
        FailureCause::Stage(_)
        | FailureCause::SourceChanged { .. }
        | FailureCause::InputChanged { .. }
        | FailureCause::Panic { .. } => 1,
        FailureCause::Cache(error) => cache_code(error),
        FailureCause::Runner(error) => runner_code(error),
    }
}

fn lockfile_code(error: &LockfileError) -> u8 {
    match error {
        LockfileError::Fs(_) => 6,
        LockfileError::Invalid { .. } | LockfileError::Newer { .. } => 3,
    }
}

fn bench_code(error: &BenchError) -> u8 {
    match error {
        BenchError::Model(_)
        | BenchError::Augment(AugmentError::Config { .. } | AugmentError::TooLarge { .. })
        | BenchError::Data(DataError::Config { .. })
        | BenchError::NotFinite { .. } => 2,
        BenchError::Data(DataError::Source { .. } | DataError::Artifact { .. }) | BenchError::Image { .. } => 4,
        BenchError::Data(DataError::Io { .. } | DataError::Cancelled)
        | BenchError::Augment(_)
        | BenchError::Temporary(_) => 6,
    }
}

fn cache_code(error: &CacheError) -> u8 {
    match error {
        CacheError::Fs(_) => 6,
        CacheError::BadOutput { .. } => 1,
        CacheError::NewerFormat { .. } | CacheError::Damaged { .. } | CacheError::NoArtifact { .. } => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_in_the_table() {
        let errors = [
            Error::Runner(RunnerError::StagesFailed { failures: vec![] }),
            Error::usage("", ""),
            Error::Graph(GraphError::DuplicateName("a".into())),
            Error::Runner(RunnerError::Sources { problems: vec![], project_root: "/".into() }),
            Error::ImagesFailed { failed: 1, total: 2 },
            Error::CacheDamaged { count: 1 },
            Error::AuditDiffers { different: 1, total: 2 },
            Error::Fs(FsError { action: "read", path: "/".into(), source: std::io::Error::other("x") }),
            Error::Runner(RunnerError::Cancelled { signal: 2 }),
            Error::Runner(RunnerError::Cancelled { signal: 15 }),
            Error::BrokenPipe,
        ];
        let codes: Vec<_> = errors.iter().map(Error::exit_code).collect();
        assert_eq!(codes, [1, 2, 3, 4, 4, 5, 7, 6, 130, 143, 0]);
        for code in codes {
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}");
        }
    }

    #[test]
    fn the_document_has_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
        let text = String::from_utf8(crate::fs::files::read(&path).unwrap()).unwrap();
        let (_, table) = EXIT_CODES.split_once('\n').unwrap();
        assert!(text.contains(table), "`docs/cli.md` lacks the table of exit codes");
    }
}
