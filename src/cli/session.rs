//! What a command needs to know about the outside: project, cache, terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{GlobalArgs, args::ColorWhen};
use crate::{
    cache::{Layout, Project, Store},
    error::Error,
    fs::FsError,
    runner::{
        RunEvent, RunObserver, RunnerError,
        console::{Console, ConsoleStyle, JsonLines, Paint},
        event::Mistake,
        runner_error::chain,
    },
};

/// One call of the program.
#[derive(Clone, Debug)]
pub struct Session {
    global: GlobalArgs,
}

impl Session {
    /// With these global arguments.
    pub fn new(global: &GlobalArgs) -> Self {
        Self { global: global.clone() }
    }

    /// Changes to the folder after `-C`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn enter_directory(&self) -> Result<(), Error> {
        if let Some(directory) = &self.global.directory {
            std::env::set_current_dir(directory).map_err(FsError::at("enter", directory))?;
        }
        Ok(())
    }

    /// Starts the one pool of threads that all stages share.
    pub fn start_threads(&self) {
        if let Some(threads) = self.global.threads {
            // Fails only where a pool runs already, which then stays.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads)).build_global();
        }
    }

    /// Starts the pool with this many threads, unless the command line has said how many.
    pub fn start_threads_unless_asked(&self, threads: usize) {
        if self.global.threads.is_none() {
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
    }

    /// Whether stdout is for programs.
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// How talkative to be.
    pub fn verbosity(&self) -> i8 {
        if self.global.quiet { -1 } else { i8::try_from(self.global.verbose).unwrap_or(i8::MAX) }
    }

    /// The project around the current folder.
    ///
    /// # Errors
    /// When a given folder does not exist.
    pub fn project(&self) -> Result<Project, Error> {
        let from_env = std::env::var_os("SIMSIAM_PIPE_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let cache_dir = self.global.cache_dir.clone().or(from_env);
        Ok(Project::find(Path::new("."), self.global.project_root.as_deref(), cache_dir.as_deref())?)
    }

    /// The project and its cache.
    ///
    /// # Errors
    /// When a given folder does not exist or a newer version made the cache.
    pub fn open(&self) -> Result<(Project, Store), Error> {
        let project = self.project()?;
        let store = Store::open(Layout::new(&project.cache_dir))?;
        Ok((project, store))
    }

    /// Who shows the events of a run.
    pub fn observer(&self) -> Box<dyn RunObserver> {
        if self.json() {
            Box::new(JsonLines)
        } else {
            let stderr = io::stderr().is_terminal();
            Box::new(Console::new(ConsoleStyle {
                color: self.color(stderr),
                progress: stderr && !wants_plain_lines(),
                verbosity: self.verbosity(),
            }))
        }
    }

    fn color(&self, terminal: bool) -> bool {
        match self.global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => terminal && !wants_no_color(),
        }
    }

    /// Colours for stdout.
    pub fn paint(&self) -> Paint {
        Paint(self.color(io::stdout().is_terminal()))
    }

    /// Whether stderr takes colours.
    pub fn stderr_color(&self) -> bool {
        self.color(io::stderr().is_terminal())
    }

    /// Writes text to stdout.
    ///
    /// # Errors
    /// When it cannot be written; [`Error::BrokenPipe`] if nobody reads it any more.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::BrokenPipe,
            _ => FsError { action: "write", path: "stdout".into(), source: error }.into(),
        })
    }

    /// Writes a value to stdout as one JSON document.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(value).map_err(|source| Error::Render { source })?;
        text.push('\n');
        self.print(&text)
    }

    /// Tells people, on stderr, what is no result.
    pub fn note(&self, text: &str) {
        if self.verbosity() >= 0 {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Warns, on stderr or as an event.
    pub fn warn(&self, message: &str) {
        self.observer().on_event(&RunEvent::Warning { message: message.to_owned() });
    }

    /// Says why a command failed.
    pub fn report(&self, error: &Error) {
        if matches!(error, Error::BrokenPipe | Error::Stopped { .. }) {
            return;
        }
        if let Error::Config(errors) = error
            && !self.json()
        {
            let width = std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok()).unwrap_or(100);
            let _ = writeln!(io::stderr(), "{}", errors.render(self.stderr_color(), width).trim_end());
            return;
        }
        let message = match error {
            // Its lines are complete sentences, one for each stage or source.
            Error::Runner(RunnerError::StagesFailed { .. } | RunnerError::Sources { .. }) => error.to_string(),
            error => chain(error),
        };
        let mistakes = match error {
            Error::Config(errors) => errors.records().into_iter().map(Mistake::from).collect(),
            _ => vec![],
        };
        let (help, exit_code) = (error.help(), error.exit_code());
        self.observer().on_event(&RunEvent::Error { message, help, exit_code, mistakes });
    }
}

/// Whether the environment asks for lines that stay where they are: logs of CI, terminals that cannot move the cursor.
fn wants_plain_lines() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    is_dumb || std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Whether the environment asks for text without colours (<https://no-color.org>, or plain lines altogether).
pub(super) fn wants_no_color() -> bool {
    wants_plain_lines() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
