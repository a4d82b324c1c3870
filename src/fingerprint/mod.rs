//! What decides a stage's output: a typed, sorted, versioned record.
