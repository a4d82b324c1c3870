//! Tensor operations that dfdx lacks, or has only as slow scalar code, each with its gradient.
//!
//! All of them work on matrices with a row for each image. They follow one pattern (an operation from outside
//! dfdx cannot borrow two gradients at once): take the tape off, compute on slices, put the result into a new
//! tensor, and in the backward closure read the output's gradient by a copy before the input's gradient is
//! borrowed.

pub mod batch_norm;
pub mod cross_entropy;
pub mod linear;
pub mod negative_cosine_similarity;
pub mod parameters;

use dfdx::prelude::{Cpu, HasShape, Tensor, TensorFromVec};

/// A matrix [rows, columns] on the CPU; `T` is the tape.
pub type Matrix<T = dfdx::prelude::NoneTape> = Tensor<(usize, usize), f32, Cpu, T>;

/// The values of a matrix, row by row.
pub fn matrix_values<T>(matrix: &Matrix<T>) -> Vec<f32> {
    let (rows, columns) = *matrix.shape();
    let mut values = vec![0.0; rows * columns];
    matrix.copy_into(&mut values);
    values
}

/// A matrix of these values, row by row; `values` holds rows · columns numbers.
pub fn matrix_from_values(device: &Cpu, values: Vec<f32>, rows: usize, columns: usize) -> Matrix {
    device.tensor_from_vec(values, (rows, columns))
}
