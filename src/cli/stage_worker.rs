//! `stage-worker`: executes one stage that another process describes; not for people.

use std::{
    io::{self, BufReader},
    path::{Path, PathBuf},
    process,
};

use super::{Session, run::RealExecutor};
use crate::{
    error::Error,
    fs::FsError,
    runner::{IsolatedExecutor, worker},
};

const NAME: &str = "stage-worker";

/// Executes stages in processes that run this subcommand.
///
/// # Errors
/// When the system does not say which program this is.
pub fn executor() -> Result<IsolatedExecutor, Error> {
    // The running program itself, even if a newer one has taken its name meanwhile.
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() {
        PathBuf::from(running)
    } else {
        std::env::current_exe().map_err(FsError::at("find", Path::new("simsiam-pipe")))?
    };
    Ok(IsolatedExecutor { program, arguments: vec![NAME.into()] })
}

/// Executes the stage whose description comes on stdin, and says on stdout what becomes of it.
///
/// # Errors
/// When nobody listens.
pub fn run(session: &Session) -> Result<(), Error> {
    let start_threads = |threads| session.start_threads_unless_asked(threads);
    // Nobody would take the result.
    let orphaned = || process::exit(1);
    worker::work(BufReader::new(io::stdin()), io::stdout(), &RealExecutor::default(), &start_threads, orphaned)
        .map_err(FsError::at("write", Path::new("stdout")))?;
    Ok(())
}
