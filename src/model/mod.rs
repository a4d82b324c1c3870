//! The networks and the method.

pub mod backbone;
pub mod embedding_std;
pub mod head;
pub mod predictor;
pub mod projector;
pub mod simsiam;
pub mod state;
pub mod weights;

#[cfg(any(test, feature = "cuda"))]
pub(crate) mod simsiam_golden;
