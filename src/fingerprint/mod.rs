//! What decides a stage's output: a typed, sorted, versioned record.
//!
//! The digest of the record is the cache key; its fields are what `plan` and `explain` compare.

pub mod canonical;
pub mod diff;
#[cfg(test)]
mod property_tests;
pub mod stage_fingerprint;

pub use diff::FieldChange;
pub use stage_fingerprint::{FINGERPRINT_VERSION, StageFingerprint};
