//! `completions`: a completion script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Args, Session};
use crate::error::Error;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe completions bash > ~/.local/share/bash-completion/completions/simsiam-pipe\n  \
                        simsiam-pipe completions zsh > ~/.zfunc/_simsiam-pipe"
)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &CompletionsArgs, session: &Session) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "simsiam-pipe", &mut script);
    session.print(&String::from_utf8_lossy(&script))
}
