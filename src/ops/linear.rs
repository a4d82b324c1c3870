//! x W + b, by the kernels of this machine: dfdx's product knows AVX2 at most, and its gradients are new at every step.

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, SplitTape, Tape};

use super::parameters::{Parameters, TensorId};
use super::{Matrix, matrix_from_values, matrix_values};
use crate::kernels::{matrix, product::multiply};
use crate::profile::{Work, enter_layer, span};

/// The tensors of a linear layer: the weight [inputs, outputs], the bias `[outputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// W
    pub weight: TensorId,
    /// b
    pub bias: Option<TensorId>,
    /// Columns of x.
    pub inputs: usize,
    /// Columns of the result.
    pub outputs: usize,
}

impl Linear {
    /// Operations for `n` rows; a multiply-add is two.
    fn flop(&self, n: usize) -> f64 {
        2.0 * (n * self.inputs * self.outputs) as f64
    }

    fn product(&self, x: &[f32], n: usize, parameters: &Parameters) -> Vec<f32> {
        let Self { inputs, outputs, .. } = *self;
        let mut y = vec![0.0; n * outputs];
        span(Work::Linear, self.flop(n), || {
            let weight = matrix::Matrix::row_major(parameters.get(self.weight), outputs);
            multiply([n, outputs, inputs], matrix::Matrix::row_major(x, inputs), weight, &mut y, false);
            if let Some(bias) = self.bias {
                let bias = parameters.get(bias);
                for row in y.chunks_exact_mut(outputs) {
                    row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                }
            }
        });
        y
    }

    /// x [n, inputs] → [n, outputs]. Backward gives the gradients of the parameters to `parameters`.
    ///
    /// # Errors
    /// [`CpuError::WrongNumElements`] where x has another number of columns.
    pub fn forward<T: Tape<f32, Cpu>>(&self, x: Matrix<T>, parameters: &Parameters) -> Result<Matrix<T>, CpuError> {
        let Self { inputs, outputs, .. } = *self;
        let (x, mut tape) = x.split_tape();
        let (n, columns) = *x.shape();
        if columns != inputs {
            return Err(CpuError::WrongNumElements);
        }
        let x_values = matrix_values(&x);
        let out = matrix_from_values(x.device(), self.product(&x_values, n, parameters), n, outputs);

        let (x_ghost, out_ghost) = (x.ghost(), out.ghost());
        let weight = parameters.tensor(self.weight);
        let bias = self.bias.map(|bias| parameters.tensor(bias));
        let (flop, name) = (self.flop(n), parameters.name());
        tape.add_backward_op(move |gradients| {
            enter_layer(name);
            gradients.try_alloc_for(&out_ghost)?;
            let grad_y = matrix_values(&gradients.get(&out_ghost));
            let grad_x = gradients.get_or_alloc_mut(&x_ghost)?;
            span(Work::LinearGradient, 2.0 * flop, || {
                let dy = matrix::Matrix::row_major(&grad_y, outputs);
                let turned = matrix::Matrix::transposed(weight.values(), outputs);
                multiply([n, inputs, outputs], dy, turned, grad_x, true);
                let turned = matrix::Matrix::transposed(&x_values, inputs);
                weight.with_gradient(|grad, written| multiply([inputs, outputs, n], turned, dy, grad, written));
                if let Some(bias) = &bias {
                    let mut sums = vec![0.0; outputs];
                    for row in grad_y.chunks_exact(outputs) {
                        sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += y);
                    }
                    bias.add_gradient(&sums);
                }
            });
            Ok(())
        });
        Ok(out.put_tape(tape))
    }

    /// The same without a tape.
    ///
    /// # Errors
    /// [`CpuError::WrongNumElements`] where x has another number of columns.
    pub fn forward_frozen(&self, x: &Matrix, parameters: &Parameters) -> Result<Matrix, CpuError> {
        let (n, columns) = *x.shape();
        if columns != self.inputs {
            return Err(CpuError::WrongNumElements);
        }
        Ok(matrix_from_values(x.device(), self.product(&matrix_values(x), n, parameters), n, self.outputs))
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::{Backward, Rank0, SumTo, Trace};

    use super::*;

    const X: [f32; 6] = [0.5, -1.0, 2.0, 0.25, 3.0, -0.75];
    const W: [f32; 6] = [1.0, 2.0, -0.5, 0.1, 0.3, -2.0];
    const B: [f32; 2] = [0.2, -0.4];

    fn layer(values: &[f32], bias: &[f32]) -> (Linear, Parameters) {
        let mut parameters = Parameters::new("head");
        let (weight, bias) = (parameters.push(values), Some(parameters.push(bias)));
        (Linear { weight, bias, inputs: 3, outputs: 2 }, parameters)
    }

    /// Σ of squares of x W + b.
    fn squares(x: &[f32], w: &[f32], b: &[f32]) -> f64 {
        let mut sum = 0.0;
        for i in 0..2 {
            for j in 0..2 {
                let y: f64 = (0..3).map(|p| f64::from(x[i * 3 + p]) * f64::from(w[p * 2 + j])).sum();
                sum += (y + f64::from(b[j])).powi(2);
            }
        }
        sum
    }

    fn slope<const N: usize>(at: &[f32; N], idx: usize, f: impl Fn(&[f32; N]) -> f64) -> f64 {
        let (mut above, mut below) = (*at, *at);
        above[idx] += 1e-2;
        below[idx] -= 1e-2;
        (f(&above) - f(&below)) / (f64::from(above[idx]) - f64::from(below[idx]))
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let (linear, parameters) = layer(&W, &B);
        let x = matrix_from_values(&Cpu::default(), X.to_vec(), 2, 3);
        let y = linear.forward(x.leaky_trace(), &parameters).unwrap();
        let values = matrix_values(&y);
        assert_eq!(values, matrix_values(&linear.forward_frozen(&x, &parameters).unwrap()));
        let squared: f64 = values.iter().map(|y| f64::from(*y).powi(2)).sum();
        assert!((squared - squares(&X, &W, &B)).abs() < 1e-5);
        let gradients = y.square().sum::<Rank0, _>().backward();
        for (idx, gradient) in matrix_values(&gradients.get(&x)).into_iter().enumerate() {
            assert!((f64::from(gradient) - slope(&X, idx, |x| squares(x, &W, &B))).abs() < 1e-3);
        }
        for (idx, gradient) in parameters.gradients().into_iter().enumerate() {
            let expected = match idx {
                0..6 => slope(&W, idx, |w| squares(&X, w, &B)),
                _ => slope(&B, idx - 6, |b| squares(&X, &W, b)),
            };
            assert!((f64::from(gradient) - expected).abs() < 1e-3, "{idx}: {gradient} {expected}");
        }
    }

    #[test]
    fn other_numbers_of_columns_are_refused() {
        let (linear, parameters) = layer(&W, &B);
        let x = matrix_from_values(&Cpu::default(), vec![0.0; 4], 1, 4);
        assert!(linear.forward_frozen(&x, &parameters).is_err());
        assert!(linear.forward(x.leaky_trace(), &parameters).is_err());
    }
}
