//! The YAML file format and nothing else.
//!
//! ```text
//! bytes ─ load ─▶ Node ─ overrides (--set) ─ substitute (${…}), cells (matrix) ─▶ Cells ─ validate ─▶ Pipeline
//!                                                                    schema ─ walk ─┘
//! ```
//!
//! Nothing here reads a file, a clock or the process's environment, and nothing stops at the first mistake:
//! every step adds to one list of [`ConfigError`]s, each with its place.

mod axes;
pub mod cell;
mod cells;
pub mod config_error;
pub mod cycles;
mod findings;
mod hints;
mod inputs;
mod load;
mod node;
mod overrides;
mod parents;
pub mod pipeline;
mod references;
pub mod resolved;
mod scalar;
pub mod schema;
mod semantics;
mod source;
mod stage_check;
mod substitute;
mod suggest;
#[cfg(test)]
mod tests;
mod validate;
mod walk;
mod warnings;

pub use cell::CellName;
pub use config_error::{ConfigError, ConfigErrors, ConfigWarning, ErrorRecord};
pub use pipeline::{Pipeline, Place, Stage};
pub use resolved::render_resolved;
pub use schema::{editor_schema, render_schema};
pub use validate::{LoadedPipeline, load_pipeline};
