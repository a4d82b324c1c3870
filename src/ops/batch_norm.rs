//! Batch norm of a matrix, with or without scale and shift, with or without a ReLU after it.
//!
//! dfdx's `BatchNorm1D` always has scale and shift, which the projector's last layer must not have (paper,
//! section 4.1), and its CPU kernel is scalar code: about 12 ns an element forward and 26 backward.

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, SplitTape, Tape};
use rayon::prelude::*;

use super::{Matrix, matrix_from_values, matrix_values};

/// Added to the variance, as in PyTorch.
pub const EPSILON: f32 = 1e-5;
/// Share of the new batch in the running statistics, as in PyTorch.
pub const MOMENTUM: f32 = 0.1;
/// Columns that one task works on: fixed, so that the number of threads changes nothing.
const COLUMN_BLOCK: usize = 128;

/// Running mean and (unbiased) variance of each column, used where nothing is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStats {
    /// Mean of each column.
    pub mean: Vec<f32>,
    /// Variance of each column.
    pub var: Vec<f32>,
    /// Batches seen.
    pub num_batches: i64,
}

impl RunningStats {
    /// Mean 0 and variance 1 for `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self { mean: vec![0.0; columns], var: vec![1.0; columns], num_batches: 0 }
    }

    fn update(&mut self, mean: &[f32], var: &[f32], n: usize) {
        // PyTorch keeps the unbiased variance although it normalises with the biased one.
        let unbiased = n as f32 / (n as f32 - 1.0).max(1.0);
        for (running, new) in self.mean.iter_mut().zip(mean) {
            *running += MOMENTUM * (new - *running);
        }
        for (running, new) in self.var.iter_mut().zip(var) {
            *running += MOMENTUM * (new * unbiased - *running);
        }
        self.num_batches += 1;
    }
}

/// Scale and shift, each [1, d].
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// γ
    pub scale: &'a Matrix,
    /// β
    pub shift: &'a Matrix,
}

/// Batch norm of x [n, d] with the statistics of the batch, then scale and shift if given, then ReLU if asked.
/// Updates the running statistics.
///
/// # Errors
/// As dfdx: no memory.
pub fn batch_norm<T: Tape<f32, Cpu>>(
    x: Matrix<T>,
    affine: Option<Affine<'_>>,
    relu: bool,
    running: &mut RunningStats,
) -> Result<Matrix<T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let (n, d) = *x.shape();
    let values = matrix_values(&x);
    let (mean, var) = column_statistics(&values, d);
    running.update(&mean, &var, n);
    let inv_std: Vec<f32> = var.iter().map(|var| 1.0 / (var + EPSILON).sqrt()).collect();
    let scale = affine.map_or_else(|| vec![1.0; d], |affine| matrix_values(affine.scale));
    let shift = affine.map_or_else(|| vec![0.0; d], |affine| matrix_values(affine.shift));
    let y = normalized_rows(&values, &mean, &inv_std, &scale, &shift, relu);
    let out = matrix_from_values(x.device(), y, n, d);

    let (x_ghost, out_ghost) = (x.ghost(), out.ghost());
    let affine_ghosts = affine.map(|affine| (affine.scale.ghost(), affine.shift.ghost()));
    let saved_out = out.clone();
    tape.add_backward_op(move |gradients| {
        gradients.try_alloc_for(&out_ghost)?;
        let mut grad_y = matrix_values(&gradients.get(&out_ghost));
        if relu {
            let y = matrix_values(&saved_out);
            grad_y.iter_mut().zip(&y).for_each(|(grad, y)| *grad = if *y > 0.0 { *grad } else { 0.0 });
        }
        let (sum, sum_xhat) = gradient_sums(&values, &grad_y, &mean, &inv_std);
        if let Some((scale_ghost, shift_ghost)) = &affine_ghosts {
            let grad_scale = gradients.get_or_alloc_mut(scale_ghost)?;
            grad_scale.iter_mut().zip(&sum_xhat).for_each(|(grad, sum)| *grad += sum);
            let grad_shift = gradients.get_or_alloc_mut(shift_ghost)?;
            grad_shift.iter_mut().zip(&sum).for_each(|(grad, sum)| *grad += sum);
        }
        // dx = γ/σ · (dy − mean(dy) − x̂ · mean(dy · x̂))
        let grad_x = gradients.get_or_alloc_mut(&x_ghost)?;
        let inv_n = 1.0 / n as f32;
        let rows = grad_x.par_chunks_exact_mut(d).zip(values.par_chunks_exact(d)).zip(grad_y.par_chunks_exact(d));
        rows.for_each(|((grad_x, x), grad_y)| {
            for column in 0..d {
                let xhat = (x[column] - mean[column]) * inv_std[column];
                let centred = grad_y[column] - inv_n * (sum[column] + xhat * sum_xhat[column]);
                grad_x[column] += scale[column] * inv_std[column] * centred;
            }
        });
        Ok(())
    });
    Ok(out.put_tape(tape))
}

/// Batch norm of x [n, d] with the running statistics, then scale and shift if given, then ReLU if asked.
pub fn batch_norm_frozen(x: &Matrix, affine: Option<Affine<'_>>, relu: bool, running: &RunningStats) -> Matrix {
    let (n, d) = *x.shape();
    let inv_std: Vec<f32> = running.var.iter().map(|var| 1.0 / (var + EPSILON).sqrt()).collect();
    let scale = affine.map_or_else(|| vec![1.0; d], |affine| matrix_values(affine.scale));
    let shift = affine.map_or_else(|| vec![0.0; d], |affine| matrix_values(affine.shift));
    let y = normalized_rows(&matrix_values(x), &running.mean, &inv_std, &scale, &shift, relu);
    matrix_from_values(x.device(), y, n, d)
}

/// Mean and biased variance of each column, in two passes.
fn column_statistics(values: &[f32], d: usize) -> (Vec<f32>, Vec<f32>) {
    let n = (values.len() / d) as f32;
    let (mut mean, mut var) = (vec![0.0_f32; d], vec![0.0_f32; d]);
    let blocks = mean.par_chunks_mut(COLUMN_BLOCK).zip(var.par_chunks_mut(COLUMN_BLOCK)).enumerate();
    blocks.for_each(|(block_idx, (mean, var))| {
        let columns = block_idx * COLUMN_BLOCK..block_idx * COLUMN_BLOCK + mean.len();
        for row in values.chunks_exact(d) {
            mean.iter_mut().zip(&row[columns.clone()]).for_each(|(sum, x)| *sum += x);
        }
        for sum in mean.iter_mut() {
            *sum /= n;
        }
        for row in values.chunks_exact(d) {
            for ((sum, x), mean) in var.iter_mut().zip(&row[columns.clone()]).zip(mean.iter()) {
                *sum += (x - mean) * (x - mean);
            }
        }
        for sum in var.iter_mut() {
            *sum /= n;
        }
    });
    (mean, var)
}

fn normalized_rows(
    values: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    scale: &[f32],
    shift: &[f32],
    relu: bool,
) -> Vec<f32> {
    let d = mean.len();
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let mut y = vec![0.0; values.len()];
    y.par_chunks_exact_mut(d).zip(values.par_chunks_exact(d)).for_each(|(y, x)| {
        for column in 0..d {
            let xhat = (x[column] - mean[column]) * inv_std[column];
            let value = xhat * scale[column] + shift[column];
            // Not `max`, which would turn NaN into 0 and hide a training that has gone wrong.
            y[column] = if value < floor { floor } else { value };
        }
    });
    y
}

/// Σ dy and Σ dy · x̂ of each column.
fn gradient_sums(values: &[f32], grad_y: &[f32], mean: &[f32], inv_std: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let d = mean.len();
    let (mut sum, mut sum_xhat) = (vec![0.0_f32; d], vec![0.0_f32; d]);
    let blocks = sum.par_chunks_mut(COLUMN_BLOCK).zip(sum_xhat.par_chunks_mut(COLUMN_BLOCK)).enumerate();
    blocks.for_each(|(block_idx, (sum, sum_xhat))| {
        let first = block_idx * COLUMN_BLOCK;
        for (x, grad_y) in values.chunks_exact(d).zip(grad_y.chunks_exact(d)) {
            for (offset, (sum, sum_xhat)) in sum.iter_mut().zip(sum_xhat.iter_mut()).enumerate() {
                let column = first + offset;
                *sum += grad_y[column];
                *sum_xhat += grad_y[column] * (x[column] - mean[column]) * inv_std[column];
            }
        }
    });
    (sum, sum_xhat)
}
