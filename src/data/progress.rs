//! Whom a long operation on data tells how it goes.

/// Whom a long operation tells how it goes.
pub trait Progress: Sync {
    /// `done` of `total` images are done.
    fn images(&self, done: u64, total: u64);
    /// Something worth a line.
    fn info(&self, message: &str);
    /// Something that the user should know.
    fn warn(&self, message: &str);
    /// Whether to stop.
    fn is_cancelled(&self) -> bool;
}

/// Hears nothing, for tests and one-off calls.
pub struct NoProgress;

impl Progress for NoProgress {
    fn images(&self, _done: u64, _total: u64) {}
    fn info(&self, _message: &str) {}
    fn warn(&self, _message: &str) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}
