//! Batch norm with the residual and the ReLU that follow it, in one sweep forward and two backward.

use crate::kernels::multiversion;
use rayon::prelude::*;

use super::super::op::Residual;
use crate::kernels::shared_mut::SharedMut;

/// Positions of one partial sum: `f32` inside, `f64` between them.
const BLOCK: usize = 128;

/// Mean and variance of each channel over a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    /// Mean.
    pub(crate) mean: Vec<f64>,
    /// Sum of squared deviations from the mean.
    pub(crate) squares: Vec<f64>,
    /// Values per channel.
    pub(crate) count: usize,
}

impl Moments {
    fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], squares: vec![0.0; channels], count: 0 }
    }

    /// Moments of `y` `[positions, channels]`: exact two-pass moments of each block, merged in order.
    pub(crate) fn of(y: &[f32], channels: usize) -> Self {
        let mut partial = vec![0.0_f32; 2 * channels];
        let mut moments = Self::none(channels);
        for y in y.chunks(BLOCK * channels) {
            block_moments(y, channels, &mut partial);
            let (means, squares) = partial.split_at(channels);
            moments.merge_pairs(
                y.len() / channels,
                means.iter().zip(squares).map(|(m, s)| (f64::from(*m), f64::from(*s))),
            );
        }
        moments
    }

    /// Merges the moments of parts in order (Chan et al.).
    pub(crate) fn merge<'a>(parts: impl Iterator<Item = &'a Moments>, channels: usize) -> Self {
        let mut moments = Self::none(channels);
        for part in parts {
            moments.merge_pairs(part.count, part.mean.iter().copied().zip(part.squares.iter().copied()));
        }
        moments
    }

    fn merge_pairs(&mut self, count: usize, pairs: impl Iterator<Item = (f64, f64)>) {
        let total = (self.count + count) as f64;
        let (share, cross) = (count as f64 / total, self.count as f64 * count as f64 / total);
        for ((mean, squares), (part_mean, part_squares)) in self.mean.iter_mut().zip(&mut self.squares).zip(pairs) {
            let delta = part_mean - *mean;
            *mean += delta * share;
            *squares += part_squares + delta * delta * cross;
        }
        self.count += count;
    }
}

multiversion! {
    fn block_moments(y: &[f32], channels: usize, partial: &mut [f32]) {
        let (mean, squares) = partial.split_at_mut(channels);
        let inverse = 1.0 / (y.len() / channels) as f32;
        mean.fill(0.0);
        squares.fill(0.0);
        for row in y.chunks_exact(channels) {
            for (m, v) in mean.iter_mut().zip(row) {
                *m += v;
            }
        }
        for m in mean.iter_mut() {
            *m *= inverse;
        }
        for row in y.chunks_exact(channels) {
            for ((s, m), v) in squares.iter_mut().zip(&*mean).zip(row) {
                let d = v - m;
                *s += d * d;
            }
        }
    }
}

/// What turns a value of the convolution into one of the batch norm: `y * scale + shift`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

const NO_RESIDUAL: u8 = 0;
const BEFORE_RELU: u8 = 1;
const AFTER_RELU: u8 = 2;

/// Positions of one elementwise task.
fn elementwise_block(channels: usize) -> usize {
    (1_usize << 15).div_ceil(channels)
}

/// `out = relu(y * scale + shift + r)` in the variants of `residual` and `relu`.
pub(crate) fn normalize(y: &[f32], affine: &Affine, residual: Residual<&[f32]>, relu: bool, out: &mut [f32]) {
    let block = elementwise_block(affine.scale.len()) * affine.scale.len();
    out.par_chunks_mut(block).zip(y.par_chunks(block)).enumerate().for_each(|(idx, (out, y))| {
        let residual = residual.map(|r| &r[idx * block..][..y.len()]);
        let (scale, shift) = (&affine.scale, &affine.shift);
        match variant(residual, relu) {
            (NO_RESIDUAL, false) => normalize_rows::<NO_RESIDUAL, false>(y, scale, shift, &[], out),
            (NO_RESIDUAL, _) => normalize_rows::<NO_RESIDUAL, true>(y, scale, shift, &[], out),
            (BEFORE_RELU, _) => normalize_rows::<BEFORE_RELU, true>(y, scale, shift, added(residual), out),
            (_, false) => normalize_rows::<AFTER_RELU, false>(y, scale, shift, added(residual), out),
            (_, true) => normalize_rows::<AFTER_RELU, true>(y, scale, shift, added(residual), out),
        }
    });
}

/// `normalize` in place, on this thread.
pub(crate) fn normalize_block(y: &mut [f32], affine: &Affine, residual: Residual<&[f32]>, relu: bool) {
    let (scale, shift) = (&affine.scale, &affine.shift);
    match variant(residual, relu) {
        (NO_RESIDUAL, false) => normalize_in_place::<NO_RESIDUAL, false>(y, scale, shift, &[]),
        (NO_RESIDUAL, _) => normalize_in_place::<NO_RESIDUAL, true>(y, scale, shift, &[]),
        (BEFORE_RELU, _) => normalize_in_place::<BEFORE_RELU, true>(y, scale, shift, added(residual)),
        (_, false) => normalize_in_place::<AFTER_RELU, false>(y, scale, shift, added(residual)),
        (_, true) => normalize_in_place::<AFTER_RELU, true>(y, scale, shift, added(residual)),
    }
}

fn added(residual: Residual<&[f32]>) -> &[f32] {
    residual.added().unwrap_or(&[])
}

/// Where the residual enters; without a ReLU both places are the same.
fn variant(residual: Residual<&[f32]>, relu: bool) -> (u8, bool) {
    match residual {
        Residual::None => (NO_RESIDUAL, relu),
        Residual::BeforeRelu(_) if relu => (BEFORE_RELU, relu),
        Residual::BeforeRelu(_) | Residual::AfterRelu(_) => (AFTER_RELU, relu),
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "must be inlined into the function that has the target feature")]
fn normalized<const RESIDUAL: u8, const RELU: bool>(y: f32, scale: f32, shift: f32, added: f32) -> f32 {
    let mut v = y * scale + shift;
    if RESIDUAL == BEFORE_RELU {
        v += added;
    }
    if RELU {
        // Written so that NaN stays NaN.
        v = if v < 0.0 { 0.0 } else { v };
    }
    if RESIDUAL == AFTER_RELU {
        v += added;
    }
    v
}

multiversion! {
    fn normalize_rows<const RESIDUAL: u8, const RELU: bool>(
        y: &[f32],
        scale: &[f32],
        shift: &[f32],
        residual: &[f32],
        out: &mut [f32],
    ) {
        let channels = scale.len();
        let shift = &shift[..channels];
        for (idx, (out, y)) in out.chunks_exact_mut(channels).zip(y.chunks_exact(channels)).enumerate() {
            let added = if RESIDUAL == NO_RESIDUAL { scale } else { &residual[idx * channels..][..channels] };
            for c in 0..channels {
                out[c] = normalized::<RESIDUAL, RELU>(y[c], scale[c], shift[c], added[c]);
            }
        }
    }
}

multiversion! {
    fn normalize_in_place<const RESIDUAL: u8, const RELU: bool>(
        y: &mut [f32],
        scale: &[f32],
        shift: &[f32],
        residual: &[f32],
    ) {
        let channels = scale.len();
        let shift = &shift[..channels];
        for (idx, y) in y.chunks_exact_mut(channels).enumerate() {
            let added = if RESIDUAL == NO_RESIDUAL { scale } else { &residual[idx * channels..][..channels] };
            for c in 0..channels {
                y[c] = normalized::<RESIDUAL, RELU>(y[c], scale[c], shift[c], added[c]);
            }
        }
    }
}

/// What the backward pass of one batch norm reads beside the output of the convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardInput<'a> {
    /// Output of the layer; only looked at where a residual entered before the ReLU.
    pub(crate) output: &'a [f32],
    /// The forward transform.
    pub(crate) affine: &'a Affine,
    /// Batch mean.
    pub(crate) mean: &'a [f32],
    /// One over the batch's standard deviation.
    pub(crate) inv_std: &'a [f32],
}

/// The gradient that a residual receives: `true` adds to what is there.
pub(crate) type ResidualGradient<'a> = (&'a mut [f32], bool);

/// No ReLU.
const NO_MASK: u8 = 0;
/// The ReLU's mask follows from `y` alone.
const MASK_BY_Y: u8 = 1;
/// A residual entered before the ReLU: the mask follows from the output.
const MASK_BY_OUTPUT: u8 = 2;

/// Nothing to pass on.
const PASS_NOTHING: u8 = 0;
/// The residual's gradient is written.
const WRITE: u8 = 1;
/// The residual's gradient is added.
const ADD: u8 = 2;

/// Turns `y` `[positions, channels]` from the output of the convolution into its gradient, given the gradient `d` of the
/// layer's output, adds to the gradients of scale and shift, and passes on the residual's share. What is left in `d` is
/// that share, too.
pub(crate) fn backward(
    input: BackwardInput<'_>,
    relu: bool,
    residual: Residual<ResidualGradient<'_>>,
    d: &mut [f32],
    y: &mut [f32],
    d_scale: &mut [f32],
    d_shift: &mut [f32],
) {
    let channels = input.mean.len();
    let mask = match (relu, &residual) {
        (false, _) => NO_MASK,
        (true, Residual::BeforeRelu(_)) => MASK_BY_OUTPUT,
        (true, Residual::None | Residual::AfterRelu(_)) => MASK_BY_Y,
    };
    let (target, pass) = match residual.added() {
        None => (&mut [][..], PASS_NOTHING),
        // The images want no gradient, and who shares the memory of `d` has it already.
        Some((target, _)) if target.is_empty() => (target, PASS_NOTHING),
        Some((target, accumulate)) => (target, if accumulate { ADD } else { WRITE }),
    };

    let partials = first_sweeps(input, mask, pass, target, d, y);
    let NormGradient { mean_d, slope } =
        NormGradient::from_partials(&partials, d.len() / channels, input.inv_std, d_scale, d_shift);

    let block = elementwise_block(channels) * channels;
    d.par_chunks(block).zip(y.par_chunks_mut(block)).for_each(|(d, y)| {
        let BackwardInput { affine, mean, .. } = input;
        if mask == MASK_BY_Y {
            second_sweep::<true>(d, y, &affine.scale, &affine.shift, mean, &mean_d, &slope);
        } else {
            second_sweep::<false>(d, y, &affine.scale, &affine.shift, mean, &mean_d, &slope);
        }
    });
}

/// The first sweep over all blocks: sums of the gradient and of its product with the standardised value, for each block.
fn first_sweeps(
    input: BackwardInput<'_>,
    mask: u8,
    pass: u8,
    target: &mut [f32],
    d: &mut [f32],
    y: &[f32],
) -> Vec<f32> {
    let channels = input.mean.len();
    let block = BLOCK * channels;
    let mut partials = vec![0.0_f32; d.len().div_ceil(block) * 2 * channels];
    let target = SharedMut::new(target);
    partials.par_chunks_mut(2 * channels).zip(d.par_chunks_mut(block)).enumerate().for_each(|(idx, (partial, d))| {
        let range = idx * block..idx * block + d.len();
        let target = if pass == PASS_NOTHING {
            &mut [][..]
        } else {
            // SAFETY: the parts of different blocks do not overlap.
            unsafe { target.part(range.clone()) }
        };
        let y = &y[range.clone()];
        let part = BackwardInput { output: input.output.get(range).unwrap_or_default(), ..input };
        match (mask, pass) {
            (NO_MASK, PASS_NOTHING) => first_sweep::<NO_MASK, PASS_NOTHING>(part, y, d, target, partial),
            (NO_MASK, WRITE) => first_sweep::<NO_MASK, WRITE>(part, y, d, target, partial),
            (NO_MASK, _) => first_sweep::<NO_MASK, ADD>(part, y, d, target, partial),
            (MASK_BY_Y, PASS_NOTHING) => first_sweep::<MASK_BY_Y, PASS_NOTHING>(part, y, d, target, partial),
            (MASK_BY_Y, WRITE) => first_sweep::<MASK_BY_Y, WRITE>(part, y, d, target, partial),
            (MASK_BY_Y, _) => first_sweep::<MASK_BY_Y, ADD>(part, y, d, target, partial),
            (_, PASS_NOTHING) => first_sweep::<MASK_BY_OUTPUT, PASS_NOTHING>(part, y, d, target, partial),
            (_, WRITE) => first_sweep::<MASK_BY_OUTPUT, WRITE>(part, y, d, target, partial),
            (_, _) => first_sweep::<MASK_BY_OUTPUT, ADD>(part, y, d, target, partial),
        }
    });
    partials
}

/// What every position of the gradient of a batch norm has in common.
#[derive(Clone, Debug)]
pub(super) struct NormGradient {
    /// Mean of the gradient.
    pub(super) mean_d: Vec<f32>,
    /// How much of it follows the value.
    pub(super) slope: Vec<f32>,
}

impl NormGradient {
    /// From partial sums over `count` positions; adds to the gradients of scale and shift.
    fn from_partials(
        partials: &[f32],
        count: usize,
        inv_std: &[f32],
        d_scale: &mut [f32],
        d_shift: &mut [f32],
    ) -> Self {
        let channels = inv_std.len();
        let mut sums = vec![0.0_f64; 2 * channels];
        for partial in partials.chunks(2 * channels) {
            for (sum, p) in sums.iter_mut().zip(partial) {
                *sum += f64::from(*p);
            }
        }
        let count = count as f64;
        for c in 0..channels {
            d_shift[c] += sums[c] as f32;
            d_scale[c] += sums[channels + c] as f32;
        }
        Self {
            mean_d: sums[..channels].iter().map(|s| (s / count) as f32).collect(),
            slope: sums[channels..].iter().zip(inv_std).map(|(s, inv)| (s / count * f64::from(*inv)) as f32).collect(),
        }
    }
}

/// The first half of [`backward`] where only some of `positions` have a gradient: `d`, `y` and `input` hold those. Adds to
/// the gradients of scale and shift.
pub(super) fn gradient_of_norm(
    input: BackwardInput<'_>,
    relu: bool,
    d: &mut [f32],
    y: &[f32],
    positions: usize,
    d_scale: &mut [f32],
    d_shift: &mut [f32],
) -> NormGradient {
    let mask = if relu { MASK_BY_Y } else { NO_MASK };
    let partials = first_sweeps(input, mask, PASS_NOTHING, &mut [], d, y);
    NormGradient::from_partials(&partials, positions, input.inv_std, d_scale, d_shift)
}

multiversion! {
    /// Passes on the residual's share, masks `d` where the second sweep cannot find the mask by itself, and sums the
    /// masked gradient and its product with the standardised value.
    fn first_sweep<const MASK: u8, const PASS: u8>(
        input: BackwardInput<'_>,
        y: &[f32],
        d: &mut [f32],
        target: &mut [f32],
        partial: &mut [f32],
    ) {
        let BackwardInput { output, affine, mean, inv_std } = input;
        let channels = mean.len();
        let (scale, shift, mean) = (&affine.scale[..channels], &affine.shift[..channels], &mean[..channels]);
        let (sum, product) = partial.split_at_mut(channels);
        let product = &mut product[..channels];
        sum.fill(0.0);
        product.fill(0.0);
        for (idx, d) in d.chunks_exact_mut(channels).enumerate() {
            let row = idx * channels..(idx + 1) * channels;
            let y = &y[row.clone()];
            let output = if MASK == MASK_BY_OUTPUT { &output[row.clone()] } else { y };
            for c in 0..channels {
                let on = match MASK {
                    NO_MASK => true,
                    MASK_BY_Y => y[c] * scale[c] + shift[c] > 0.0,
                    _ => output[c] > 0.0,
                };
                let dz = if on { d[c] } else { 0.0 };
                sum[c] += dz;
                product[c] += dz * (y[c] - mean[c]);
            }
            if MASK == MASK_BY_OUTPUT {
                for c in 0..channels {
                    d[c] = if output[c] > 0.0 { d[c] } else { 0.0 };
                }
            }
            if PASS == WRITE {
                target[row].copy_from_slice(d);
            } else if PASS == ADD {
                for (t, d) in target[row].iter_mut().zip(&*d) {
                    *t += d;
                }
            }
        }
        for (p, inv) in product.iter_mut().zip(inv_std) {
            *p *= inv;
        }
    }
}

multiversion! {
    /// `y = scale * (dz - mean(dz) - (y - mean) * slope)`; `scale` already holds gamma over the deviation.
    fn second_sweep<const MASKED: bool>(
        d: &[f32],
        y: &mut [f32],
        scale: &[f32],
        shift: &[f32],
        mean: &[f32],
        mean_d: &[f32],
        slope: &[f32],
    ) {
        let channels = scale.len();
        let (shift, mean, mean_d, slope) =
            (&shift[..channels], &mean[..channels], &mean_d[..channels], &slope[..channels]);
        for (d, y) in d.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for c in 0..channels {
                let dz = if !MASKED || y[c] * scale[c] + shift[c] > 0.0 { d[c] } else { 0.0 };
                y[c] = scale[c] * (dz - mean_d[c] - (y[c] - mean[c]) * slope[c]);
            }
        }
    }
}
