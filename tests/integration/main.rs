//! Behaviour through the command line, one module per feature.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bad_input;
mod cache;
mod commands;
mod concurrent;
mod crash;
mod device;
mod errors;
mod export;
mod fixture;
mod hands_off;
mod incremental;
mod interchange;
mod interrupt;
mod isolate;
mod json;
mod matrix;
mod models;
mod page;
mod predict;
mod resume;
mod run;
mod shared;
mod sources;
mod stages;
mod terminal;
mod view;
