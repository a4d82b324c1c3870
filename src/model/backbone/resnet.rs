//! ResNet-18, -34 and -50 exactly as torchvision builds them (He et al. 2016, arXiv 1512.03385), without the
//! classifier. The Bottleneck strides in its 3×3 convolution (torchvision's "ResNet v1.5").

use super::backbone_config::Stem;
use super::layers::{GlobalPool, MaxPool};
use super::op::{Residual, Slot};
use super::program::{IMAGE_CHANNELS, IMAGES, Program, ProgramBuilder};

/// Which residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 to four times the width.
    Bottleneck,
}

impl Block {
    fn expansion(self) -> usize {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

/// Builds a ResNet with `depths[i]` blocks in layer `i + 1`.
pub(super) fn build_resnet(block: Block, depths: [usize; 4], stem: Stem) -> Program {
    let mut builder = ProgramBuilder::new();
    let mut channels = 64;
    let mut x = match stem {
        Stem::Imagenet => {
            let conv = builder.conv_bn("conv1", "bn1", IMAGE_CHANNELS, channels, 7, 2, 3);
            builder.apply_pooled(conv, IMAGES, MaxPool { kernel: 3, stride: 2, padding: 1 })
        }
        Stem::Cifar => {
            let conv = builder.conv_bn("conv1", "bn1", IMAGE_CHANNELS, channels, 3, 1, 1);
            builder.apply(conv, IMAGES, Residual::None, true)
        }
    };
    for (layer, depth) in depths.into_iter().enumerate() {
        let width = 64 << layer;
        for idx in 0..depth {
            let stride = if layer > 0 && idx == 0 { 2 } else { 1 };
            let name = format!("layer{}.{idx}", layer + 1);
            x = residual_block(&mut builder, block, &name, x, channels, width, stride);
            channels = width * block.expansion();
        }
    }
    builder.finish(GlobalPool::Average, x, channels)
}

fn residual_block(
    builder: &mut ProgramBuilder,
    block: Block,
    name: &str,
    x: Slot,
    in_channels: usize,
    width: usize,
    stride: usize,
) -> Slot {
    let out_channels = width * block.expansion();
    let mut conv = |i: usize, cin, cout, kernel, stride| {
        builder.conv_bn(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), cin, cout, kernel, stride, kernel / 2)
    };
    let (inner, last) = match block {
        Block::Basic => (vec![conv(1, in_channels, width, 3, stride)], conv(2, width, width, 3, 1)),
        Block::Bottleneck => (
            vec![conv(1, in_channels, width, 1, 1), conv(2, width, width, 3, stride)],
            conv(3, width, out_channels, 1, 1),
        ),
    };
    let downsample = (stride != 1 || in_channels != out_channels).then(|| {
        let (conv, bn) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        builder.conv_bn(&conv, &bn, in_channels, out_channels, 1, stride, 0)
    });
    let mut h = x;
    for layer in inner {
        h = builder.apply(layer, h, Residual::None, true);
    }
    let shortcut = match downsample {
        Some(layer) => builder.apply(layer, x, Residual::None, false),
        None => x,
    };
    builder.apply(last, h, Residual::BeforeRelu(shortcut), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_work_are_torchvisions() {
        // Parameters without the classifier, multiply-adds at 224 pixels: torchvision's documentation.
        let cases = [
            (Block::Basic, [2, 2, 2, 2], 11_176_512, 1.814e9),
            (Block::Basic, [3, 4, 6, 3], 21_284_672, 3.664e9),
            (Block::Bottleneck, [3, 4, 6, 3], 23_508_032, 4.087e9),
        ];
        for (block, depths, parameters, work) in cases {
            let program = build_resnet(block, depths, Stem::Imagenet);
            assert_eq!(program.num_parameters(), parameters);
            let counted = program.multiply_adds(&program.slot_dims(224).unwrap()) as f64;
            assert!((counted / work - 1.0).abs() < 2e-3, "{counted}");
        }
    }

    #[test]
    fn any_image_is_large_enough_for_a_resnet() {
        assert_eq!(build_resnet(Block::Basic, [2, 2, 2, 2], Stem::Imagenet).minimum_image_size(), 1);
        assert_eq!(build_resnet(Block::Basic, [2, 2, 2, 2], Stem::Cifar).minimum_image_size(), 1);
    }

    #[test]
    fn names_come_in_the_order_of_torchvision() {
        let program = build_resnet(Block::Basic, [2, 2, 2, 2], Stem::Cifar);
        let names: Vec<_> = program.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names[..4], ["conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight"]);
        let at = names.iter().position(|n| *n == "layer2.0.downsample.0.weight").unwrap();
        assert_eq!(names[at - 1], "layer2.0.bn2.bias");
        assert_eq!(names[at + 3], "layer2.1.conv1.weight");
    }
}
