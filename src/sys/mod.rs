//! The clock, the machine, processes and git: what the standard library lacks.

pub mod clock;
pub mod git;
pub mod machine;
pub mod process;

pub use clock::{Timestamp, now_ns};
pub use git::GitState;
pub use machine::{available_memory_bytes, free_disk_bytes, host_name, memory_bytes, peak_rss_bytes, reset_peak_rss};
pub use process::{GroupGuard, WatchedChild, isolate_child, kill_group};
