//! The engine on a real GPU: `cargo test --release --features cuda --test cuda`. The same checks run on an emulator in
//! the library's own tests.
//!
//! Where there is no GPU every test fails: nothing would have been verified. `SIMSIAM_PIPE_CUDA_DEVICE` is the number of
//! the device, 0 where it is not set.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

use std::sync::Arc;

use simsiam_pipe::cuda::{Device, Precision, checks, nvidia::NvidiaDevice};

fn open(precision: Precision) -> Arc<dyn Device> {
    let ordinal = std::env::var("SIMSIAM_PIPE_CUDA_DEVICE").map_or(0, |number| number.parse().unwrap());
    match NvidiaDevice::open(ordinal, precision) {
        Ok(device) => Arc::new(device),
        Err(error) => panic!("nothing was verified: this test needs a GPU, and {error}"),
    }
}

simsiam_pipe::cuda_checks!(open);

#[test]
fn backbones_are_pytorchs() {
    for file in [
        "darknet_tiny_own_4x32",
        "darknet_tiny_own_3x27",
        "resnet18_imagenet_8x33",
        "resnet18_imagenet_5x64",
        "resnet18_cifar_4x16",
        "resnet18_cifar_3x19",
        "resnet34_imagenet_8x33",
        "resnet34_cifar_4x16",
        "resnet50_imagenet_8x33",
        "resnet50_cifar_4x16",
    ] {
        checks::backbone_is_pytorchs(&open, file);
    }
}

#[test]
fn ten_steps_are_pytorchs() {
    checks::a_step_is_pytorchs(&open, 10);
}

#[test]
fn same_bits_every_time() {
    checks::same_bits_every_time(&open);
}
