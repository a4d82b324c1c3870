//! The network as a flat list of operations, and what follows from it: shapes, work, smallest image.

use super::layers::{ConvBn, Dims, GlobalPool, MaxPool};
use super::op::{Op, Residual, Slot};

/// A tensor that is trained, as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its name in torchvision's state dict.
    pub name: String,
    /// Its shape in PyTorch: `[out, in, k, k]` or `[channels]`.
    pub shape: Vec<usize>,
    /// Where it begins in the flat buffer.
    pub offset: usize,
    /// How many values it holds.
    pub len: usize,
}

/// A batch norm, as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormSpec {
    /// Its name in torchvision's state dict, such as `layer1.0.bn1`.
    pub name: String,
    /// Its channels.
    pub channels: usize,
}

/// Layers that belong together: the stem, a residual block, a convolution between blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// What the names of its tensors begin with; empty for torchvision's stem.
    pub name: String,
    /// Its first operation.
    pub first_op: usize,
    /// Where its values begin in the flat buffer; those of later blocks follow.
    pub first_value: usize,
}

/// The network: built once from its configuration, never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The operations in order.
    pub ops: Vec<Op>,
    /// Trained tensors in the order of torchvision's state dict.
    pub parameters: Vec<ParameterSpec>,
    /// Batch norms in the order of torchvision's state dict.
    pub norms: Vec<NormSpec>,
    /// How many slots there are.
    pub num_slots: usize,
    /// The slot that holds the features.
    pub output: Slot,
    /// Length of one feature vector.
    pub feature_dim: usize,
}

/// The slot that holds the images.
pub const IMAGES: Slot = Slot(0);

/// Channels of an image.
pub const IMAGE_CHANNELS: usize = 3;

impl Program {
    /// Height, width and channels of every slot for square images, or nothing where the image vanishes on the way.
    pub fn slot_dims(&self, image_size: usize) -> Option<Vec<Dims>> {
        let mut dims = vec![Dims { height: 0, width: 0, channels: 0 }; self.num_slots];
        if image_size == 0 {
            return None;
        }
        dims[IMAGES.0] = Dims { height: image_size, width: image_size, channels: IMAGE_CHANNELS };
        for op in &self.ops {
            dims[op.output().0] = match op {
                Op::ConvBn { layer, input, pool, .. } => {
                    let conv = layer.output_dims(dims[input.0])?;
                    pool.map_or(Some(conv), |pool| pool.output_dims(conv))?
                }
                Op::GlobalPool { input, .. } => GlobalPool::output_dims(dims[input.0]),
            };
        }
        Some(dims)
    }

    /// What people call the layer: the name of its weights without the ending.
    pub fn layer_name(&self, op: &Op) -> &str {
        match op {
            Op::ConvBn { layer, .. } => {
                let name = &self.parameters[layer.weight].name;
                name.strip_suffix(".weight").unwrap_or(name)
            }
            Op::GlobalPool { .. } => "global_pool",
        }
    }

    /// The blocks in the order of the operations.
    pub fn blocks(&self) -> Vec<BlockSpec> {
        let mut blocks: Vec<BlockSpec> = vec![];
        for (first_op, op) in self.ops.iter().enumerate() {
            let Op::ConvBn { layer, .. } = op else { continue };
            let spec = &self.parameters[layer.weight];
            let name = block_name(&spec.name);
            match blocks.last_mut() {
                Some(block) if block.name == name => block.first_value = block.first_value.min(spec.offset),
                _ => blocks.push(BlockSpec { name: name.to_owned(), first_op, first_value: spec.offset }),
            }
        }
        blocks
    }

    /// Multiply-adds of the convolutions for one image, forward.
    pub fn multiply_adds(&self, dims: &[Dims]) -> u64 {
        let of = |op: &Op| match op {
            Op::ConvBn { layer, .. } => layer.multiply_adds(Self::conv_dims(op, dims)),
            Op::GlobalPool { .. } => 0,
        };
        self.ops.iter().map(of).sum()
    }

    /// Shape of what the convolution of `op` gives, before any pool; of what `op` writes where it has none.
    pub(crate) fn conv_dims(op: &Op, dims: &[Dims]) -> Dims {
        match op {
            Op::ConvBn { layer, input, pool: Some(_), .. } => {
                layer.output_dims(dims[input.0]).unwrap_or(dims[op.output().0])
            }
            Op::ConvBn { .. } | Op::GlobalPool { .. } => dims[op.output().0],
        }
    }

    /// The smallest image that leaves at least one position everywhere.
    pub fn minimum_image_size(&self) -> usize {
        let mut size = 1;
        while self.slot_dims(size).is_none() {
            size += 1;
        }
        size
    }

    /// How many values all trained tensors hold.
    pub fn num_parameters(&self) -> usize {
        self.parameters.iter().map(|p| p.len).sum()
    }
}

/// What stands before the layer in the name of a tensor: `layer1.0` of `layer1.0.conv1.weight`.
fn block_name(parameter: &str) -> &str {
    let layer = |part: &str| ["conv", "bn", "downsample"].iter().any(|kind| part.starts_with(kind));
    let mut end = 0;
    for part in parameter.split('.') {
        if layer(part) {
            return parameter[..end].trim_end_matches('.');
        }
        end += part.len() + 1;
    }
    parameter
}

/// Collects layers and operations.
#[derive(Debug)]
pub(super) struct ProgramBuilder {
    program: Program,
}

impl ProgramBuilder {
    pub(super) fn new() -> Self {
        Self {
            program: Program {
                ops: Vec::new(),
                parameters: Vec::new(),
                norms: Vec::new(),
                num_slots: 1,
                output: IMAGES,
                feature_dim: 0,
            },
        }
    }

    fn parameter(&mut self, name: String, shape: Vec<usize>) -> usize {
        let offset = self.program.num_parameters();
        let len = shape.iter().product();
        self.program.parameters.push(ParameterSpec { name, shape, offset, len });
        self.program.parameters.len() - 1
    }

    fn slot(&mut self) -> Slot {
        self.program.num_slots += 1;
        Slot(self.program.num_slots - 1)
    }

    /// Declares a convolution and its batch norm; the order of declarations is the order of the state dict.
    #[allow(clippy::too_many_arguments, reason = "the numbers that define a convolution")]
    pub(super) fn conv_bn(
        &mut self,
        conv_name: &str,
        bn_name: &str,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> ConvBn {
        let weight = self.parameter(format!("{conv_name}.weight"), vec![out_channels, in_channels, kernel, kernel]);
        let scale = self.parameter(format!("{bn_name}.weight"), vec![out_channels]);
        let shift = self.parameter(format!("{bn_name}.bias"), vec![out_channels]);
        self.program.norms.push(NormSpec { name: bn_name.to_owned(), channels: out_channels });
        let norm = self.program.norms.len() - 1;
        ConvBn { in_channels, out_channels, kernel, stride, padding, weight, scale, shift, norm }
    }

    /// Applies a declared layer.
    pub(super) fn apply(&mut self, layer: ConvBn, input: Slot, residual: Residual<Slot>, relu: bool) -> Slot {
        let output = self.slot();
        self.program.ops.push(Op::ConvBn { layer, input, residual, relu, pool: None, output });
        output
    }

    /// Applies a declared layer with a ReLU and a max-pool.
    pub(super) fn apply_pooled(&mut self, layer: ConvBn, input: Slot, pool: MaxPool) -> Slot {
        let (output, residual) = (self.slot(), Residual::None);
        self.program.ops.push(Op::ConvBn { layer, input, residual, relu: true, pool: Some(pool), output });
        output
    }

    /// Ends the program with the features.
    pub(super) fn finish(mut self, layer: GlobalPool, input: Slot, feature_dim: usize) -> Program {
        let output = self.slot();
        self.program.ops.push(Op::GlobalPool { layer, input, output });
        self.program.output = output;
        self.program.feature_dim = feature_dim;
        self.program
    }
}
