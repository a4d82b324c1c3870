//! `schema`: the JSON Schema of a file format.

use clap::ValueEnum;

use super::Session;
use crate::{config::render_schema, error::Error, lockfile::Lockfile, runner::event::EventLine};

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// Which format.
    #[arg(value_enum)]
    pub format: Format,
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Pipeline files.
    Pipeline,
    /// Lockfiles.
    Lockfile,
    /// The lines of `run --json`.
    Events,
}

/// Prints the schema.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &SchemaArgs, session: &Session) -> Result<(), Error> {
    let schema = match args.format {
        Format::Pipeline => return session.print(&render_schema()),
        Format::Lockfile => schemars::schema_for!(Lockfile),
        Format::Events => schemars::schema_for!(EventLine<'_>),
    };
    session.print_json(&schema.to_value())
}
