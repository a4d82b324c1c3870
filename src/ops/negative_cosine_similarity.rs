//! The loss D(p, z) = −(p/‖p‖ · z/‖z‖), averaged over the batch (paper, equation 1).

use dfdx::prelude::{Cpu, CpuError, HasShape, PutTape, Rank0, SplitTape, Tape, Tensor, TensorFromVec};
use rayon::prelude::*;

use super::{Matrix, matrix_values};

/// Norms are never taken to be smaller, as in PyTorch's `cosine_similarity`.
const SMALLEST_NORM: f64 = 1e-8;

/// A number; `T` is the tape.
pub type Scalar<T> = Tensor<Rank0, f32, Cpu, T>;

/// −mean over rows and targets of the cosine of p [n, d] and z [n, d], in [−1, 1]. No gradient flows into the targets,
/// which have no tape.
///
/// # Errors
/// As dfdx: no memory.
pub fn negative_cosine_similarity<T: Tape<f32, Cpu>>(p: Matrix<T>, targets: &[Matrix]) -> Result<Scalar<T>, CpuError> {
    let (p, mut tape) = p.split_tape();
    let (n, d) = *p.shape();
    let count = (n * targets.len()) as f64;
    let p_values = matrix_values(&p);
    let targets: Vec<(Vec<f32>, Vec<Row>)> = targets
        .iter()
        .map(|z| {
            let z = matrix_values(z);
            let rows = p_values.par_chunks_exact(d).zip(z.par_chunks_exact(d)).map(|(p, z)| Row::of(p, z)).collect();
            (z, rows)
        })
        .collect();
    let loss = -targets.iter().flat_map(|(_, rows)| rows).map(|row| row.cosine).sum::<f64>() / count;
    let out = p.device().tensor_from_vec(vec![loss as f32], ());

    let (p_ghost, out_ghost) = (p.ghost(), out.ghost());
    tape.add_backward_op(move |gradients| {
        gradients.try_alloc_for(&out_ghost)?;
        let mut grad_out = [0.0];
        gradients.get(&out_ghost).copy_into(&mut grad_out);
        let factor = -f64::from(grad_out[0]) / count;
        let grad_p = gradients.get_or_alloc_mut(&p_ghost)?;
        for (z_values, rows) in &targets {
            let grad_rows = grad_p.par_chunks_exact_mut(d).zip(p_values.par_chunks_exact(d));
            grad_rows.zip(z_values.par_chunks_exact(d)).zip(rows).for_each(|(((grad, p), z), row)| {
                // d cos / dp = (ẑ − cos · p̂) / ‖p‖
                let along_z = (factor / (row.p_norm * row.z_norm)) as f32;
                let along_p = (factor * row.cosine / (row.p_norm * row.p_norm)) as f32;
                for ((grad, p), z) in grad.iter_mut().zip(p).zip(z) {
                    *grad += along_z * z - along_p * p;
                }
            });
        }
        Ok(())
    });
    Ok(out.put_tape(tape))
}

struct Row {
    p_norm: f64,
    z_norm: f64,
    cosine: f64,
}

impl Row {
    fn of(p: &[f32], z: &[f32]) -> Self {
        let (mut pp, mut zz, mut pz) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (p, z) in p.iter().zip(z) {
            let (p, z) = (f64::from(*p), f64::from(*z));
            pp += p * p;
            zz += z * z;
            pz += p * z;
        }
        let (p_norm, z_norm) = (at_least(pp.sqrt()), at_least(zz.sqrt()));
        Self { p_norm, z_norm, cosine: pz / (p_norm * z_norm) }
    }
}

/// Not `max`, which would turn NaN into the bound.
fn at_least(norm: f64) -> f64 {
    if norm < SMALLEST_NORM { SMALLEST_NORM } else { norm }
}
