//! Why a run failed.

use std::path::PathBuf;

use crate::{
    cache::CacheError,
    config::{CellName, resolved::RenderError},
    fs::FsError,
    graph::GraphError,
    lockfile::LockfileError,
    stage::StageError,
};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A pattern that matches no stage.
    #[error("no stage matches `{pattern}`")]
    UnknownStage {
        /// As given.
        pattern: String,
        /// All stages.
        known: Vec<String>,
    },
    /// A stage to be executed in any case that does not take part.
    #[error("`{pattern}` is to be forced, but is not among the selected stages")]
    ForcedOutside {
        /// As given.
        pattern: String,
    },
    /// Files or folders outside the cache that are not there.
    #[error("{}", list(problems))]
    Sources {
        /// Each of them.
        problems: Vec<SourceProblem>,
        /// Where relative paths start.
        project_root: PathBuf,
    },
    /// Stages failed; others may have been finished.
    #[error("{}", list(failures))]
    StagesFailed {
        /// Each of them.
        failures: Vec<StageFailure>,
    },
    /// What is asked for needs artifacts that the cache does not hold.
    #[error("the cache does not hold what {} would leave now", names(stages))]
    NotUpToDate {
        /// Stages that `run` would execute.
        stages: Vec<String>,
    },
    /// A folder to be written is not empty.
    #[error("`{}` is there and is not an empty folder", path.display())]
    TargetTaken {
        /// The folder.
        path: PathBuf,
    },
    /// The user asked to stop.
    #[error("stopped on request; finished stages and checkpoints are kept")]
    Cancelled {
        /// SIGINT or SIGTERM.
        signal: i32,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Reading or writing failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The lockfile cannot be used.
    #[error(transparent)]
    Lockfile(#[from] LockfileError),
    /// A parameter that cannot be written down.
    #[error(transparent)]
    Parameters(#[from] RenderError),
    /// Stages do not form a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// A file or folder outside the cache that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProblem {
    /// `stages.train.with.source.image_folder`.
    pub key: String,
    /// `intel.yaml:12`, where known.
    pub place: Option<String>,
    /// As written.
    pub path: String,
    /// `does not exist`.
    pub problem: String,
}

impl std::fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "`{}`: `{}` {}", self.key, self.path, self.problem)
    }
}

/// A stage that failed.
#[derive(Debug)]
pub struct StageFailure {
    /// Which stage.
    pub stage: String,
    /// Why.
    pub error: FailureCause,
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
pub enum FailureCause {
    /// The stage says so.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The cache could not take or give what the stage needs.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Finding out what to do failed.
    #[error(transparent)]
    Runner(#[from] Box<RunnerError>),
    /// Somebody changed a source while the stage was reading it.
    #[error(
        "`{path}` (`{key}`) was changed while the stage ran, so its result belongs to neither state and is dropped"
    )]
    SourceChanged {
        /// Key path under the stage.
        key: String,
        /// As written.
        path: String,
    },
    /// Somebody changed an artifact while the stage was reading it.
    #[error("the output of `{stage}` was changed while this stage read it, so its result is dropped: {message}")]
    InputChanged {
        /// The stage that made it.
        stage: String,
        /// What is wrong with it.
        message: String,
    },
    /// A defect of this program.
    #[error("the stage panicked: {message}")]
    Panic {
        /// What the panic said.
        message: String,
    },
}

impl FailureCause {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Stage(StageError::Io { action, path, source }) => {
                let kind = std::io::Error::from(source.kind());
                FsError { action, path: path.clone(), source: kind }.help().map(str::to_owned)
            }
            Self::Stage(error) => error.help().map(str::to_owned),
            Self::Cache(error) => error.help().map(str::to_owned),
            Self::Runner(error) => error.help(),
            Self::InputChanged { .. } => {
                Some("run again: what was changed is kept aside, and the stage that made it runs anew".into())
            }
            Self::SourceChanged { .. } => Some("run again when nobody writes there any more".into()),
            Self::Panic { .. } => Some("this is a defect of simsiam-pipe: please report it with this message".into()),
        }
    }
}

impl std::fmt::Display for StageFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stage `{}` failed: {}", self.stage, chain(&self.error))
    }
}

impl RunnerError {
    /// What the user can do, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownStage { pattern, known } => Some(similar_stages(pattern, known)),
            Self::ForcedOutside { pattern } => {
                Some(format!("select it, too: `--stage {pattern}`, or `--from` a stage before it"))
            }
            Self::Sources { project_root, .. } => Some(format!(
                "relative paths start at the project root `{}`; change the path, put the files there, or choose \
                 another root with `--project-root`",
                project_root.display()
            )),
            Self::NotUpToDate { .. } => {
                Some("`simsiam-pipe run` makes it; `simsiam-pipe plan` says what is missing".to_owned())
            }
            Self::TargetTaken { .. } => Some("choose another folder, or remove that one".to_owned()),
            Self::StagesFailed { failures } => match &failures[..] {
                [failure] => failure.error.help(),
                _ => None,
            },
            Self::Cancelled { .. } => Some("the same command goes on where this one stopped".into()),
            Self::Cache(error) => error.help().map(str::to_owned),
            Self::Fs(error) => error.help().map(str::to_owned),
            Self::Lockfile(error) => error.help().map(str::to_owned),
            Self::Parameters(_) | Self::Graph(_) => None,
        }
    }
}

/// What was meant, perhaps, and what there is: stages, or the cells of the one that was named.
fn similar_stages(pattern: &str, known: &[String]) -> String {
    const MOST: usize = 14;
    let mut stages: Vec<&str> = known.iter().map(|name| CellName::parse(name).stage).collect();
    stages.dedup();
    let stage = CellName::parse(pattern).stage;
    let (what, names): (String, Vec<&str>) = if pattern.contains('@') && stages.contains(&stage) {
        let cells = known.iter().map(String::as_str).filter(|name| CellName::parse(name).stage == stage);
        (format!("the cells of `{stage}`"), cells.collect())
    } else {
        ("the stages".into(), stages)
    };
    let near = names
        .iter()
        .min_by_key(|name| strsim::damerau_levenshtein(name, pattern))
        .filter(|name| strsim::normalized_damerau_levenshtein(name, pattern) > 0.5 && !pattern.contains('@'));
    let near = near.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    let mut list: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    if names.len() > MOST {
        list.push(format!("{} more", names.len() - MOST));
    }
    format!("{near}{what} are {}", list.join(", "))
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn names(stages: &[String]) -> String {
    stages.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", ")
}
