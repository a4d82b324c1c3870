//! The only module through which cache, runner and command line touch the file system.
//!
//! Every error names what was tried and on which path.

mod fault;
pub mod files;
mod folder;
pub mod fs_error;
pub mod lock;
pub mod shared;
pub mod sums;
mod temporary;
pub mod tree;
pub mod walk;

pub use folder::{Folder, Found};
pub use fs_error::FsError;
pub use lock::{LockFile, LockHolder};
pub use temporary::{ReplacingFile, TemporaryDir, sweep_temporaries};
pub use walk::{FileStat, Ignore, SubFolder, WalkedFile, walk, walk_folders};
