//! Throughput of this machine, measured on the code that pipelines run: one training step, extraction, views
//! of files and of a dataset, ingest.

pub mod augment;
pub mod bench_error;
pub mod extract;
pub mod ingest;
pub mod kernels;
pub mod loader;
pub mod machine;
pub mod measurement;
pub mod train;

pub use bench_error::BenchError;
pub use measurement::Measurement;
