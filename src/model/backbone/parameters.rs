//! All trained values in one flat buffer, their gradients in another, and the layout between here and PyTorch.

use super::cpu::prepared::Weights;
use super::layers::ConvBn;
use super::layers::conv_bn::{BnParameters, ParameterGradients, RunningStatistics};
use super::program::Program;

/// Values, gradients and running statistics of one network.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    values: Vec<f32>,
    gradients: Vec<f32>,
    /// Whether the gradients hold anything; what they hold otherwise is forgotten.
    has_gradients: bool,
    pub(super) running: Vec<RunningStatistics>,
    /// Counts how often the values may have changed; never 0.
    version: u64,
}

impl Parameters {
    pub(super) fn new(program: &Program, values: Vec<f32>) -> Self {
        let gradients = vec![0.0; values.len()];
        let running = program.norms.iter().map(|norm| RunningStatistics::new(norm.channels)).collect();
        Self { values, gradients, has_gradients: true, running, version: 1 }
    }

    /// The values.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Values to be changed, and the gradients.
    pub(super) fn change(&mut self) -> (&mut [f32], &[f32]) {
        self.version += 1;
        self.complete_gradients();
        (&mut self.values, &self.gradients)
    }

    /// Forgets the gradients: the next backward pass writes them where it would add to them.
    pub(super) fn forget_gradients(&mut self) {
        self.has_gradients = false;
    }

    /// Says that a backward pass begins; whether it has to add to what is there.
    pub(super) fn begin_gradients(&mut self) -> bool {
        std::mem::replace(&mut self.has_gradients, true)
    }

    /// Forgotten gradients become zeros.
    fn complete_gradients(&mut self) {
        if !self.begin_gradients() {
            self.gradients.fill(0.0);
        }
    }

    /// The gradients.
    pub(super) fn gradients(&mut self) -> &[f32] {
        self.complete_gradients();
        &self.gradients
    }

    /// The kernel of a layer.
    pub(super) fn weight(&self, program: &Program, layer: &ConvBn) -> Weights<'_> {
        Weights { values: slice(program, &self.values, layer.weight), version: self.version }
    }

    /// The batch norm of a layer.
    pub(super) fn bn(&self, program: &Program, layer: &ConvBn) -> BnParameters<'_> {
        BnParameters {
            scale: slice(program, &self.values, layer.scale),
            shift: slice(program, &self.values, layer.shift),
        }
    }

    /// The kernel of a layer and its gradients.
    pub(super) fn weight_and_gradients(
        &mut self,
        program: &Program,
        layer: &ConvBn,
        accumulate: bool,
    ) -> (Weights<'_>, ParameterGradients<'_>) {
        // The builder lays out a layer's kernel, scale and shift one after the other.
        let specs = &program.parameters;
        let rest = &mut self.gradients[specs[layer.weight].offset..];
        let (weight, rest) = rest.split_at_mut(specs[layer.weight].len);
        let (scale, rest) = rest.split_at_mut(specs[layer.scale].len);
        let shift = &mut rest[..specs[layer.shift].len];
        let values = slice(program, &self.values, layer.weight);
        (Weights { values, version: self.version }, ParameterGradients { weight, scale, shift, accumulate })
    }
}

fn slice<'a>(program: &Program, values: &'a [f32], parameter: usize) -> &'a [f32] {
    let spec = &program.parameters[parameter];
    &values[spec.offset..][..spec.len]
}

/// From PyTorch's `[out, in, k, k]` to `[k, k, in, out]`; vectors stay as they are.
pub(super) fn to_internal(shape: &[usize], torch: &[f32], internal: &mut [f32]) {
    permute(shape, |torch_idx, internal_idx| internal[internal_idx] = torch[torch_idx]);
}

/// The way back.
pub(super) fn to_torch(shape: &[usize], internal: &[f32], torch: &mut [f32]) {
    permute(shape, |torch_idx, internal_idx| torch[torch_idx] = internal[internal_idx]);
}

fn permute(shape: &[usize], mut pair: impl FnMut(usize, usize)) {
    if let &[cout, cin, height, width] = shape {
        let taps = height * width;
        for tap in 0..taps {
            for i in 0..cin {
                for o in 0..cout {
                    pair((o * cin + i) * taps + tap, (tap * cin + i) * cout + o);
                }
            }
        }
    } else {
        (0..shape.iter().product()).for_each(|idx| pair(idx, idx));
    }
}
