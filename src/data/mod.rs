//! Images: sources, decoding, the memory-mapped store.

pub mod ingest_config;

pub use ingest_config::{IngestConfig, SourceConfig};
