//! The command line: clap arguments and one file for each subcommand.

pub mod args;
pub mod audit;
pub mod augment;
pub mod bench;
pub mod bench_stage;
pub mod cache;
mod compare;
pub mod completions;
mod destination;
pub mod doctor;
pub mod embed;
pub mod explain;
pub mod export;
pub mod graph;
pub mod image_stream;
pub mod init;
pub mod load;
pub mod log;
pub mod metrics;
pub mod plan;
pub mod predict;
pub mod run;
pub mod schema;
pub mod session;
pub mod similar;
mod spread;
pub mod stage_worker;
pub mod status;
pub mod table;
pub mod view;

pub use args::{Args, Command, GlobalArgs, PipelineArgs, parse, run};
pub use session::Session;
