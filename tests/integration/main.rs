//! Behaviour through the command line, one module per feature.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bad_input;
mod cache;
mod commands;
mod errors;
mod fixture;
mod interrupt;
mod json;
mod predict;
mod resume;
mod run;
mod stages;
