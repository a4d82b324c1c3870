//! The graph of stages: pure petgraph. What runs before what, what follows from what, and pictures of it.

pub mod export;
pub mod graph_error;
mod layout;
pub mod stage_graph;
mod svg;

pub use export::{dot, mermaid};
pub use graph_error::GraphError;
pub use stage_graph::StageGraph;
pub use svg::{BoxWords, inline_svg, svg};
