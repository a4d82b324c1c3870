//! Softmax cross-entropy with integer labels.

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, SplitTape, Tape, TensorFromVec};

use super::{Matrix, matrix_values, negative_cosine_similarity::Scalar};

/// −mean over rows of log softmax(logits)`[label]`; logits [n, classes], labels `[n]` each below the number of classes.
///
/// # Errors
/// [`CpuError::WrongNumElements`] where a label is missing or not below the number of classes.
pub fn cross_entropy<T: Tape<f32, Cpu>>(logits: Matrix<T>, labels: &[u32]) -> Result<Scalar<T>, CpuError> {
    let (logits, mut tape) = logits.split_tape();
    let (n, classes) = *logits.shape();
    if labels.len() != n || labels.iter().any(|label| *label as usize >= classes) {
        return Err(CpuError::WrongNumElements);
    }
    let mut probabilities = matrix_values(&logits);
    let mut loss = 0.0_f64;
    for (row, label) in probabilities.chunks_exact_mut(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted_label = row[*label as usize] - largest;
        for x in row.iter_mut() {
            *x = (*x - largest).exp();
        }
        let sum: f32 = row.iter().sum();
        loss += f64::from(sum.ln() - shifted_label);
        for x in row {
            *x /= sum;
        }
    }
    let out = logits.device().tensor_from_vec(vec![(loss / n as f64) as f32], ());
    let (logits_ghost, out_ghost) = (logits.ghost(), out.ghost());
    let labels = labels.to_vec();
    tape.add_backward_op(move |gradients| {
        gradients.try_alloc_for(&out_ghost)?;
        let mut grad_out = [0.0];
        gradients.get(&out_ghost).copy_into(&mut grad_out);
        let factor = grad_out[0] / n as f32;
        let grad_logits = gradients.get_or_alloc_mut(&logits_ghost)?;
        let rows = grad_logits.chunks_exact_mut(classes).zip(probabilities.chunks_exact(classes)).zip(&labels);
        for ((grad, probabilities), label) in rows {
            for (idx, (grad, probability)) in grad.iter_mut().zip(probabilities).enumerate() {
                let target = if idx == *label as usize { 1.0 } else { 0.0 };
                *grad += factor * (probability - target);
            }
        }
        Ok(())
    });
    Ok(out.put_tape(tape))
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::{AsArray, Backward, Trace};

    use super::*;
    use crate::ops::matrix_from_values;

    const LABELS: [u32; 3] = [2, 0, 1];

    fn loss_of(values: &[f32]) -> f32 {
        let logits = matrix_from_values(&Cpu::default(), values.to_vec(), 3, 3);
        cross_entropy(logits, &LABELS).unwrap().array()
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_number_of_classes() {
        assert!((loss_of(&[0.5; 9]) - 3.0_f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let values = [0.3, -1.0, 2.0, 0.1, 0.2, 0.3, 5.0, -4.0, 0.0_f32];
        let logits = matrix_from_values(&Cpu::default(), values.to_vec(), 3, 3);
        let gradients = cross_entropy(logits.leaky_trace(), &LABELS).unwrap().backward();
        for (idx, gradient) in matrix_values(&gradients.get(&logits)).into_iter().enumerate() {
            let (mut above, mut below) = (values, values);
            above[idx] += 1e-2;
            below[idx] -= 1e-2;
            let difference = (loss_of(&above) - loss_of(&below)) / 2e-2;
            assert!((gradient - difference).abs() < 1e-3, "{idx}: {gradient} and {difference}");
        }
    }

    #[test]
    fn label_outside_the_classes_is_refused() {
        let logits = matrix_from_values(&Cpu::default(), vec![0.0; 9], 3, 3);
        assert!(cross_entropy(logits, &[0, 1, 3]).is_err());
    }
}
