//! Images: sources, decoding, the memory-mapped store.

pub mod dataset_card;
pub mod ingest_config;

pub use dataset_card::{DatasetCard, SkippedFile};
pub use ingest_config::{IngestConfig, SourceConfig};
