//! Plans and executes a run.
