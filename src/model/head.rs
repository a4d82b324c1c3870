//! An MLP on rows, run by dfdx: what projector and predictor are made of.

use dfdx::prelude::{Cpu, CpuError, Tape};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::state::{StateEntry, StateError, StateMap};
use crate::ops::{
    Matrix,
    batch_norm::{Affine, BatchNorm, RunningStats},
    linear::Linear,
    parameters::{Parameters, TensorId},
};
use crate::profile::enter_layer;

/// One layer of a head.
#[derive(Clone)]
pub(crate) enum Layer {
    /// x W + b. The weight is kept as [inputs, outputs]; PyTorch's is [outputs, inputs].
    Linear(Linear),
    /// Batch norm, then ReLU if asked.
    BatchNorm(BatchNorm, RunningStats),
}

/// An MLP. Layers carry the numbers that they have in a PyTorch `Sequential`, in which a ReLU counts as a
/// layer, so that saved names match.
#[derive(Clone)]
pub struct Head {
    layers: Vec<(usize, Layer)>,
    /// Trained values and their gradients.
    pub parameters: Parameters,
    next_number: usize,
    rng: ChaCha8Rng,
}

impl Head {
    /// A head without layers; its tensors will be saved as `<name>.<number>.…`.
    pub fn new(name: &'static str, rng: ChaCha8Rng) -> Self {
        Self { layers: vec![], parameters: Parameters::new(name), next_number: 0, rng }
    }

    /// Adds a linear layer, initialised as PyTorch does: uniform in ±1/√inputs.
    pub fn linear(mut self, inputs: usize, outputs: usize, with_bias: bool) -> Self {
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = self.uniform(bound, inputs * outputs);
        let bias = with_bias.then(|| self.uniform(bound, outputs));
        self.push(Layer::Linear(Linear { weight, bias, inputs, outputs }));
        self
    }

    /// Adds batch norm with scale and shift, and a ReLU.
    pub fn batch_norm_relu(mut self, d: usize) -> Self {
        let scale = self.parameters.push(&vec![1.0; d]);
        let shift = self.parameters.push(&vec![0.0; d]);
        let norm = BatchNorm { affine: Some(Affine { scale, shift }), relu: true };
        self.push(Layer::BatchNorm(norm, RunningStats::new(d)));
        self.next_number += 1;
        self
    }

    /// Adds batch norm without scale and shift.
    pub fn plain_batch_norm(mut self, d: usize) -> Self {
        self.push(Layer::BatchNorm(BatchNorm { affine: None, relu: false }, RunningStats::new(d)));
        self
    }

    /// The layers in order.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().map(|(_, layer)| layer)
    }

    /// Running statistics by batch norm, to be changed.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn running_statistics_mut(&mut self) -> impl Iterator<Item = &mut RunningStats> {
        self.layers.iter_mut().filter_map(|(_, layer)| match layer {
            Layer::BatchNorm(_, running) => Some(running),
            Layer::Linear(_) => None,
        })
    }

    /// Columns of the output.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn output_dim(&self) -> usize {
        self.layers
            .iter()
            .rev()
            .find_map(|(_, layer)| match layer {
                Layer::Linear(linear) => Some(linear.outputs),
                Layer::BatchNorm(..) => None,
            })
            .unwrap_or_default()
    }

    fn push(&mut self, layer: Layer) {
        self.layers.push((self.next_number, layer));
        self.next_number += 1;
    }

    fn uniform(&mut self, bound: f32, len: usize) -> TensorId {
        let values: Vec<f32> = (0..len).map(|_| self.rng.random_range(-bound..=bound)).collect();
        self.parameters.push(&values)
    }

    /// x [views · n, inputs] → [views · n, outputs]: the rows are `views` batches one after the other. Each is
    /// normalised with its own statistics, as if it had come alone; the running statistics follow all of them.
    ///
    /// # Errors
    /// Where the rows or columns of x do not fit.
    pub fn forward<T: Tape<f32, Cpu>>(&mut self, x: Matrix<T>, views: usize) -> Result<Matrix<T>, CpuError> {
        enter_layer(self.parameters.name());
        let mut x = x;
        for (_, layer) in &mut self.layers {
            x = match layer {
                Layer::Linear(linear) => linear.forward(x, &self.parameters)?,
                Layer::BatchNorm(norm, running) => norm.forward(x, views, &self.parameters, running)?,
            };
        }
        Ok(x)
    }

    /// x [n, inputs] → [n, outputs] with the running statistics; nothing is kept or changed.
    ///
    /// # Errors
    /// Where the columns of x do not fit.
    pub fn forward_frozen(&self, x: Matrix) -> Result<Matrix, CpuError> {
        let mut x = x;
        for (_, layer) in &self.layers {
            x = match layer {
                Layer::Linear(linear) => linear.forward_frozen(&x, &self.parameters)?,
                Layer::BatchNorm(norm, running) => norm.forward_frozen(&x, &self.parameters, running),
            };
        }
        Ok(x)
    }

    /// Names, PyTorch shapes and places in the flat buffer of all trained tensors, in a fixed order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, TensorId)> {
        let mut tensors = vec![];
        for (number, layer) in &self.layers {
            let name = |part: &str| format!("{}.{number}.{part}", self.parameters.name());
            match layer {
                Layer::Linear(Linear { weight, bias, inputs, outputs }) => {
                    tensors.push((name("weight"), vec![*outputs, *inputs], *weight));
                    if let Some(bias) = bias {
                        tensors.push((name("bias"), vec![*outputs], *bias));
                    }
                }
                Layer::BatchNorm(BatchNorm { affine, .. }, running) => {
                    if let Some(Affine { scale, shift }) = affine {
                        tensors.push((name("weight"), vec![running.mean.len()], *scale));
                        tensors.push((name("bias"), vec![running.mean.len()], *shift));
                    }
                }
            }
        }
        tensors
    }

    /// Every tensor under the name and in the shape that PyTorch gives it.
    pub fn state_dict(&self) -> Vec<StateEntry> {
        let mut entries = vec![];
        for (number, layer) in &self.layers {
            let name = |part: &str| format!("{}.{number}.{part}", self.parameters.name());
            let values = |tensor: TensorId| self.parameters.get(tensor).to_vec();
            match layer {
                Layer::Linear(Linear { weight, bias, inputs, outputs }) => {
                    let turned = transposed(self.parameters.get(*weight), *inputs, *outputs);
                    entries.push(StateEntry::f32(name("weight"), vec![*outputs, *inputs], turned));
                    if let Some(bias) = bias {
                        entries.push(StateEntry::f32(name("bias"), vec![*outputs], values(*bias)));
                    }
                }
                Layer::BatchNorm(BatchNorm { affine, .. }, running) => {
                    let d = running.mean.len();
                    if let Some(Affine { scale, shift }) = affine {
                        entries.push(StateEntry::f32(name("weight"), vec![d], values(*scale)));
                        entries.push(StateEntry::f32(name("bias"), vec![d], values(*shift)));
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
        let Self { layers, parameters, .. } = self;
        let prefix = parameters.name();
        for (number, layer) in layers {
            let name = |part: &str| format!("{prefix}.{number}.{part}");
            let mut load = |tensor: TensorId, values: &[f32]| parameters.get_mut(tensor).copy_from_slice(values);
            match layer {
                Layer::Linear(Linear { weight, bias, inputs, outputs }) => {
                    let values = state.f32(&name("weight"), &[*outputs, *inputs])?;
                    load(*weight, &transposed(values, *outputs, *inputs));
                    if let Some(bias) = bias {
                        load(*bias, state.f32(&name("bias"), &[*outputs])?);
                    }
                }
                Layer::BatchNorm(BatchNorm { affine, .. }, running) => {
                    let d = running.mean.len();
                    if let Some(Affine { scale, shift }) = affine {
                        load(*scale, state.f32(&name("weight"), &[d])?);
                        load(*shift, state.f32(&name("bias"), &[d])?);
                    }
                    running.mean.copy_from_slice(state.f32(&name("running_mean"), &[d])?);
                    running.var.copy_from_slice(state.f32(&name("running_var"), &[d])?);
                    running.num_batches = state.i64(&name("num_batches_tracked"), &[])?[0];
                }
            }
        }
        Ok(())
    }

    /// Values that the layers write for one row.
    pub fn values_per_row(&self) -> usize {
        let of = |layer: &Layer| match layer {
            Layer::Linear(linear) => linear.outputs,
            Layer::BatchNorm(_, running) => running.mean.len(),
        };
        self.layers.iter().map(|(_, layer)| of(layer)).sum()
    }

    /// Multiply-adds for one row, forward.
    pub fn multiply_adds(&self) -> u64 {
        let of = |layer: &Layer| match layer {
            Layer::Linear(linear) => (linear.inputs * linear.outputs) as u64,
            Layer::BatchNorm(..) => 0,
        };
        self.layers.iter().map(|(_, layer)| of(layer)).sum()
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

    use dfdx::prelude::{AsArray, Backward, NoneTape, PutTape, SplitTape, Trace};

    use super::*;
    use crate::{
        model::{
            embedding_std::embedding_std,
            predictor::{PredictorConfig, build_predictor},
            projector::{ProjectorConfig, build_projector},
            state::{StateData, from_safetensors},
        },
        ops::{matrix_from_values, matrix_values, negative_cosine_similarity::negative_cosine_similarity},
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

    /// The rows of both views.
    fn rows(matrix: &Matrix) -> (Vec<f32>, Vec<f32>) {
        let mut first = matrix_values(matrix);
        let second = first.split_off(first.len() / 2);
        (first, second)
    }

    fn heads() -> (Head, Head) {
        let projector = ProjectorConfig { hidden_dim: 7, output_dim: 8, num_layers: 3, output_bn: true };
        let predictor = PredictorConfig { hidden_dim: 3 };
        (
            build_projector(&projector, 5, seeded_rng(0, "projector", &[])),
            build_predictor(&predictor, 8, seeded_rng(0, "predictor", &[])),
        )
    }

    #[test]
    fn two_views_give_pytorchs_loss_and_gradients() {
        let (golden, before) = golden();
        let (mut projector, mut predictor) = heads();
        projector.load_state_dict(&StateMap::new(&before)).unwrap();
        predictor.load_state_dict(&StateMap::new(&before)).unwrap();
        let device = Cpu::default();
        let h1 = matrix_from_values(&device, golden["h1"].1.clone(), 6, 5);
        let h = matrix_from_values(&device, [golden["h1"].1.clone(), golden["h2"].1.clone()].concat(), 12, 5);

        let z = projector.forward(h.leaky_trace(), 2).unwrap();
        let target = z.retaped::<NoneTape>();
        let (z1, z2) = rows(&target);
        assert_close("z1", &z1, &golden["z1"].1);
        assert_close("embedding_std", &[embedding_std(&target, 6) as f32], &golden["embedding_std"].1);
        let p = predictor.forward(z, 2).unwrap();
        assert_close("p1", &rows(&p.retaped::<NoneTape>()).0, &golden["p1"].1);
        let swapped = matrix_from_values(&device, [z2, z1].concat(), 12, 8);
        let (loss, tape) = negative_cosine_similarity(p, &[swapped]).unwrap().split_tape();
        assert_close("loss", &[loss.array()], &golden["loss"].1);
        let gradients = loss.put_tape(tape).try_backward().unwrap();

        let (grad_h1, grad_h2) = rows(&gradients.get(&h));
        assert_close("grad.h1", &grad_h1, &golden["grad.h1"].1);
        assert_close("grad.h2", &grad_h2, &golden["grad.h2"].1);
        for head in [&projector, &predictor] {
            let all = head.parameters.gradients();
            for (name, shape, tensor) in head.tensors() {
                let gradient = all[head.parameters.range(tensor)].to_vec();
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
