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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use dfdx::prelude::{AsArray, Backward, PutTape, SplitTape, Trace};

    use super::*;
    use crate::{
        model::{
            embedding_std::embedding_std,
            predictor::{PredictorConfig, build_predictor},
            projector::{ProjectorConfig, build_projector},
            state::{StateData, from_safetensors},
        },
        ops::negative_cosine_similarity::negative_cosine_similarity,
        seed::seeded_rng,
    };

    type Golden = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    fn golden() -> (Golden, Vec<StateEntry>) {
        let bytes = include_bytes!("../../tests/golden/heads/heads.safetensors");
        let entries = from_safetensors(bytes, Path::new("heads.safetensors")).unwrap();
        let before = entries.iter().filter_map(|entry| {
            let name = entry.name.strip_prefix("before.")?.to_owned();
            Some(StateEntry { name, ..entry.clone() })
        });
        let before = before.collect();
        let floats = entries.into_iter().filter_map(|entry| match entry.data {
            StateData::F32(values) => Some((entry.name, (entry.shape, values))),
            StateData::I64(_) => None,
        });
        (floats.collect(), before)
    }

    fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{name}");
        let scale = expected.iter().fold(1e-3_f32, |scale, x| scale.max(x.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-5 * scale, "{name}: {found} where PyTorch has {expected}");
        }
    }

    fn heads() -> (Head, Head) {
        let device = Cpu::default();
        let projector = ProjectorConfig { hidden_dim: 7, output_dim: 8, num_layers: 3, output_bn: true };
        let predictor = PredictorConfig { hidden_dim: 3 };
        (
            build_projector(&projector, 5, &device, seeded_rng(0, "projector", &[])),
            build_predictor(&predictor, 8, &device, seeded_rng(0, "predictor", &[])),
        )
    }

    #[test]
    fn two_views_give_pytorchs_loss_and_gradients() {
        let (golden, before) = golden();
        let (mut projector, mut predictor) = heads();
        projector.load_state_dict(&StateMap::new(&before)).unwrap();
        predictor.load_state_dict(&StateMap::new(&before)).unwrap();
        let device = Cpu::default();
        let input = |name: &str| matrix_from_values(&device, golden[name].1.clone(), 6, 5);
        let (h1, h2) = (input("h1"), input("h2"));

        let z1 = projector.forward(h1.leaky_trace()).unwrap();
        let z2 = projector.forward(h2.leaky_trace()).unwrap();
        let (target1, target2) = (z1.retaped::<NoneTape>(), z2.retaped::<NoneTape>());
        assert_close("z1", &matrix_values(&target1), &golden["z1"].1);
        assert_close("embedding_std", &[embedding_std(&target1) as f32], &golden["embedding_std"].1);
        let p1 = predictor.forward(z1).unwrap();
        assert_close("p1", &matrix_values(&p1), &golden["p1"].1);
        let p2 = predictor.forward(z2).unwrap();
        let loss = (negative_cosine_similarity(p1, &target2).unwrap()
            + negative_cosine_similarity(p2, &target1).unwrap())
            * 0.5;
        let (loss_value, tape) = loss.split_tape();
        assert_close("loss", &[loss_value.array()], &golden["loss"].1);
        let mut gradients = loss_value.put_tape(tape).try_backward().unwrap();

        for (name, h) in [("grad.h1", &h1), ("grad.h2", &h2)] {
            assert_close(name, &matrix_values(&gradients.get(h)), &golden[name].1);
        }
        for head in [&mut projector, &mut predictor] {
            let shapes = head.parameter_shapes();
            for (parameter, (name, shape)) in head.parameters_mut().into_iter().zip(shapes) {
                let gradient = gradients.get_or_alloc_mut(parameter).unwrap().to_vec();
                // Linear weights are kept transposed.
                let gradient = if shape.len() == 2 { transposed(&gradient, shape[1], shape[0]) } else { gradient };
                assert_close(&name, &gradient, &golden[&format!("grad.{name}")].1);
            }
        }
        for entry in projector.state_dict().into_iter().chain(predictor.state_dict()) {
            if let StateData::F32(values) = &entry.data {
                assert_close(&entry.name, values, &golden[&format!("after.{}", entry.name)].1);
            }
        }
        let frozen = predictor.forward_frozen(projector.forward_frozen(h1).unwrap()).unwrap();
        assert_close("frozen", &matrix_values(&frozen), &golden["p1.frozen"].1);
    }

    #[test]
    fn state_of_another_shape_is_refused_by_name() {
        let (_, mut before) = golden();
        before.iter_mut().find(|entry| entry.name == "projector.3.weight").unwrap().shape = vec![49];
        let error = heads().0.load_state_dict(&StateMap::new(&before)).unwrap_err();
        assert_eq!(error.to_string(), "tensor `projector.3.weight` has shape f32 [49] where f32 [7, 7] is needed");
    }
}
