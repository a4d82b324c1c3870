//! Images: sources, decoding, the memory-mapped store, batches.
//!
//! ```text
//! ImageSource (folder, manifest, arrays, archives, synthetic scenes) ─ ingest ─▶ StoreWriter ─▶ pixels/, images.safetensors, dataset.json
//! Dataset (memory maps) ─ Policy ─▶ BatchLoader ─▶ the views of each image
//! ```

pub mod arrays;
pub mod cifar;
mod class_names;
pub mod data_error;
pub mod dataset;
pub mod dataset_card;
pub mod decode;
#[cfg(test)]
mod decode_tests;
pub mod earlier_images;
#[cfg(test)]
mod earlier_images_tests;
pub mod evaluation_loader;
#[cfg(any(test, feature = "fuzzing"))]
pub mod hostile;
pub mod image_folder;
pub mod image_source;
mod image_table;
pub mod ingest;
pub mod ingest_config;
pub mod ingest_sample;
#[cfg(test)]
mod ingest_tests;
mod jpeg;
pub mod labelled_loader;
pub mod loader;
#[cfg(test)]
mod loader_tests;
pub mod manifest;
#[cfg(test)]
mod mutation_tests;
mod npy_header;
pub mod pixel_digests;
mod pixel_sums;
mod prefetch;
pub mod progress;
mod record_file;
pub mod runs;
pub mod scenes;
pub mod source_config;
#[cfg(test)]
mod source_tests;
pub mod store_writer;
pub mod subset;
pub mod tar_shards;

pub use crate::augment::ImageRef;
pub use data_error::DataError;
pub use dataset::Dataset;
pub use dataset_card::{DatasetCard, SkippedFile};
pub use earlier_images::EarlierImages;
pub use evaluation_loader::load_evaluation_views;
pub use ingest::ingest;
pub use ingest_config::IngestConfig;
pub use ingest_sample::IngestSample;
pub use labelled_loader::{LabelledBatch, LabelledLoader, ViewSource};
pub use loader::{BatchLoader, ViewBatch};
pub use progress::{NoProgress, Progress};
pub use source_config::SourceConfig;
