//! The networks and the method.

pub mod backbone;
pub mod predictor;
pub mod projector;
