//! `darknet_tiny`: the small network of the notebook that this system grew from. Every convolution is
//! conv-BN-ReLU without bias; the residual is added after the last ReLU; a global maximum ends it.

use super::layers::{GlobalPool, MaxPool};
use super::op::{Residual, Slot};
use super::program::{IMAGE_CHANNELS, IMAGES, Program, ProgramBuilder};

const HALVE: MaxPool = MaxPool { kernel: 2, stride: 2, padding: 0 };

/// Builds the network: 128 features.
pub(super) fn build_darknet_tiny() -> Program {
    let mut builder = ProgramBuilder::new();
    let mut x = pointwise(&mut builder, "stem", IMAGES, IMAGE_CHANNELS, 128);
    x = residual_block(&mut builder, "block1", x, 64, 128);
    x = pointwise(&mut builder, "expand", x, 128, 256);
    x = residual_block(&mut builder, "block2", x, 128, 256);
    x = pointwise(&mut builder, "reduce", x, 256, 128);
    builder.finish(GlobalPool::Maximum, x, 128)
}

/// A 1×1 convolution, then half the resolution.
fn pointwise(builder: &mut ProgramBuilder, name: &str, x: Slot, in_channels: usize, out_channels: usize) -> Slot {
    let conv = builder.conv_bn(&format!("{name}.conv"), &format!("{name}.bn"), in_channels, out_channels, 1, 1, 0);
    builder.apply_pooled(conv, x, HALVE)
}

fn residual_block(builder: &mut ProgramBuilder, name: &str, x: Slot, width: usize, channels: usize) -> Slot {
    let first = builder.conv_bn(&format!("{name}.conv1"), &format!("{name}.bn1"), channels, width, 3, 1, 1);
    let second = builder.conv_bn(&format!("{name}.conv2"), &format!("{name}.bn2"), width, channels, 3, 1, 1);
    let h = builder.apply(first, x, Residual::None, true);
    builder.apply(second, h, Residual::AfterRelu(x), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_halvings_need_eight_pixels() {
        let program = build_darknet_tiny();
        assert_eq!(program.minimum_image_size(), 8);
        assert!(program.slot_dims(7).is_none());
    }
}
