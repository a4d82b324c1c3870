//! Batch norm of a matrix, with or without scale and shift, with or without a ReLU after it.
//!
//! dfdx's `BatchNorm1D` always has scale and shift, which the projector's last layer must not have (paper,
//! section 4.1), and its CPU kernel is scalar code: about 12 ns an element forward and 26 backward.

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, SplitTape, Tape};
use rayon::prelude::*;

use super::parameters::{Parameters, TensorId};
use super::{Matrix, matrix_from_values, matrix_values};
use crate::kernels::multiversion;
use crate::profile::{Work, enter_layer, span};

/// Added to the variance, as in PyTorch.
pub const EPSILON: f32 = 1e-5;
/// Share of the new batch in the running statistics, as in PyTorch.
pub const MOMENTUM: f32 = 0.1;
/// Columns that one task works on: fixed, so that the number of threads changes nothing.
const COLUMN_BLOCK: usize = 128;
/// Rows that one task works on.
const ROW_BLOCK: usize = 8;

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

/// Scale and shift, each `[d]`.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    /// γ
    pub scale: TensorId,
    /// β
    pub shift: TensorId,
}

/// A batch norm: its trained tensors, if it has any, and what follows.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Scale and shift.
    pub affine: Option<Affine>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// What one view's rows were normalised with.
struct Statistics {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
}

impl BatchNorm {
    fn scale_and_shift(&self, parameters: &Parameters, d: usize) -> (Vec<f32>, Vec<f32>) {
        match self.affine {
            Some(Affine { scale, shift }) => (parameters.get(scale).to_vec(), parameters.get(shift).to_vec()),
            None => (vec![1.0; d], vec![0.0; d]),
        }
    }

    /// x [n, d] normalised with the statistics of the batch, scaled and shifted, then ReLU. The rows are `views` batches
    /// of equal size one after the other, each with statistics of its own, by which the running statistics are moved in
    /// turn.
    ///
    /// # Errors
    /// [`CpuError::WrongNumElements`] where the rows cannot be divided among the views.
    pub fn forward<T: Tape<f32, Cpu>>(
        &self,
        x: Matrix<T>,
        views: usize,
        parameters: &Parameters,
        running: &mut RunningStats,
    ) -> Result<Matrix<T>, CpuError> {
        let relu = self.relu;
        let (x, mut tape) = x.split_tape();
        let (rows, d) = *x.shape();
        if views == 0 || rows == 0 || !rows.is_multiple_of(views) || d != running.mean.len() {
            return Err(CpuError::WrongNumElements);
        }
        let n = rows / views;
        let values = matrix_values(&x);
        let (scale, shift) = self.scale_and_shift(parameters, d);
        let mut y = vec![0.0; values.len()];
        let mut statistics = vec![];
        span(Work::Norm, 0.0, || {
            for (values, y) in values.chunks_exact(n * d).zip(y.chunks_exact_mut(n * d)) {
                let (mean, var) = column_statistics(values, d);
                running.update(&mean, &var, n);
                let inv_std = inverse_deviations(&var);
                normalize(values, &mean, &inv_std, &scale, &shift, relu, y);
                statistics.push(Statistics { mean, inv_std });
            }
        });
        let out = matrix_from_values(x.device(), y, rows, d);

        let (x_ghost, out_ghost) = (x.ghost(), out.ghost());
        let affine = self.affine.map(|Affine { scale, shift }| (parameters.tensor(scale), parameters.tensor(shift)));
        let (saved_out, name) = (out.clone(), parameters.name());
        tape.add_backward_op(move |gradients| {
            enter_layer(name);
            gradients.try_alloc_for(&out_ghost)?;
            let mut grad_y = matrix_values(&gradients.get(&out_ghost));
            let grad_x = gradients.get_or_alloc_mut(&x_ghost)?;
            span(Work::NormGradient, 0.0, || {
                if relu {
                    let y = matrix_values(&saved_out);
                    grad_y.iter_mut().zip(&y).for_each(|(grad, y)| *grad = if *y > 0.0 { *grad } else { 0.0 });
                }
                let views = values.chunks_exact(n * d).zip(grad_y.chunks_exact(n * d));
                for (((x, grad_y), grad_x), statistics) in views.zip(grad_x.chunks_exact_mut(n * d)).zip(&statistics) {
                    let (sum, sum_xhat) = gradient_sums(x, grad_y, statistics);
                    if let Some((scale, shift)) = &affine {
                        scale.add_gradient(&sum_xhat);
                        shift.add_gradient(&sum);
                    }
                    input_gradient(x, grad_y, statistics, &scale, &sum, &sum_xhat, grad_x);
                }
            });
            Ok(())
        });
        Ok(out.put_tape(tape))
    }

    /// The same with the running statistics and without a tape.
    pub fn forward_frozen(&self, x: &Matrix, parameters: &Parameters, running: &RunningStats) -> Matrix {
        let (n, d) = *x.shape();
        let (scale, shift) = self.scale_and_shift(parameters, d);
        let values = matrix_values(x);
        let mut y = vec![0.0; values.len()];
        normalize(&values, &running.mean, &inverse_deviations(&running.var), &scale, &shift, self.relu, &mut y);
        matrix_from_values(x.device(), y, n, d)
    }
}

fn inverse_deviations(var: &[f32]) -> Vec<f32> {
    var.iter().map(|var| 1.0 / (var + EPSILON).sqrt()).collect()
}

/// Mean and biased variance of each column, in two passes.
fn column_statistics(values: &[f32], d: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut mean, mut var) = (vec![0.0_f32; d], vec![0.0_f32; d]);
    let blocks = mean.par_chunks_mut(COLUMN_BLOCK).zip(var.par_chunks_mut(COLUMN_BLOCK)).enumerate();
    blocks.for_each(|(idx, (mean, var))| block_statistics(values, d, idx * COLUMN_BLOCK, mean, var));
    (mean, var)
}

multiversion! {
    fn block_statistics(values: &[f32], d: usize, first: usize, mean: &mut [f32], var: &mut [f32]) {
        let n = (values.len() / d) as f32;
        for row in values.chunks_exact(d) {
            mean.iter_mut().zip(&row[first..]).for_each(|(sum, x)| *sum += x);
        }
        for sum in mean.iter_mut() {
            *sum /= n;
        }
        for row in values.chunks_exact(d) {
            for ((sum, x), mean) in var.iter_mut().zip(&row[first..]).zip(&*mean) {
                *sum += (x - mean) * (x - mean);
            }
        }
        for sum in var.iter_mut() {
            *sum /= n;
        }
    }
}

fn normalize(x: &[f32], mean: &[f32], inv_std: &[f32], scale: &[f32], shift: &[f32], relu: bool, y: &mut [f32]) {
    let block = ROW_BLOCK * mean.len();
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
    blocks.for_each(|(y, x)| normalize_rows(x, mean, inv_std, scale, shift, floor, y));
}

multiversion! {
    fn normalize_rows(
        x: &[f32],
        mean: &[f32],
        inv_std: &[f32],
        scale: &[f32],
        shift: &[f32],
        floor: f32,
        y: &mut [f32],
    ) {
        let d = mean.len();
        let (inv_std, scale, shift) = (&inv_std[..d], &scale[..d], &shift[..d]);
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            for column in 0..d {
                let value = (x[column] - mean[column]) * inv_std[column] * scale[column] + shift[column];
                // Not `max`, which would turn NaN into 0 and hide a training that has gone wrong.
                y[column] = if value < floor { floor } else { value };
            }
        }
    }
}

/// Σ dy and Σ dy · x̂ of each column.
fn gradient_sums(x: &[f32], grad_y: &[f32], statistics: &Statistics) -> (Vec<f32>, Vec<f32>) {
    let d = statistics.mean.len();
    let (mut sum, mut sum_xhat) = (vec![0.0_f32; d], vec![0.0_f32; d]);
    let blocks = sum.par_chunks_mut(COLUMN_BLOCK).zip(sum_xhat.par_chunks_mut(COLUMN_BLOCK)).enumerate();
    blocks.for_each(|(idx, (sum, sum_xhat))| {
        let first = idx * COLUMN_BLOCK;
        let (mean, inv_std) = (&statistics.mean[first..], &statistics.inv_std[first..]);
        block_gradient_sums(x, grad_y, d, first, mean, inv_std, sum, sum_xhat);
    });
    (sum, sum_xhat)
}

multiversion! {
    fn block_gradient_sums(
        x: &[f32],
        grad_y: &[f32],
        d: usize,
        first: usize,
        mean: &[f32],
        inv_std: &[f32],
        sum: &mut [f32],
        sum_xhat: &mut [f32],
    ) {
        let len = sum.len();
        let (mean, inv_std, sum_xhat) = (&mean[..len], &inv_std[..len], &mut sum_xhat[..len]);
        for (x, grad_y) in x.chunks_exact(d).zip(grad_y.chunks_exact(d)) {
            let (x, grad_y) = (&x[first..first + len], &grad_y[first..first + len]);
            for c in 0..len {
                sum[c] += grad_y[c];
                sum_xhat[c] += grad_y[c] * (x[c] - mean[c]) * inv_std[c];
            }
        }
    }
}

/// dx += γ/σ · (dy − mean(dy) − x̂ · mean(dy · x̂))
fn input_gradient(
    x: &[f32],
    grad_y: &[f32],
    statistics: &Statistics,
    scale: &[f32],
    sum: &[f32],
    sum_xhat: &[f32],
    grad_x: &mut [f32],
) {
    let d = scale.len();
    let block = ROW_BLOCK * d;
    let inv_n = 1.0 / (x.len() / d) as f32;
    let Statistics { mean, inv_std } = statistics;
    let slope: Vec<f32> = scale.iter().zip(inv_std).map(|(scale, inv_std)| scale * inv_std).collect();
    let mean_y: Vec<f32> = sum.iter().map(|sum| sum * inv_n).collect();
    let along: Vec<f32> = sum_xhat.iter().zip(inv_std).map(|(sum, inv_std)| sum * inv_n * inv_std).collect();
    let blocks = grad_x.par_chunks_mut(block).zip(x.par_chunks(block)).zip(grad_y.par_chunks(block));
    blocks.for_each(|((grad_x, x), grad_y)| input_gradient_rows(x, grad_y, mean, &slope, &mean_y, &along, grad_x));
}

multiversion! {
    fn input_gradient_rows(
        x: &[f32],
        grad_y: &[f32],
        mean: &[f32],
        slope: &[f32],
        mean_y: &[f32],
        along: &[f32],
        grad_x: &mut [f32],
    ) {
        let d = mean.len();
        let (slope, mean_y, along) = (&slope[..d], &mean_y[..d], &along[..d]);
        for ((grad_x, x), grad_y) in grad_x.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(grad_y.chunks_exact(d)) {
            for c in 0..d {
                grad_x[c] += slope[c] * (grad_y[c] - mean_y[c] - (x[c] - mean[c]) * along[c]);
            }
        }
    }
}
