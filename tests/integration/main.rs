//! Behaviour through the command line, one module per feature.
