//! The whole network against PyTorch in float64: `scripts/goldens/backbone.py` made the files. Any engine can be held to
//! them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "the bodies of tests")]
#![cfg_attr(not(test), allow(dead_code, reason = "some are run by this library's own tests only"))]

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensors;

#[cfg(test)]
use super::backbone_config::DarknetTinyConfig;
use super::backbone_config::{ResnetConfig, Stem};
use super::parameters::to_torch;
use super::program::Program;
use super::{Backbone, BackboneConfig, StateData, StateEntry};

const NUM_SAMPLES: usize = 16;
const NUM_STATISTICS: usize = 4;
const FEATURE_TOLERANCE: f64 = 1e-4;
const GRADIENT_TOLERANCE: f64 = 1e-3;
/// Among many activations a few lie so close to 0 that rounding decides which side of the ReLU they are on; each moves
/// a few elements of a gradient visibly, and which ones depends on the instruction set. That is what networks that are
/// not calm (see the script) are allowed, in the median and the norm of a tensor and in single elements.
const LIVELY_TOLERANCE: f64 = 2e-2;
const FLIP_TOLERANCE: f64 = 0.3;

fn hash32(name: &str, idx: u32) -> u32 {
    let fnv = name.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let mut x = idx.wrapping_mul(0x9E37_79B9).wrapping_add(fnv);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7FEB_352D);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

fn uniform(name: &str, len: usize) -> Vec<f32> {
    (0..len as u32).map(|idx| (f64::from(hash32(name, idx) >> 8) / f64::from(1 << 23) - 1.0) as f32).collect()
}

/// The value of every tensor by the formula that the script uses.
fn fill(entry: &mut StateEntry, calm: bool) {
    let StateData::F32(values) = &mut entry.data else { return };
    let scale = match *entry.shape {
        [cout, _, height, width] => f64::from((6.0 / (cout * height * width) as f64).sqrt() as f32),
        _ => 1.0,
    };
    for (v, u) in values.iter_mut().zip(uniform(&entry.name, entry.shape.iter().product())) {
        let u = f64::from(u);
        *v = match &*entry.name {
            name if name.ends_with("running_var") => 1.0 + 0.5 * u,
            name if calm && name.ends_with("bias") => {
                if name.contains(".bn1.") {
                    1.0_f64.copysign(u)
                } else {
                    1.0
                }
            }
            name if calm && entry.shape.len() == 1 && name.ends_with("weight") => 0.125 * (1.0 + 0.25 * u),
            name if name.ends_with("running_mean") || name.ends_with("bias") => 0.25 * u,
            _ if entry.shape.len() == 1 => 1.0 + 0.25 * u,
            _ => u * scale,
        } as f32;
    }
}

fn images(tag: &str, n: usize, size: usize) -> Vec<f32> {
    uniform(&format!("images {tag}"), n * size * size * 3).iter().map(|u| 1.5 * u).collect()
}

struct Golden {
    tensors: BTreeMap<String, Vec<f32>>,
    parameters: Vec<String>,
    statistics: Vec<String>,
    calm: bool,
}

fn golden(file: &str) -> Golden {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backbone").join(file);
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let names = |key: &str| serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Golden {
        tensors: tensors.tensors().into_iter().map(|(name, t)| (name, values(t.data()))).collect(),
        parameters: names("parameters"),
        statistics: names("statistics"),
        calm: header.metadata().as_ref().unwrap()["calm"] == "true",
    }
}

/// The passes of a network, on whatever engine.
pub(crate) trait Passes {
    /// Features with running statistics.
    fn eval(&mut self, images: &[f32], n: usize, size: usize) -> Vec<f32>;
    /// Features with batch statistics; then backward with these gradients of the features, view after view.
    fn train(&mut self, views: &[&[f32]], n: usize, size: usize, grad_features: &[f32]) -> Vec<f32>;
    /// The gradients in the host's flat order.
    fn all_gradients(&mut self) -> Vec<f32>;
    /// The state after that.
    fn state(&mut self) -> Vec<StateEntry>;
}

impl Passes for Backbone {
    fn eval(&mut self, images: &[f32], n: usize, size: usize) -> Vec<f32> {
        self.forward_eval(images, n, size).unwrap()
    }

    fn train(&mut self, views: &[&[f32]], n: usize, size: usize, grad_features: &[f32]) -> Vec<f32> {
        let features = self.forward_train(views, n, size).unwrap();
        self.backward(grad_features).unwrap();
        features
    }

    fn all_gradients(&mut self) -> Vec<f32> {
        self.gradients().to_vec()
    }

    fn state(&mut self) -> Vec<StateEntry> {
        self.state_dict()
    }
}

/// Largest difference over the largest expected value.
pub(crate) fn deviation(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(f64::from(v.abs())));
    let worst = actual.iter().zip(expected).map(|(a, e)| (f64::from(*a) - f64::from(*e)).abs()).fold(0.0, f64::max);
    assert!(actual.iter().all(|v| v.is_finite()));
    worst / scale
}

/// Gradients by name in PyTorch's layout.
fn named(program: &Program, all: &[f32]) -> BTreeMap<String, Vec<f32>> {
    let of = |spec: &super::program::ParameterSpec| {
        let mut values = vec![0.0; spec.len];
        to_torch(&spec.shape, &all[spec.offset..][..spec.len], &mut values);
        (spec.name.clone(), values)
    };
    program.parameters.iter().map(of).collect()
}

fn check(config: BackboneConfig, file: &str, n: usize, size: usize) {
    check_passes(config, file, n, size, |backbone| backbone);
}

/// Holds the engine that `engine` makes of a network to the file.
pub(crate) fn check_passes<P: Passes>(
    config: BackboneConfig,
    file: &str,
    n: usize,
    size: usize,
    engine: impl FnOnce(Backbone) -> P,
) {
    let golden = golden(file);
    let mut backbone = Backbone::build(&config, 0).unwrap();
    let mut state = backbone.state_dict();
    for entry in &mut state {
        fill(entry, golden.calm);
    }
    backbone.load_state_dict(&state).unwrap();
    assert_eq!(backbone.state_dict(), state);
    let by_kind = |kind: &[&str]| -> Vec<String> {
        let of_kind = |e: &&StateEntry| kind.iter().any(|k| e.name.ends_with(k));
        state.iter().filter(of_kind).map(|e| e.name.clone()).collect()
    };
    assert_eq!(by_kind(&["weight", "bias"]), golden.parameters);
    assert_eq!(by_kind(&["running_mean", "running_var"]), golden.statistics);

    let (program, feature_dim) = (backbone.program().clone(), backbone.feature_dim());
    let mut passes = engine(backbone);
    let features = passes.eval(&images("a", n, size), n, size);
    let eval = deviation(&features, &golden.tensors["features_eval"]);
    let mut train = [0.0; 2];
    let loss = |tag: &str| uniform(&format!("loss {tag}"), n * feature_dim);
    let grad_features = [loss("a"), loss("b")].concat();
    let features = passes.train(&[&images("a", n, size), &images("b", n, size)], n, size, &grad_features);
    for (view, features) in features.chunks(n * feature_dim).enumerate() {
        train[view] = deviation(features, &golden.tensors[&format!("features_{view}")]);
    }
    let (mut worst, mut worst_element) = ((0.0, ""), 0.0_f64);
    let gradients = named(&program, &passes.all_gradients());
    // Where the next batch norm cancels a bias, its gradient is nothing but rounding: measured against the others.
    let typical = |idx: usize| {
        f64::from(golden.tensors["gradient_norms"][idx]) / (gradients[&golden.parameters[idx]].len() as f64).sqrt()
    };
    let floor = |is_kernel: bool| {
        let alike = |idx: &usize| golden.parameters[*idx].contains("conv") == is_kernel;
        1e-2 * (0..golden.parameters.len()).filter(alike).map(typical).fold(0.0, f64::max)
    };
    let floors = [floor(false), floor(true)];
    for (idx, name) in golden.parameters.iter().enumerate() {
        let gradient = &gradients[name];
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let expected_norm = f64::from(golden.tensors["gradient_norms"][idx]);
        // A sample may be near zero; its error counts against the tensor's typical element.
        let typical = typical(idx).max(floors[usize::from(name.contains("conv"))]);
        let mut errors: Vec<f64> = (0..NUM_SAMPLES)
            .map(|k| {
                let at = hash32(&format!("sample {name}"), k as u32) as usize % gradient.len();
                let expected = f64::from(golden.tensors["gradient_samples"][idx * NUM_SAMPLES + k]);
                (f64::from(gradient[at]) - expected).abs() / typical.max(expected.abs())
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        worst_element = worst_element.max(errors[NUM_SAMPLES - 1]);
        let rms = (errors.iter().map(|e| e * e).sum::<f64>() / NUM_SAMPLES as f64).sqrt();
        let elements = if golden.calm { rms } else { errors[NUM_SAMPLES / 2] };
        let error = elements.max((norm - expected_norm).abs() / (typical * (gradient.len() as f64).sqrt()));
        if error.is_nan() || error > worst.0 {
            worst = (error, name);
        }
    }
    let mut statistics = Vec::new();
    for entry in passes.state().iter().filter(|e| golden.statistics.contains(&e.name)) {
        let StateData::F32(values) = &entry.data else { panic!("{} is not f32", entry.name) };
        statistics.extend(values.iter().step_by(values.len() / NUM_STATISTICS).take(NUM_STATISTICS));
    }
    let statistics = deviation(&statistics, &golden.tensors["statistics"]);
    let (worst, name) = worst;
    println!("{file}: eval {eval:.1e}, train {:.1e} {:.1e}, statistics {statistics:.1e}", train[0], train[1]);
    println!("{file}: gradients {worst:.1e} (`{name}`), elements {worst_element:.1e}");
    assert!(eval < FEATURE_TOLERANCE && statistics < FEATURE_TOLERANCE);
    assert!(train.iter().all(|t| *t < FEATURE_TOLERANCE));
    let tolerance = if golden.calm { GRADIENT_TOLERANCE } else { LIVELY_TOLERANCE };
    assert!(worst < tolerance && worst_element < FLIP_TOLERANCE);
}

pub(crate) const IMAGENET: ResnetConfig = ResnetConfig { stem: Stem::Imagenet, zero_init_residual: false };
pub(crate) const CIFAR: ResnetConfig = ResnetConfig { stem: Stem::Cifar, zero_init_residual: false };

#[test]
fn darknet_tiny_is_pytorchs() {
    check(BackboneConfig::DarknetTiny(DarknetTinyConfig {}), "darknet_tiny_own_4x32.safetensors", 4, 32);
    check(BackboneConfig::DarknetTiny(DarknetTinyConfig {}), "darknet_tiny_own_3x27.safetensors", 3, 27);
}

#[test]
fn resnet18_is_torchvisions() {
    check(BackboneConfig::Resnet18(IMAGENET), "resnet18_imagenet_8x33.safetensors", 8, 33);
    check(BackboneConfig::Resnet18(IMAGENET), "resnet18_imagenet_5x64.safetensors", 5, 64);
    check(BackboneConfig::Resnet18(CIFAR), "resnet18_cifar_4x16.safetensors", 4, 16);
    check(BackboneConfig::Resnet18(CIFAR), "resnet18_cifar_3x19.safetensors", 3, 19);
}

#[test]
fn resnet34_is_torchvisions() {
    check(BackboneConfig::Resnet34(IMAGENET), "resnet34_imagenet_8x33.safetensors", 8, 33);
    check(BackboneConfig::Resnet34(CIFAR), "resnet34_cifar_4x16.safetensors", 4, 16);
}

#[test]
fn resnet50_is_torchvisions() {
    check(BackboneConfig::Resnet50(IMAGENET), "resnet50_imagenet_8x33.safetensors", 8, 33);
    check(BackboneConfig::Resnet50(CIFAR), "resnet50_cifar_4x16.safetensors", 4, 16);
}
