//! Time of the backbone on the CPU: `cargo bench --bench backbone -- [NETWORK:SIZE:BATCH …]`, where NETWORK is
//! `imagenet` or `cifar` (ResNet-18 with that stem), `resnet50` or `darknet`.
//!
//! One line a configuration: best and median of a few steps. A training step is forward and backward of two views;
//! GFLOP/s counts the multiply-adds of direct convolution, so an algorithm that needs fewer can exceed the machine.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::time::Instant;

use simsiam_pipe::model::backbone::backbone_config::DarknetTinyConfig;
use simsiam_pipe::model::backbone::{Backbone, BackboneConfig, ResnetConfig, Stem};

const STEPS: usize = 6;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg.contains(':')).collect();
    let default = ["imagenet:64:64", "cifar:32:64"].map(str::to_owned).to_vec();
    for config in if given.is_empty() { default } else { given } {
        let parts: Vec<&str> = config.split(':').collect();
        let (Some(Ok(size)), Some(Ok(batch))) = (parts.get(1).map(|s| s.parse()), parts.get(2).map(|s| s.parse()))
        else {
            println!("{config}: expected NETWORK:SIZE:BATCH");
            continue;
        };
        let resnet = |stem| ResnetConfig { stem, zero_init_residual: false };
        let network = match parts[0] {
            "imagenet" => BackboneConfig::Resnet18(resnet(Stem::Imagenet)),
            "cifar" => BackboneConfig::Resnet18(resnet(Stem::Cifar)),
            "resnet50" => BackboneConfig::Resnet50(resnet(Stem::Imagenet)),
            "darknet" => BackboneConfig::DarknetTiny(DarknetTinyConfig {}),
            other => {
                println!("{config}: no network `{other}`");
                continue;
            }
        };
        run(&config, network, size, batch);
    }
}

fn run(name: &str, config: BackboneConfig, size: usize, batch: usize) {
    let Ok(mut backbone) = Backbone::build(&config, 0) else { return };
    let Ok(work) = backbone.multiply_adds(size) else { return };
    let images: Vec<f32> = (0..batch * size * size * 3).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let grad = vec![1e-3; 2 * batch * backbone.feature_dim()];
    let (mut forward, mut backward, mut eval) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=STEPS {
        let start = Instant::now();
        if backbone.forward_train(&[&images, &images], batch, size).is_err() {
            return;
        }
        forward.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        if backbone.backward(&grad).is_err() {
            return;
        }
        backward.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        if backbone.forward_eval(&images, batch, size).is_err() {
            return;
        }
        eval.push(start.elapsed().as_secs_f64());
    }
    let flop = 2.0 * work as f64 * batch as f64;
    for (what, times, factor) in [("forward", forward, 2.0), ("backward", backward, 4.0), ("eval", eval, 1.0)] {
        // The first step allocates.
        let mut times = times[1..].to_vec();
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        let rate = flop * factor / best / 1e9;
        println!("{name} {what}: best {:.1} ms, median {:.1} ms, {rate:.0} GFLOP/s", best * 1e3, median * 1e3);
    }
}
