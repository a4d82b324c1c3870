//! Behaviour through the command line, one module per feature.

mod cache;
mod commands;
mod errors;
mod fixture;
mod interrupt;
mod json;
mod run;
