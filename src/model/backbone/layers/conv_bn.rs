//! Convolution without bias and batch norm, with the residual and the ReLU that follow.

use super::super::cpu::batch_norm::{self, Affine, BackwardInput, Moments, ResidualGradient};
use super::super::cpu::conv::{self, ConvShape};
use super::super::cpu::prepared::{PreparedWeights, Weights};
use super::super::cpu::scratch::Scratch;
use super::super::op::Residual;
use super::{Dims, window_output};

/// Added to the variance, as in PyTorch.
const EPSILON: f64 = 1e-5;

/// Weight of the newest batch in the running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// One convolution and its batch norm. The numbers of its tensors index the program's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvBn {
    /// Channels read.
    pub in_channels: usize,
    /// Channels written.
    pub out_channels: usize,
    /// Edge of the kernel.
    pub kernel: usize,
    /// Step between output positions.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: usize,
    /// Parameter number of the kernel.
    pub weight: usize,
    /// Parameter number of the batch norm's weight.
    pub scale: usize,
    /// Parameter number of the batch norm's bias.
    pub shift: usize,
    /// Number of the batch norm.
    pub norm: usize,
}

/// Trained values of one batch norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BnParameters<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
}

/// Running statistics of one batch norm.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunningStatistics {
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
    pub(crate) num_batches_tracked: i64,
}

impl RunningStatistics {
    /// Mean 0, variance 1.
    pub(crate) fn new(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], variance: vec![1.0; channels], num_batches_tracked: 0 }
    }

    /// Moves towards a batch; the variance that is tracked is the unbiased one.
    fn track(&mut self, moments: &Moments) {
        let unbiased = (moments.count - 1) as f64;
        for (running, mean) in self.mean.iter_mut().zip(&moments.mean) {
            *running = (f64::from(*running) * (1.0 - MOMENTUM) + mean * MOMENTUM) as f32;
        }
        for (running, squares) in self.variance.iter_mut().zip(&moments.squares) {
            *running = (f64::from(*running) * (1.0 - MOMENTUM) + squares / unbiased * MOMENTUM) as f32;
        }
        self.num_batches_tracked += 1;
    }
}

/// What a batch norm did to a batch, kept for the way back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BatchStatistics {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    affine: Affine,
}

impl BatchStatistics {
    fn from_moments(moments: &Moments, bn: BnParameters<'_>) -> Self {
        let count = moments.count as f64;
        let inv_std: Vec<f64> = moments.squares.iter().map(|s| 1.0 / (s / count + EPSILON).sqrt()).collect();
        Self {
            mean: moments.mean.iter().map(|m| *m as f32).collect(),
            affine: affine(bn, &moments.mean, &inv_std),
            inv_std: inv_std.iter().map(|i| *i as f32).collect(),
        }
    }
}

fn affine(bn: BnParameters<'_>, mean: &[f64], inv_std: &[f64]) -> Affine {
    let scale: Vec<f64> = bn.scale.iter().zip(inv_std).map(|(s, i)| f64::from(*s) * i).collect();
    let shift = bn.shift.iter().zip(&scale).zip(mean).map(|((b, s), m)| (f64::from(*b) - m * s) as f32).collect();
    Affine { scale: scale.iter().map(|s| *s as f32).collect(), shift }
}

/// What the forward pass in training writes.
#[derive(Debug)]
pub(crate) struct TrainBuffers<'a> {
    /// Output of the convolution.
    pub(crate) conv_output: &'a mut [f32],
    /// Output of the layer.
    pub(crate) output: &'a mut [f32],
    /// Batch statistics.
    pub(crate) statistics: &'a mut BatchStatistics,
    /// Running statistics, moved towards the batch.
    pub(crate) running: &'a mut RunningStatistics,
}

/// What the backward pass reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept<'a> {
    /// Output of the convolution.
    pub(crate) conv_output: &'a [f32],
    /// Output of the layer.
    pub(crate) output: &'a [f32],
    /// Batch statistics.
    pub(crate) statistics: &'a BatchStatistics,
}

/// Gradients of one layer's parameters; backward adds to them.
#[derive(Debug)]
pub(crate) struct ParameterGradients<'a> {
    pub(crate) weight: &'a mut [f32],
    pub(crate) scale: &'a mut [f32],
    pub(crate) shift: &'a mut [f32],
}

impl ConvBn {
    /// Shape of the output, or nothing where the kernel does not fit.
    pub fn output_dims(&self, input: Dims) -> Option<Dims> {
        Some(Dims {
            height: window_output(input.height, self.kernel, self.stride, self.padding)?,
            width: window_output(input.width, self.kernel, self.stride, self.padding)?,
            channels: self.out_channels,
        })
    }

    /// Multiply-adds of the convolution for one image.
    pub fn multiply_adds(&self, output: Dims) -> u64 {
        output.len() as u64 * (self.kernel * self.kernel * self.in_channels) as u64
    }

    /// The shape for `n` images.
    pub(crate) fn shape(&self, n: usize, input: Dims, output: Dims) -> ConvShape {
        ConvShape { n, input, output, kernel: self.kernel, stride: self.stride, padding: self.padding }
    }
}

/// Forward with batch statistics.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn forward_train(
    shape: &ConvShape,
    weight: Weights<'_>,
    bn: BnParameters<'_>,
    input: &[f32],
    residual: Residual<&[f32]>,
    relu: bool,
    buffers: &mut TrainBuffers<'_>,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let channels = shape.output.channels;
    let parts =
        conv::forward(shape, input, weight, buffers.conv_output, prepared, scratch, |_, y| Moments::of(y, channels));
    let moments = Moments::merge(&parts, channels);
    buffers.running.track(&moments);
    *buffers.statistics = BatchStatistics::from_moments(&moments, bn);
    batch_norm::normalize(buffers.conv_output, &buffers.statistics.affine, residual, relu, buffers.output);
}

/// Forward with running statistics.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn forward_eval(
    shape: &ConvShape,
    weight: Weights<'_>,
    bn: BnParameters<'_>,
    running: &RunningStatistics,
    input: &[f32],
    residual: Residual<&[f32]>,
    relu: bool,
    output: &mut [f32],
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let mean: Vec<f64> = running.mean.iter().map(|m| f64::from(*m)).collect();
    let inv_std: Vec<f64> = running.variance.iter().map(|v| 1.0 / (f64::from(*v) + EPSILON).sqrt()).collect();
    let affine = affine(bn, &mean, &inv_std);
    let channels = shape.output.channels;
    conv::forward(shape, input, weight, output, prepared, scratch, |first, y| {
        let residual = residual.map(|r| &r[first * channels..][..y.len()]);
        batch_norm::normalize_block(y, &affine, residual, relu);
    });
}

/// First half of the way back, through ReLU, residual and batch norm: turns `d` from the gradient of the layer's
/// output into that of the convolution's output.
pub(crate) fn backward_norm(
    kept: &Kept<'_>,
    relu: bool,
    residual: Residual<ResidualGradient<'_>>,
    d: &mut [f32],
    gradients: &mut ParameterGradients<'_>,
) {
    let BatchStatistics { mean, inv_std, affine } = kept.statistics;
    let input = BackwardInput { y: kept.conv_output, output: kept.output, affine, mean, inv_std };
    batch_norm::backward(input, relu, residual, d, gradients.scale, gradients.shift);
}

/// Second half, through the convolution; `d_input` is absent where nobody wants it, and added to on `true`.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn backward_conv(
    shape: &ConvShape,
    weight: Weights<'_>,
    input: &[f32],
    d: &[f32],
    d_weight: &mut [f32],
    d_input: Option<(&mut [f32], bool)>,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    conv::weight_gradient(shape, input, d, d_weight, scratch);
    if let Some((d_input, accumulate)) = d_input {
        conv::data_gradient(shape, d, weight, d_input, accumulate, prepared, scratch);
    }
}
