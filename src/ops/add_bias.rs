//! Adds a bias to every row.

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, SplitTape, Tape};

use super::{Matrix, matrix_from_values, matrix_values};

/// x [n, d] + bias [1, d], the bias added to each row.
///
/// # Errors
/// As dfdx: no memory.
pub fn add_bias<T: Tape<f32, Cpu>>(x: Matrix<T>, bias: &Matrix) -> Result<Matrix<T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let (n, d) = *x.shape();
    let mut y = matrix_values(&x);
    let bias_values = matrix_values(bias);
    for row in y.chunks_exact_mut(d) {
        row.iter_mut().zip(&bias_values).for_each(|(y, b)| *y += b);
    }
    let out = matrix_from_values(x.device(), y, n, d);
    let (x_ghost, bias_ghost, out_ghost) = (x.ghost(), bias.ghost(), out.ghost());
    tape.add_backward_op(move |gradients| {
        gradients.try_alloc_for(&out_ghost)?;
        let grad_y = matrix_values(&gradients.get(&out_ghost));
        let grad_x = gradients.get_or_alloc_mut(&x_ghost)?;
        grad_x.iter_mut().zip(&grad_y).for_each(|(x, y)| *x += y);
        let grad_bias = gradients.get_or_alloc_mut(&bias_ghost)?;
        for row in grad_y.chunks_exact(d) {
            grad_bias.iter_mut().zip(row).for_each(|(b, y)| *b += y);
        }
        Ok(())
    });
    Ok(out.put_tape(tape))
}
