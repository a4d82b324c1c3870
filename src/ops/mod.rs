//! Tensor operations that dfdx lacks.
