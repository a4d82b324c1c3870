//! What CPU kernels are built of: registers, the choice of an instruction set, packed matrix products.
//!
//! Work is cut into blocks that depend on shapes alone, and each output is computed by one task in a fixed order: the
//! bits do not depend on the number of threads.

#[cfg(target_arch = "x86_64")]
mod gemm_kernel;
pub(crate) mod matrix;
mod multiversion;
pub(crate) mod product;
#[cfg(test)]
pub(crate) mod reference;
pub(crate) mod scratch;
pub(crate) mod shared_mut;
pub(crate) mod transpose;
pub(crate) mod vector;

pub(crate) use multiversion::{Simd, multiversion, simd};
