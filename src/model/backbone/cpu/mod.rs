//! CPU kernels over channels-last `f32` slices. Work is cut into blocks that depend on shapes alone, each output
//! is computed by one task in a fixed order, and partial sums are added in block order: the bits do not depend on
//! the number of threads.

pub(crate) mod batch_norm;
pub(crate) mod conv;
#[cfg(test)]
mod conv_tests;
mod direct;
mod im2col;
#[cfg(test)]
mod norm_tests;
pub(crate) mod pool;
#[cfg(test)]
mod pool_tests;
pub(crate) mod pooled_norm;
#[cfg(test)]
mod pooled_norm_tests;
pub(crate) mod prepared;
#[cfg(test)]
mod reference;
mod stem;
#[cfg_attr(test, allow(unreachable_pub, reason = "a switch for comparisons"))]
pub(crate) mod winograd;
