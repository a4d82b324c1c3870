//! Models and embeddings in the formats of other programs.

pub mod embedding_table;
pub mod onnx;
mod onnx_graph;
mod onnx_proto;
pub mod preprocessing_text;
pub mod projector;

pub use embedding_table::write_csv;
pub use onnx::onnx_model;
pub use preprocessing_text::describe;
