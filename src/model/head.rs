//! An MLP on rows, run by dfdx: what projector and predictor are made of.

use dfdx::prelude::{Cpu, CpuError, HasShape, Merge, NoneTape, Tape, TryMatMul};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::state::{StateEntry, StateError, StateMap};
use crate::ops::{
    Matrix,
    add_bias::add_bias,
    batch_norm::{Affine, RunningStats, batch_norm, batch_norm_frozen},
    matrix_from_values, matrix_values,
};

/// One layer of a head.
#[derive(Clone)]
enum Layer {
    /// x W + b. The weight is kept as [inputs, outputs], so that no step transposes it; PyTorch's is
    /// [outputs, inputs].
    Linear { weight: Matrix, bias: Option<Matrix> },
    /// Batch norm, then ReLU if asked. Scale and shift are [1, d].
    BatchNorm { affine: Option<(Matrix, Matrix)>, running: RunningStats, relu: bool },
}

/// An MLP. Layers carry the numbers that they have in a PyTorch `Sequential`, in which a ReLU counts as a
/// layer, so that saved names match.
#[derive(Clone)]
pub struct Head {
    name: &'static str,
    device: Cpu,
    layers: Vec<(usize, Layer)>,
    next_number: usize,
    rng: ChaCha8Rng,
}

impl Head {
    /// A head without layers; its tensors will be saved as `<name>.<number>.…`.
    pub fn new(name: &'static str, device: &Cpu, rng: ChaCha8Rng) -> Self {
        Self { name, device: device.clone(), layers: vec![], next_number: 0, rng }
    }

    /// Adds a linear layer, initialised as PyTorch does: uniform in ±1/√inputs.
    pub fn linear(mut self, inputs: usize, outputs: usize, with_bias: bool) -> Self {
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = self.uniform(bound, inputs, outputs);
        let bias = with_bias.then(|| self.uniform(bound, 1, outputs));
        self.push(Layer::Linear { weight, bias });
        self
    }

    /// Adds batch norm with scale and shift, and a ReLU.
    pub fn batch_norm_relu(mut self, d: usize) -> Self {
        let affine = Some((
            matrix_from_values(&self.device, vec![1.0; d], 1, d),
            matrix_from_values(&self.device, vec![0.0; d], 1, d),
        ));
        self.push(Layer::BatchNorm { affine, running: RunningStats::new(d), relu: true });
        self.next_number += 1;
        self
    }

    /// Adds batch norm without scale and shift.
    pub fn plain_batch_norm(mut self, d: usize) -> Self {
        self.push(Layer::BatchNorm { affine: None, running: RunningStats::new(d), relu: false });
        self
    }

    fn push(&mut self, layer: Layer) {
        self.layers.push((self.next_number, layer));
        self.next_number += 1;
    }

    fn uniform(&mut self, bound: f32, rows: usize, columns: usize) -> Matrix {
        let values = (0..rows * columns).map(|_| self.rng.random_range(-bound..=bound)).collect();
        matrix_from_values(&self.device, values, rows, columns)
    }

    /// x [n, inputs] → [n, outputs] with the statistics of the batch; updates the running statistics.
    ///
    /// # Errors
    /// As dfdx: no memory.
    pub fn forward<T: Tape<f32, Cpu> + Merge<NoneTape>>(&mut self, x: Matrix<T>) -> Result<Matrix<T>, CpuError> {
        let mut x = x;
        for (_, layer) in &mut self.layers {
            x = match layer {
                Layer::Linear { weight, bias } => linear(x, weight, bias.as_ref())?,
                Layer::BatchNorm { affine, running, relu } => {
                    let affine = affine.as_ref().map(|(scale, shift)| Affine { scale, shift });
                    batch_norm(x, affine, *relu, running)?
                }
            };
        }
        Ok(x)
    }

    /// x [n, inputs] → [n, outputs] with the running statistics; nothing is kept or changed.
    ///
    /// # Errors
    /// As dfdx: no memory.
    pub fn forward_frozen(&self, x: Matrix) -> Result<Matrix, CpuError> {
        let mut x = x;
        for (_, layer) in &self.layers {
            x = match layer {
                Layer::Linear { weight, bias } => linear(x, weight, bias.as_ref())?,
                Layer::BatchNorm { affine, running, relu } => {
                    let affine = affine.as_ref().map(|(scale, shift)| Affine { scale, shift });
                    batch_norm_frozen(&x, affine, *relu, running)
                }
            };
        }
        Ok(x)
    }

    /// All trainable matrices, in a fixed order.
    pub fn parameters_mut(&mut self) -> Vec<&mut Matrix> {
        let mut parameters = vec![];
        for (_, layer) in &mut self.layers {
            match layer {
                Layer::Linear { weight, bias } => {
                    parameters.push(weight);
                    parameters.extend(bias);
                }
                Layer::BatchNorm { affine, .. } => {
                    if let Some((scale, shift)) = affine {
                        parameters.extend([scale, shift]);
                    }
                }
            }
        }
        parameters
    }

    /// Names and PyTorch shapes of [`Self::parameters_mut`], in the same order.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = vec![];
        for (number, layer) in &self.layers {
            let name = |part: &str| format!("{}.{number}.{part}", self.name);
            match layer {
                Layer::Linear { weight, bias } => {
                    let (inputs, outputs) = *weight.shape();
                    shapes.push((name("weight"), vec![outputs, inputs]));
                    if bias.is_some() {
                        shapes.push((name("bias"), vec![outputs]));
                    }
                }
                Layer::BatchNorm { affine, running, .. } => {
                    if affine.is_some() {
                        shapes.push((name("weight"), vec![running.mean.len()]));
                        shapes.push((name("bias"), vec![running.mean.len()]));
                    }
                }
            }
        }
        shapes
    }

    /// Every tensor under the name and in the shape that PyTorch gives it.
    pub fn state_dict(&self) -> Vec<StateEntry> {
        let mut entries = vec![];
        for (number, layer) in &self.layers {
            let name = |part: &str| format!("{}.{number}.{part}", self.name);
            match layer {
                Layer::Linear { weight, bias } => {
                    let (inputs, outputs) = *weight.shape();
                    let values = transposed(&matrix_values(weight), inputs, outputs);
                    entries.push(StateEntry::f32(name("weight"), vec![outputs, inputs], values));
                    if let Some(bias) = bias {
                        entries.push(StateEntry::f32(name("bias"), vec![outputs], matrix_values(bias)));
                    }
                }
                Layer::BatchNorm { affine, running, .. } => {
                    let d = running.mean.len();
                    if let Some((scale, shift)) = affine {
                        entries.push(StateEntry::f32(name("weight"), vec![d], matrix_values(scale)));
                        entries.push(StateEntry::f32(name("bias"), vec![d], matrix_values(shift)));
                    }
                    entries.push(StateEntry::f32(name("running_mean"), vec![d], running.mean.clone()));
                    entries.push(StateEntry::f32(name("running_var"), vec![d], running.var.clone()));
                    entries.push(StateEntry::i64(name("num_batches_tracked"), vec![], vec![running.num_batches]));
                }
            }
        }
        entries
    }

    /// Takes every tensor of this head from `state`, where it must be under its name and in its shape.
    ///
    /// # Errors
    /// [`StateError`] names what is missing or has another shape or type.
    pub fn load_state_dict(&mut self, state: &StateMap<'_>) -> Result<(), StateError> {
        let prefix = self.name;
        for (number, layer) in &mut self.layers {
            let name = |part: &str| format!("{prefix}.{number}.{part}");
            match layer {
                Layer::Linear { weight, bias } => {
                    let (inputs, outputs) = *weight.shape();
                    let values = state.f32(&name("weight"), &[outputs, inputs])?;
                    weight.copy_from(&transposed(values, outputs, inputs));
                    if let Some(bias) = bias {
                        bias.copy_from(state.f32(&name("bias"), &[outputs])?);
                    }
                }
                Layer::BatchNorm { affine, running, .. } => {
                    let d = running.mean.len();
                    if let Some((scale, shift)) = affine {
                        scale.copy_from(state.f32(&name("weight"), &[d])?);
                        shift.copy_from(state.f32(&name("bias"), &[d])?);
                    }
                    running.mean.copy_from_slice(state.f32(&name("running_mean"), &[d])?);
                    running.var.copy_from_slice(state.f32(&name("running_var"), &[d])?);
                    running.num_batches = state.i64(&name("num_batches_tracked"), &[])?[0];
                }
            }
        }
        Ok(())
    }

    /// Multiply-adds for one row, forward.
    pub fn multiply_adds(&self) -> u64 {
        let linear = |layer: &Layer| match layer {
            Layer::Linear { weight, .. } => {
                let (inputs, outputs) = *weight.shape();
                (inputs * outputs) as u64
            }
            Layer::BatchNorm { .. } => 0,
        };
        self.layers.iter().map(|(_, layer)| linear(layer)).sum()
    }
}

/// x W + b
fn linear<T>(x: Matrix<T>, weight: &Matrix, bias: Option<&Matrix>) -> Result<Matrix<T>, CpuError>
where
    T: Tape<f32, Cpu> + Merge<NoneTape>,
{
    let y = x.try_matmul(weight.clone())?;
    match bias {
        Some(bias) => add_bias(y, bias),
        None => Ok(y),
    }
}

/// [rows, columns] → [columns, rows].
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row_idx, row) in values.chunks_exact(columns).enumerate() {
        for (column_idx, value) in row.iter().enumerate() {
            out[column_idx * rows + row_idx] = *value;
        }
    }
    out
}
