//! The vocabulary of the network: a handful of operations over activation slots.

use super::layers::{ConvBn, GlobalPool, MaxPool};

/// An activation: the output of one operation (slot 0 is the image batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// What is added to the output of a batch norm, and where: a slot in the program, its values in the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual<T> {
    /// Nothing.
    None,
    /// `relu(bn(conv(x)) + r)`: the ResNet.
    BeforeRelu(T),
    /// `relu(bn(conv(x))) + r`: the Darknet.
    AfterRelu(T),
}

impl<T> Residual<T> {
    /// What is added, if anything.
    pub fn added(self) -> Option<T> {
        match self {
            Residual::None => None,
            Residual::BeforeRelu(added) | Residual::AfterRelu(added) => Some(added),
        }
    }

    /// The same, lent to be changed.
    pub fn as_mut(&mut self) -> Residual<&mut T> {
        match self {
            Residual::None => Residual::None,
            Residual::BeforeRelu(added) => Residual::BeforeRelu(added),
            Residual::AfterRelu(added) => Residual::AfterRelu(added),
        }
    }

    /// The same place, another thing to add.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Residual<U> {
        match self {
            Residual::None => Residual::None,
            Residual::BeforeRelu(added) => Residual::BeforeRelu(f(added)),
            Residual::AfterRelu(added) => Residual::AfterRelu(f(added)),
        }
    }
}

/// One step of the program. Every slot is written by exactly one operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Convolution without bias, batch norm, and optionally a residual, a ReLU and a max-pool.
    ConvBn {
        /// The layer.
        layer: ConvBn,
        /// What it reads.
        input: Slot,
        /// What it adds.
        residual: Residual<Slot>,
        /// Whether a ReLU follows.
        relu: bool,
        /// Whether a max-pool ends it; then nothing is added.
        pool: Option<MaxPool>,
        /// What it writes.
        output: Slot,
    },
    /// Mean or maximum over all positions: the features.
    GlobalPool {
        /// The layer.
        layer: GlobalPool,
        /// What it reads.
        input: Slot,
        /// What it writes.
        output: Slot,
    },
}

impl Op {
    /// The slot that it writes.
    pub fn output(&self) -> Slot {
        match self {
            Op::ConvBn { output, .. } | Op::GlobalPool { output, .. } => *output,
        }
    }

    /// The slots that it reads, the residual last.
    pub fn inputs(&self) -> impl Iterator<Item = Slot> {
        let (input, residual) = match self {
            Op::ConvBn { input, residual, .. } => (*input, residual.added()),
            Op::GlobalPool { input, .. } => (*input, None),
        };
        std::iter::once(input).chain(residual)
    }
}
