//! Convolution without bias and batch norm, with the residual and the ReLU that follow.

use super::super::cpu::batch_norm::{self, Affine, BackwardInput, Moments, ResidualGradient};
use super::super::cpu::conv::{self, ConvShape};
use super::super::cpu::pooled_norm::{self, PoolShape, Winners};
use super::super::cpu::prepared::{PreparedWeights, Weights};
use super::super::op::Residual;
use super::{Dims, window_output};
use crate::kernels::scratch::Scratch;
use crate::profile::{Work, span};

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
    /// Batch statistics, one entry a view.
    pub(crate) statistics: &'a mut [BatchStatistics],
    /// Running statistics, moved towards the batch.
    pub(crate) running: &'a mut RunningStatistics,
    /// Winners of the pool's windows, if there is a pool.
    pub(crate) winners: &'a mut Winners,
}

/// What the backward pass reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept<'a> {
    /// Output of the layer; may be empty where no residual entered before the ReLU.
    pub(crate) output: &'a [f32],
    /// Batch statistics, one entry a view.
    pub(crate) statistics: &'a [BatchStatistics],
}

/// Gradients of one layer's parameters; backward writes them, or adds to them.
#[derive(Debug)]
pub(crate) struct ParameterGradients<'a> {
    pub(crate) weight: &'a mut [f32],
    pub(crate) scale: &'a mut [f32],
    pub(crate) shift: &'a mut [f32],
    /// Whether to add.
    pub(crate) accumulate: bool,
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

/// Forward with batch statistics. The batch is made of as many views of equal size as there are entries for their
/// statistics; each view is normalised with its own, and the running statistics follow them in turn.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn forward_train(
    shape: &ConvShape,
    weight: Weights<'_>,
    bn: BnParameters<'_>,
    input: &[f32],
    residual: Residual<&[f32]>,
    relu: bool,
    pool: Option<PoolShape>,
    buffers: &mut TrainBuffers<'_>,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let channels = shape.output.channels;
    let views = buffers.statistics.len();
    let (view_len, out_len) = (buffers.conv_output.len() / views, buffers.output.len() / views);
    let parts = span(Work::Convolution, shape.flop(), || {
        conv::forward(shape, input, weight, buffers.conv_output, prepared, scratch, |first, y| {
            moments_by_view(first * channels, y, view_len, channels)
        })
    });
    let parts: Vec<(usize, Moments)> = parts.into_iter().flatten().collect();
    span(Work::Norm, 0.0, || {
        let views = buffers.conv_output.chunks_exact(view_len).zip(buffers.output.chunks_exact_mut(out_len));
        for (view, ((y, out), statistics)) in views.zip(&mut *buffers.statistics).enumerate() {
            let moments = Moments::merge(parts.iter().filter(|part| part.0 == view).map(|part| &part.1), channels);
            buffers.running.track(&moments);
            *statistics = BatchStatistics::from_moments(&moments, bn);
            let affine = &statistics.affine;
            if let Some(pool) = pool {
                let places = &mut buffers.winners.places[view * out_len..][..out_len];
                let values = &mut buffers.winners.values[view * out_len..][..out_len];
                pooled_norm::forward_train(pool, y, affine, relu, out, places, values);
            } else {
                let residual = residual.map(|r| &r[view * view_len..][..view_len]);
                batch_norm::normalize(y, affine, residual, relu, out);
            }
        }
    });
}

/// Moments of the values that begin at `first` in a batch, cut where a view ends.
fn moments_by_view(first: usize, y: &[f32], view_len: usize, channels: usize) -> Vec<(usize, Moments)> {
    let mut parts = Vec::with_capacity(1);
    let (mut first, mut y) = (first, y);
    while !y.is_empty() {
        let view = first / view_len;
        let (part, rest) = y.split_at(y.len().min((view + 1) * view_len - first));
        parts.push((view, Moments::of(part, channels)));
        (first, y) = (first + part.len(), rest);
    }
    parts
}

/// Forward with running statistics. With a pool, the convolution's output goes to memory of its own.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn forward_eval(
    shape: &ConvShape,
    weight: Weights<'_>,
    bn: BnParameters<'_>,
    running: &RunningStatistics,
    input: &[f32],
    residual: Residual<&[f32]>,
    relu: bool,
    pool: Option<(PoolShape, &mut [f32])>,
    output: &mut [f32],
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let mean: Vec<f64> = running.mean.iter().map(|m| f64::from(*m)).collect();
    let inv_std: Vec<f64> = running.variance.iter().map(|v| 1.0 / (f64::from(*v) + EPSILON).sqrt()).collect();
    let affine = affine(bn, &mean, &inv_std);
    let channels = shape.output.channels;
    if let Some((pool, conv_output)) = pool {
        span(Work::Convolution, shape.flop(), || {
            conv::forward(shape, input, weight, conv_output, prepared, scratch, |_, _| ());
        });
        span(Work::Norm, 0.0, || pooled_norm::forward(pool, conv_output, &affine, relu, output));
        return;
    }
    span(Work::Convolution, shape.flop(), || {
        conv::forward(shape, input, weight, output, prepared, scratch, |first, y| {
            let residual = residual.map(|r| &r[first * channels..][..y.len()]);
            batch_norm::normalize_block(y, &affine, residual, relu);
        })
    });
}

/// First half of the way back, through ReLU, residual and batch norm: given the gradient `d` of the layer's output,
/// turns `conv_output` from the output of the convolution into its gradient. What is left in `d` is the residual's share.
pub(crate) fn backward_norm(
    kept: &Kept<'_>,
    relu: bool,
    residual: Residual<ResidualGradient<'_>>,
    d: &mut [f32],
    conv_output: &mut [f32],
    gradients: &mut ParameterGradients<'_>,
) {
    let view_len = d.len() / kept.statistics.len();
    if !gradients.accumulate {
        gradients.scale.fill(0.0);
        gradients.shift.fill(0.0);
    }
    // The residual's gradient in the same parts as `d`; the images want none.
    let mut residual = residual;
    span(Work::NormGradient, 0.0, || {
        let views = d.chunks_exact_mut(view_len).zip(conv_output.chunks_exact_mut(view_len)).zip(kept.statistics);
        for (view, ((d, y), statistics)) in views.enumerate() {
            let BatchStatistics { mean, inv_std, affine } = statistics;
            let range = view * view_len..(view + 1) * view_len;
            let input =
                BackwardInput { output: kept.output.get(range.clone()).unwrap_or_default(), affine, mean, inv_std };
            let part = residual.as_mut().map(|(target, accumulate)| {
                let part = if target.is_empty() { &mut [][..] } else { &mut target[range.clone()] };
                (part, *accumulate)
            });
            batch_norm::backward(input, relu, part, d, y, gradients.scale, gradients.shift);
        }
    });
}

/// The same through a max-pool: `d` is the gradient of the pool's output, and `conv_output` is turned from the output of
/// the convolution into its gradient.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
pub(crate) fn backward_pooled_norm(
    pool: PoolShape,
    winners: &Winners,
    kept: &Kept<'_>,
    relu: bool,
    d: &mut [f32],
    conv_output: &mut [f32],
    gradients: &mut ParameterGradients<'_>,
) {
    let Kept { output, statistics } = kept;
    let (view_len, out_len) = (conv_output.len() / statistics.len(), d.len() / statistics.len());
    if !gradients.accumulate {
        gradients.scale.fill(0.0);
        gradients.shift.fill(0.0);
    }
    span(Work::NormGradient, 0.0, || {
        let views = d.chunks_exact_mut(out_len).zip(conv_output.chunks_exact_mut(view_len)).zip(*statistics);
        for (view, ((d, y), statistics)) in views.enumerate() {
            let range = view * out_len..(view + 1) * out_len;
            let BatchStatistics { mean, inv_std, affine } = statistics;
            let won = BackwardInput { output: output.get(range.clone()).unwrap_or_default(), affine, mean, inv_std };
            let (values, places) = (&winners.values[range.clone()], &winners.places[range]);
            pooled_norm::backward(pool, won, values, places, relu, d, y, gradients.scale, gradients.shift);
        }
    });
}

/// Second half, through the convolution: the gradient of its weights, written, or added to.
pub(crate) fn weight_gradient(
    shape: &ConvShape,
    input: &[f32],
    d: &[f32],
    d_weight: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
) {
    span(Work::WeightGradient, shape.flop(), || conv::weight_gradient(shape, input, d, d_weight, accumulate, scratch));
}

/// And that of its input, written, or added to on `true`.
pub(crate) fn data_gradient(
    shape: &ConvShape,
    d: &[f32],
    weight: Weights<'_>,
    (d_input, accumulate): (&mut [f32], bool),
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    span(Work::DataGradient, shape.flop(), || {
        conv::data_gradient(shape, d, weight, d_input, accumulate, prepared, scratch);
    });
}
