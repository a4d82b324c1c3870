//! The graph of stages: pure petgraph.
