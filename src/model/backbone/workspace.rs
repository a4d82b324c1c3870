//! Memory of the passes: allocated once for a shape, used again at every step, never cleared.

use super::cpu::conv;
use super::cpu::pooled_norm::Winners;
use super::cpu::prepared::PreparedWeights;
use super::layers::Dims;
use super::layers::conv_bn::BatchStatistics;
use super::memory_plan::{Lifetime, MemoryPlan, plan_memory};
use super::op::{Op, Residual, Slot};
use super::program::{IMAGES, Program};
use crate::kernels::scratch::Scratch;

/// Buffers addressed by number; one that is written is taken out while others are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    buffers: Vec<Vec<f32>>,
}

impl Buffers {
    /// Makes the buffers fit; what fits already is left alone, whatever it holds.
    fn fit(&mut self, lengths: impl ExactSizeIterator<Item = usize>) {
        self.buffers.resize_with(lengths.len(), Vec::new);
        for (buffer, len) in self.buffers.iter_mut().zip(lengths) {
            if buffer.len() < len {
                // Not `resize`: the old content would be copied.
                *buffer = vec![0.0; len];
            }
        }
    }

    pub(super) fn get(&self, idx: usize, len: usize) -> &[f32] {
        &self.buffers[idx][..len]
    }

    pub(super) fn take(&mut self, idx: usize) -> Vec<f32> {
        std::mem::take(&mut self.buffers[idx])
    }

    pub(super) fn put(&mut self, idx: usize, buffer: Vec<f32>) {
        self.buffers[idx] = buffer;
    }
}

/// What kernels work with: passing memory, and the weights as they want them.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    scratch: Scratch,
    /// One entry an operation, for weights that stay as they are.
    prepared: Vec<PreparedWeights>,
    /// For weights that change before they are used again: one memory for all operations.
    passing: PreparedWeights,
}

impl Workspace {
    /// Passing memory and the prepared weights of operation `idx`, kept from call to call.
    pub(super) fn kept(&mut self, idx: usize) -> (&mut Scratch, &mut PreparedWeights) {
        if self.prepared.len() <= idx {
            self.prepared.resize_with(idx + 1, PreparedWeights::default);
        }
        (&mut self.scratch, &mut self.prepared[idx])
    }

    /// Passing memory, and memory for prepared weights that nobody wants to see again.
    pub(super) fn passing(&mut self) -> (&mut Scratch, &mut PreparedWeights) {
        self.passing.forget();
        (&mut self.scratch, &mut self.passing)
    }
}

/// What one forward pass in training keeps for its way back.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// Images in all views; 0 while nothing is kept.
    pub(super) n: usize,
    /// Shape of every slot.
    pub(super) dims: Vec<Dims>,
    /// One buffer a slot.
    pub(super) slots: Buffers,
    /// One buffer an operation: what its convolution gave.
    pub(super) conv_outputs: Buffers,
    /// By operation, for those with a pool.
    pub(super) winners: Vec<Winners>,
    /// By operation and view.
    pub(super) statistics: Vec<Vec<BatchStatistics>>,
}

impl Pass {
    /// Makes room for a batch; nothing is kept until the forward pass is complete.
    pub(super) fn fit(&mut self, program: &Program, dims: Vec<Dims>, n: usize, views: usize) {
        self.n = 0;
        self.slots.fit(dims.iter().map(|d| n * d.len()));
        self.conv_outputs.fit(program.ops.iter().map(|op| match op {
            Op::ConvBn { .. } => n * Program::conv_dims(op, &dims).len(),
            Op::GlobalPool { .. } => 0,
        }));
        self.winners.resize_with(program.ops.len(), Winners::default);
        for (winners, op) in self.winners.iter_mut().zip(&program.ops) {
            if let Op::ConvBn { pool: Some(_), output, .. } = op {
                winners.fit(n * dims[output.0].len());
            }
        }
        self.statistics.resize_with(program.ops.len(), Vec::new);
        for statistics in &mut self.statistics {
            statistics.resize_with(views, BatchStatistics::default);
        }
        self.dims = dims;
    }
}

/// What the kernels of one operation ask for at the most in training: transformed tiles and sums.
const TRAINING_SCRATCH: usize = 24 << 20;
/// The same forward only.
const INFERENCE_SCRATCH: usize = 4 << 20;

/// Values that inference on `n` images holds beside parameters.
pub(super) fn inference_values(program: &Program, dims: &[Dims], n: usize) -> usize {
    let prepared = program.ops.iter().map(|op| match op {
        Op::ConvBn { layer, input, .. } => {
            conv::prepared_len(&layer.shape(n, dims[input.0], Program::conv_dims(op, dims)))
        }
        Op::GlobalPool { .. } => 0,
    });
    let mut activations = SharedSlots::default();
    activations.plan_activations(program, dims, n);
    activations.plan.buffer_len.iter().sum::<usize>() + prepared.sum::<usize>() + INFERENCE_SCRATCH
}

/// Values that a training step of `n` images holds beside parameters and their gradients.
pub(super) fn training_values(program: &Program, dims: &[Dims], n: usize) -> usize {
    let kept: usize = dims.iter().map(|d| d.len()).sum();
    let (mut conv_outputs, mut prepared) = (0, 0);
    for op in &program.ops {
        if let Op::ConvBn { layer, input, pool, output, .. } = op {
            let conv_dims = Program::conv_dims(op, dims);
            conv_outputs += conv_dims.len();
            // A value and a byte for each winner.
            conv_outputs += pool.map_or(0, |_| dims[output.0].len() * 5 / 4);
            prepared = prepared.max(conv::prepared_len(&layer.shape(n, dims[input.0], conv_dims)));
        }
    }
    let mut gradients = SharedSlots::default();
    gradients.plan_gradients(program, dims, n);
    n * (kept + conv_outputs) + gradients.plan.buffer_len.iter().sum::<usize>() + prepared + TRAINING_SCRATCH
}

/// Slots that share buffers by lifetime: activations at inference, gradients on the way back.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedSlots {
    plan: MemoryPlan,
    buffers: Buffers,
    /// Values of each slot.
    lengths: Vec<usize>,
    /// Gradients that are written over their activation, by slot.
    in_activation: Vec<bool>,
    /// The slot whose memory a slot has, on purpose and at the same time; mostly its own.
    owners: Vec<usize>,
}

impl SharedSlots {
    /// Activations: alive from the operation that writes them to the last one that reads them.
    pub(super) fn fit_activations(&mut self, program: &Program, dims: &[Dims], n: usize) {
        self.plan_activations(program, dims, n);
        self.buffers.fit(self.plan.buffer_len.iter().copied());
    }

    fn plan_activations(&mut self, program: &Program, dims: &[Dims], n: usize) {
        let mut lifetimes = empty_lifetimes(dims, n);
        // The caller's images are read where they are.
        lifetimes[IMAGES.0].len = 0;
        for (step, op) in program.ops.iter().enumerate() {
            lifetimes[op.output().0].first = step;
            lifetimes[op.output().0].last = step;
            op.inputs().for_each(|slot| lifetimes[slot.0].last = step);
        }
        lifetimes[program.output.0].last = program.ops.len();
        for (step, op) in program.ops.iter().enumerate() {
            let pooled = matches!(op, Op::ConvBn { pool: Some(_), .. });
            let len = if pooled { n * Program::conv_dims(op, dims).len() } else { 0 };
            lifetimes.push(Lifetime { first: step, last: step, len });
        }
        self.owners = (0..lifetimes.len()).collect();
        self.plan(&lifetimes);
    }

    /// Where an operation finds the memory for what its convolution gives, if a pool follows; else nothing is there.
    pub(super) fn conv_output(program: &Program, op: usize) -> usize {
        program.num_slots + op
    }

    /// Gradients: alive from the last reader of the activation to the operation that wrote it.
    pub(super) fn fit_gradients(&mut self, program: &Program, dims: &[Dims], n: usize) {
        self.plan_gradients(program, dims, n);
        self.buffers.fit(self.plan.buffer_len.iter().copied());
    }

    fn plan_gradients(&mut self, program: &Program, dims: &[Dims], n: usize) {
        let mut lifetimes = empty_lifetimes(dims, n);
        // Nobody wants the gradient of the images.
        lifetimes[IMAGES.0].len = 0;
        for (idx, op) in program.ops.iter().enumerate() {
            let step = program.ops.len() - idx;
            lifetimes[op.output().0].last = step;
            op.inputs().for_each(|slot| lifetimes[slot.0].first = step);
        }
        lifetimes[program.output.0].first = 0;
        self.in_activation = lifetimes.iter().enumerate().map(|(slot, _)| is_read_once(program, Slot(slot))).collect();
        for (lifetime, _) in lifetimes.iter_mut().zip(&self.in_activation).filter(|(_, in_activation)| **in_activation)
        {
            lifetime.len = 0;
        }
        self.owners = (0..lifetimes.len()).collect();
        for (idx, op) in program.ops.iter().enumerate().rev() {
            let Op::ConvBn { residual, output, .. } = op else { continue };
            let Some(added) = residual.added().filter(|slot| *slot != IMAGES) else { continue };
            // Nobody gives the slot a gradient before this operation: it takes over what the output's leaves.
            let is_first = program.ops[idx + 1..].iter().all(|later| later.inputs().all(|slot| slot != added));
            if is_first && op.inputs().filter(|slot| *slot == added).count() == 1 {
                self.owners[added.0] = self.owners[output.0];
            }
        }
        self.plan(&lifetimes);
    }

    fn plan(&mut self, lifetimes: &[Lifetime]) {
        self.lengths = lifetimes.iter().map(|l| l.len).collect();
        let mut owned = lifetimes.to_vec();
        for (slot, lifetime) in lifetimes.iter().enumerate() {
            let owner = &mut owned[self.owners[slot]];
            owner.first = owner.first.min(lifetime.first);
            owner.last = owner.last.max(lifetime.last);
            owner.len = owner.len.max(lifetime.len);
        }
        for (slot, owner) in self.owners.iter().enumerate() {
            if *owner != slot {
                owned[slot].len = 0;
            }
        }
        self.plan = plan_memory(&owned);
        for (slot, owner) in self.owners.iter().enumerate() {
            self.plan.buffer_of[slot] = self.plan.buffer_of[*owner];
        }
    }

    /// Whether the gradient of a slot is written over its activation.
    pub(super) fn is_in_activation(&self, slot: usize) -> bool {
        self.in_activation[slot]
    }

    /// Whether one slot takes over the memory of the other.
    pub(super) fn share_memory(&self, a: usize, b: usize) -> bool {
        self.owners[a] == self.owners[b]
    }

    pub(super) fn get(&self, slot: usize) -> &[f32] {
        self.buffers.get(self.plan.buffer_of[slot], self.lengths[slot])
    }

    /// Takes the buffer of a slot; it may be longer than the slot.
    pub(super) fn take(&mut self, slot: usize) -> Vec<f32> {
        self.buffers.take(self.plan.buffer_of[slot])
    }

    pub(super) fn put(&mut self, slot: usize, buffer: Vec<f32>) {
        self.buffers.put(self.plan.buffer_of[slot], buffer);
    }

    pub(super) fn len(&self, slot: usize) -> usize {
        self.lengths[slot]
    }
}

/// Whether nobody needs the activation any more once its only reader, a convolution, has its weight gradient: then its
/// own gradient can be written over it. Its writer must find its way back without it.
fn is_read_once(program: &Program, slot: Slot) -> bool {
    let mut readers = program.ops.iter().filter(|op| op.inputs().any(|input| input == slot));
    let reader = readers.next().is_some_and(
        |op| matches!(op, Op::ConvBn { input, residual, .. } if *input == slot && residual.added() != Some(slot)),
    );
    let writer = program.ops.iter().find(|op| op.output() == slot);
    let writer = writer.is_some_and(|op| matches!(op, Op::ConvBn { residual: Residual::None, .. }));
    reader && readers.next().is_none() && writer
}

fn empty_lifetimes(dims: &[Dims], n: usize) -> Vec<Lifetime> {
    dims.iter().map(|d| Lifetime { first: 0, last: 0, len: n * d.len() }).collect()
}
