//! A projector or predictor on a device: linear layers are convolutions of one position.

use super::{
    cuda_error::CudaError,
    device::{Memory, Slice},
    launch::{AffineSlices, COEFFICIENTS, Kernels, NormGradient, NormShape, STATISTICS, Shape},
    parameters::{Layout, Parameters, Place, Running},
};
use crate::{
    model::{
        backbone::op::Residual,
        head::{Head, Layer},
    },
    ops::{batch_norm::Affine, linear::Linear, parameters::TensorId},
};

/// A head without its trained values, which lie in [`Parameters`].
#[derive(Debug)]
pub(super) struct DeviceHead {
    kernels: Kernels,
    layers: Vec<DeviceLayer>,
    /// The host's tensors and their places.
    tensors: Vec<(TensorId, Place)>,
    running: Running,
    pass: Option<Pass>,
}

#[derive(Clone, Copy, Debug)]
enum DeviceLayer {
    /// The weight is [inputs, outputs], as the host keeps it.
    Linear { weight: Place, bias: Option<Place>, inputs: usize, outputs: usize },
    /// `norm` numbers the running statistics.
    Norm { affine: Option<(Place, Place)>, relu: bool, norm: usize, channels: usize },
}

impl DeviceLayer {
    fn outputs(&self) -> usize {
        match self {
            Self::Linear { outputs, .. } => *outputs,
            Self::Norm { channels, .. } => *channels,
        }
    }
}

/// Memory of passes of so many rows.
#[derive(Debug)]
struct Pass {
    views: usize,
    n: usize,
    /// By layer: what it gives.
    outputs: Vec<Memory>,
    /// By layer: what it normalised with.
    statistics: Vec<Option<Memory>>,
    /// By layer: the gradient of a linear layer's input.
    gradients: Vec<Option<Memory>>,
    partial: Memory,
    coefficients: Memory,
}

impl DeviceHead {
    /// Takes places for its values from `layout`.
    pub(super) fn new(kernels: &Kernels, host: &Head, layout: &mut Layout) -> Result<Self, CudaError> {
        let (mut layers, mut tensors, mut channels) = (vec![], vec![], vec![]);
        let mut place = |tensor: TensorId| {
            let place = layout.place(host.parameters.get(tensor).len());
            tensors.push((tensor, place));
            place
        };
        let mut after_linear = false;
        for layer in host.layers() {
            match layer {
                Layer::Linear(Linear { weight, bias, inputs, outputs }) => {
                    let (weight, bias) = (place(*weight), bias.map(&mut place));
                    layers.push(DeviceLayer::Linear { weight, bias, inputs: *inputs, outputs: *outputs });
                    after_linear = true;
                }
                Layer::BatchNorm(norm, running) => {
                    // On the way back its input is overwritten, which only a linear layer's output may be.
                    if !after_linear {
                        return Err(CudaError::Network("a batch norm of a head does not follow a linear layer"));
                    }
                    after_linear = false;
                    let affine = norm.affine.map(|Affine { scale, shift }| (place(scale), place(shift)));
                    let d = running.mean.len();
                    layers.push(DeviceLayer::Norm { affine, relu: norm.relu, norm: channels.len(), channels: d });
                    channels.push(d);
                }
            }
        }
        let running = Running::new(kernels, &channels)?;
        Ok(Self { kernels: kernels.clone(), layers, tensors, running, pass: None })
    }

    /// Takes the host's values and running statistics.
    pub(super) fn load(&mut self, parameters: &Parameters, host: &Head) -> Result<(), CudaError> {
        for (tensor, place) in &self.tensors {
            parameters.write(*place, host.parameters.get(*tensor))?;
        }
        let norms = host.layers().filter_map(|layer| match layer {
            Layer::BatchNorm(_, running) => Some(running),
            Layer::Linear(_) => None,
        });
        for (norm, running) in norms.enumerate() {
            self.running.write(norm, &running.mean, &running.var, running.num_batches)?;
        }
        Ok(())
    }

    /// Gives them back.
    pub(super) fn store(&self, parameters: &Parameters, host: &mut Head) -> Result<(), CudaError> {
        for (tensor, place) in &self.tensors {
            parameters.read(*place, host.parameters.get_mut(*tensor))?;
        }
        for (norm, running) in host.running_statistics_mut().enumerate() {
            running.num_batches = self.running.read(norm, &mut running.mean, &mut running.var)?;
        }
        Ok(())
    }

    /// Where each tensor of the host's flat buffers begins there and here.
    pub(super) fn pairs(&self, host: &Head) -> Vec<(usize, Place)> {
        self.tensors.iter().map(|(tensor, place)| (host.parameters.range(*tensor).start, *place)).collect()
    }

    /// x [views · n, inputs] to [views · n, outputs], each view with its own statistics; what [`Self::backward`] needs is
    /// kept, and x must be, too.
    pub(super) fn forward(
        &mut self,
        parameters: &Parameters,
        x: Slice,
        views: usize,
        n: usize,
    ) -> Result<Slice, CudaError> {
        self.fit(views, n)?;
        let Self { kernels, layers, running, pass: Some(pass), .. } = self else {
            return Err(CudaError::Network("it has no memory"));
        };
        let rows = views * n;
        let mut x = x;
        for (idx, layer) in layers.iter().enumerate() {
            let y = pass.outputs[idx].all();
            match *layer {
                DeviceLayer::Linear { weight, bias, inputs, outputs } => {
                    kernels.conv_forward(&Shape::linear(rows, inputs, outputs), x, parameters.weight(weight), y)?;
                    if let Some(bias) = bias {
                        kernels.add_bias(rows, outputs, y, parameters.value(bias))?;
                    }
                }
                DeviceLayer::Norm { affine, relu, norm, channels } => {
                    let Some(statistics) = &pass.statistics[idx] else { continue };
                    let shape = NormShape { views, rows: n, channels };
                    let (statistics, partial) = (statistics.all(), pass.partial.all());
                    let affine = affine.map(|places| slices(places, |place| parameters.value(place)));
                    kernels.bn_statistics(&shape, x, affine, running.slices(norm), partial, statistics)?;
                    running.counts[norm] += views as i64;
                    kernels.bn_apply(&shape, x, statistics, Residual::None, relu, y)?;
                }
            }
            x = y;
        }
        Ok(x)
    }

    /// The gradient of x for the gradient `d` of the output; those of the values are written, or added to. `x` is what
    /// [`Self::forward`] was given.
    pub(super) fn backward(
        &mut self,
        parameters: &Parameters,
        x: Slice,
        d: Slice,
        accumulate: bool,
    ) -> Result<Slice, CudaError> {
        let Some(pass) = &self.pass else { return Err(CudaError::Network("there is nothing to go back through")) };
        let (kernels, rows) = (&self.kernels, pass.views * pass.n);
        let mut d = d;
        for (idx, layer) in self.layers.iter().enumerate().rev() {
            let input = if idx == 0 { x } else { pass.outputs[idx - 1].all() };
            match *layer {
                DeviceLayer::Linear { weight, bias, inputs, outputs } => {
                    let shape = Shape::linear(rows, inputs, outputs);
                    let dw = parameters.gradient(weight)?;
                    kernels.conv_weight_gradient(&shape, input, d, pass.partial.all(), dw, accumulate)?;
                    if let Some(bias) = bias {
                        kernels.column_sums(rows, outputs, d, parameters.gradient(bias)?, accumulate)?;
                    }
                    let Some(dx) = &pass.gradients[idx] else { continue };
                    kernels.conv_data_gradient(&shape, d, parameters.weight(weight), dx.all(), false)?;
                    d = dx.all();
                }
                DeviceLayer::Norm { affine, relu, channels, .. } => {
                    let Some(statistics) = &pass.statistics[idx] else { continue };
                    let shape = NormShape { views: pass.views, rows: pass.n, channels };
                    let tensors = NormGradient { d, y: input, out: None, statistics: statistics.all() };
                    let trained = match affine {
                        Some((scale, shift)) => {
                            let gamma = parameters.gradient(scale)?;
                            Some((AffineSlices { gamma, beta: parameters.gradient(shift)? }, accumulate))
                        }
                        None => None,
                    };
                    let (partial, coefficients) = (pass.partial.all(), pass.coefficients.all());
                    kernels.bn_gradient(&shape, &tensors, Residual::None, relu, trained, partial, coefficients)?;
                    // The input has become its gradient.
                    d = input;
                }
            }
        }
        Ok(d)
    }

    fn fit(&mut self, views: usize, n: usize) -> Result<(), CudaError> {
        if self.pass.as_ref().is_some_and(|pass| pass.views == views && pass.n == n) {
            return Ok(());
        }
        self.pass = None;
        let (kernels, rows) = (&self.kernels, views * n);
        let elements = |len: usize| Memory::new(kernels.device(), kernels.element_bytes() * len);
        let floats = |len: usize| Memory::new(kernels.device(), 4 * len);
        let (mut outputs, mut statistics, mut gradients) = (vec![], vec![], vec![]);
        let (mut partial, mut coefficients) = (0, 0);
        for layer in &self.layers {
            outputs.push(elements(rows * layer.outputs())?);
            match *layer {
                DeviceLayer::Linear { inputs, outputs, .. } => {
                    partial = partial.max(Shape::linear(rows, inputs, outputs).weight_partial_len());
                    gradients.push(Some(elements(rows * inputs)?));
                    statistics.push(None);
                }
                DeviceLayer::Norm { channels, .. } => {
                    partial = partial.max(NormShape { views, rows: n, channels }.partial_len());
                    coefficients = coefficients.max(views * COEFFICIENTS * channels);
                    gradients.push(None);
                    statistics.push(Some(floats(views * STATISTICS * channels)?));
                }
            }
        }
        let (partial, coefficients) = (floats(partial)?, floats(coefficients)?);
        self.pass = Some(Pass { views, n, outputs, statistics, gradients, partial, coefficients });
        Ok(())
    }
}

fn slices((gamma, beta): (Place, Place), slice: impl Fn(Place) -> Slice) -> AffineSlices {
    AffineSlices { gamma: slice(gamma), beta: slice(beta) }
}
