//! The YAML file format and nothing else.

pub mod pipeline;

pub use pipeline::{Pipeline, Place, Stage};
