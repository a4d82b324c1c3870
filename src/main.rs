//! The `simsiam-pipe` binary: parse, run, print the error, choose the exit code.

use std::process::ExitCode;

use simsiam_pipe::cli;

fn main() -> ExitCode {
    let args = cli::parse();
    let session = cli::Session::new(&args.global);
    match cli::run(args, &session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            session.report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
