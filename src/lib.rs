//! `simsiam-pipe`: declarative, cached, reproducible self-supervised image pretraining.
//!
//! ```text
//! pipeline.yaml ─ config ─▶ Pipeline ─ graph ─▶ StageGraph ─ runner ─▶ plan ─▶ execute ─▶ report
//!                                                  fingerprint ──┘  │            │
//!                                                  cache ◀──────────┘            ▼
//!                                                            stage ─▶ data augment model train eval report
//! ```
//!
//! Modules in reading order; `docs/architecture.md` says who may import whom.

pub mod augment;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod compute;
pub mod config;
#[cfg(any(test, feature = "cuda"))]
pub mod cuda;
pub mod data;
pub mod digest;
pub mod error;
pub mod eval;
pub mod fingerprint;
pub mod fs;
pub mod graph;
pub mod interchange;
mod kernels;
pub mod lockfile;
pub mod model;
pub mod ops;
pub mod profile;
pub mod report;
pub mod runner;
#[cfg(test)]
pub mod schema_files;
pub mod seed;
pub mod stage;
pub mod sys;
pub mod train;
pub mod view;
