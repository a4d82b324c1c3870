//! Throughput of this machine, measured on the code that pipelines run: one training step, extraction, views,
//! ingest.

pub mod augment;
pub mod bench_error;
pub mod extract;
pub mod ingest;
pub mod kernels;
pub mod machine;
pub mod measurement;
pub mod train;

pub use bench_error::BenchError;
pub use measurement::Measurement;
