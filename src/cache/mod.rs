//! The content-addressed store: artifacts under the digest of their content, entries under the fingerprint
//! that led to them.

pub mod artifact;
pub mod cache_error;
mod condition;
pub mod entry;
pub mod gc;
pub mod history;
pub mod layout;
pub mod source_index;
pub mod store;
pub mod tree_diff;
mod tree_index;
pub mod verify;
pub mod workspace;

pub use artifact::{FileRecord, Manifest};
pub use cache_error::CacheError;
pub use entry::{CacheEntry, Provenance};
pub use layout::{Layout, Project};
pub use source_index::{SourceContent, Sources};
pub use store::{CacheStatus, Store};
pub use tree_diff::TreeDiff;
pub use workspace::Workspace;
