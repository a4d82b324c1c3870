//! The `simsiam-pipe` binary: parse, run, print the error, choose the exit code.

fn main() {}
