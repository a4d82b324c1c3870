//! One SimSiam step and ten SGD steps against PyTorch (`scripts/goldens/simsiam.py`). Any engine can be held
//! to them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "the bodies of tests")]
#![cfg_attr(not(test), allow(dead_code, unused_imports, reason = "some are run by this library's own tests only"))]

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    model::{
        backbone::{BackboneConfig, ResnetConfig, Stem},
        predictor::PredictorConfig,
        projector::ProjectorConfig,
        simsiam::{SimSiam, Views},
        state::{StateData, StateEntry},
    },
    train::{
        schedule::Schedule,
        step::SimSiamSgd,
        train_config::{CosineConfig, ScheduleConfig, SgdConfig},
    },
};

pub(crate) const BATCH: usize = 32;
pub(crate) const SIZE: usize = 32;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) losses: Vec<f64>,
    pub(crate) gradients: BTreeMap<String, GradientGolden>,
    pub(crate) embedding_std: f64,
}

#[derive(Deserialize)]
pub(crate) struct GradientGolden {
    norm: f64,
    samples: Vec<f64>,
}

/// Numbers in [−1, 1): splitmix64 of (FNV-1a of the name + the index), as in `scripts/goldens/simsiam.py`.
fn formula(name: &str, count: usize) -> Vec<f32> {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let number = |idx: u64| {
        let mut z = hash.wrapping_add(idx.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (1..=count as u64).map(number).collect()
}

pub(crate) fn images(name: &str) -> Vec<f32> {
    let level = formula(&format!("{name}.level"), BATCH * 3);
    let mut values = formula(name, BATCH * SIZE * SIZE * 3);
    for (image, level) in values.chunks_exact_mut(SIZE * SIZE * 3).zip(level.chunks_exact(3)) {
        for pixel in image.chunks_exact_mut(3) {
            for (x, level) in pixel.iter_mut().zip(level) {
                *x = *x * (level * 0.5 + 1.0) + level;
            }
        }
    }
    values
}

pub(crate) fn fill(entry: &mut StateEntry) {
    let StateData::F32(values) = &mut entry.data else { return };
    let (name, shape) = (entry.name.as_str(), &entry.shape);
    let numbers = formula(name, values.len());
    let (scale, shift) = match shape[..] {
        _ if name.ends_with("running_var") => (0.0, 1.0),
        _ if name.ends_with("running_mean") => (0.0, 0.0),
        [outputs, _, height, width] => ((6.0 / (outputs * height * width) as f64).sqrt() as f32, 0.0),
        [_, inputs] => ((1.0 / (inputs as f64).sqrt()) as f32, 0.0),
        _ if name == "predictor.3.bias" => (0.1, 0.0),
        _ if name.ends_with("bias") => (0.1, 4.0),
        _ => (0.1, 1.0),
    };
    for (value, x) in values.iter_mut().zip(numbers) {
        *value = x * scale + shift;
    }
}

pub(crate) fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/simsiam/resnet18.json")).unwrap()
}

/// Both views of the golden's batch.
pub(crate) fn views() -> [Vec<f32>; 2] {
    let (x1, own) = (images("x1"), images("x2"));
    let x2 = x1.iter().zip(&own).map(|(x, own)| x * 0.9 + own * 0.2).collect();
    [x1, x2]
}

/// The golden's update and learning rates.
pub(crate) fn sgd() -> (SgdConfig, Schedule) {
    let sgd = SgdConfig { base_lr: 0.05, momentum: 0.9, weight_decay: 5e-4 };
    (sgd, Schedule::new(ScheduleConfig::Cosine(CosineConfig::default()), 0.05, 10, 1))
}

pub(crate) fn model() -> SimSiam {
    let backbone = BackboneConfig::Resnet18(ResnetConfig { stem: Stem::Imagenet, zero_init_residual: false });
    let projector = ProjectorConfig { hidden_dim: 64, output_dim: 48, num_layers: 3, output_bn: true };
    let mut model = SimSiam::build(&backbone, &projector, &PredictorConfig { hidden_dim: 24 }, 0).unwrap();
    let mut state = model.state_dict();
    state.iter_mut().for_each(fill);
    model.load_state_dict(&state).unwrap();
    model
}

/// Gradients under the names and in the shapes of PyTorch: put in the place of the values.
fn named_gradients(model: &mut SimSiam) -> BTreeMap<String, Vec<f32>> {
    let backbone = model.backbone.gradients().to_vec();
    let heads = [&model.projector, &model.predictor].map(|head| head.parameters.gradients());
    name_gradients(model, &backbone, [&heads[0], &heads[1]])
}

/// The same for gradients in the order of the flat buffers.
pub(crate) fn name_gradients(model: &mut SimSiam, backbone: &[f32], heads: [&[f32]; 2]) -> BTreeMap<String, Vec<f32>> {
    let before = model.state_dict();
    model.backbone.values_mut().copy_from_slice(backbone);
    for (head, gradients) in [&mut model.projector, &mut model.predictor].into_iter().zip(heads) {
        head.parameters.update(|values, _| values.copy_from_slice(gradients));
    }
    let mut named = BTreeMap::new();
    for entry in model.state_dict() {
        if let StateData::F32(values) = entry.data {
            named.insert(entry.name, values);
        }
    }
    model.load_state_dict(&before).unwrap();
    named
}

/// Norms and samples within 1e-3 of PyTorch's for each tensor. A gradient that the next batch norm cancels is
/// rounding and nothing else, so no tensor is held to less than 1e-3 of a hundredth of the middle one.
pub(crate) fn compare_gradients(gradients: &BTreeMap<String, Vec<f32>>, golden: &BTreeMap<String, GradientGolden>) {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let mut norms: Vec<f64> = golden.values().map(|expected| expected.norm).collect();
    norms.sort_by(f64::total_cmp);
    let floor = 0.01 * norms[norms.len() / 2];
    for (name, expected) in golden {
        let gradient = &gradients[name];
        let norm = length(&mut gradient.iter().map(|g| f64::from(*g)));
        let off = (norm - expected.norm).abs();
        assert!(off <= 1e-3 * expected.norm.max(floor), "{name}: norm {norm} where PyTorch has {}", expected.norm);
        let stride = (gradient.len() / 24).max(1);
        let sampled = gradient.iter().step_by(stride).zip(&expected.samples);
        let off = length(&mut sampled.map(|(g, e)| f64::from(*g) - e));
        let size = length(&mut expected.samples.iter().copied());
        assert!(off <= 1e-3 * size.max(floor), "{name}: samples are off by {off} of {size}");
    }
}

#[test]
fn one_step_and_ten_steps_are_pytorchs() {
    let golden = golden();
    let mut model = model();
    let (sgd, schedule) = sgd();
    let mut sgd = SimSiamSgd::new(sgd, &model);
    let [x1, x2] = views();
    for (step, expected) in golden.losses.iter().enumerate() {
        let views = Views { x: vec![&x1, &x2], n: BATCH, image_size: SIZE };
        model.zero_gradients();
        let output = model.forward_backward(&views, 1.0).unwrap();
        assert!(
            (f64::from(output.loss) - expected).abs() < 2e-4,
            "step {step}: loss {} where PyTorch has {expected}",
            output.loss
        );
        if step == 0 {
            assert!((output.embedding_std - golden.embedding_std).abs() < 1e-5);
            compare_gradients(&named_gradients(&mut model), &golden.gradients);
        }
        let lr = schedule.lr(step as u64);
        let (values, gradients) = model.backbone.values_and_gradients_mut();
        sgd.backbone.step(values, gradients, lr);
        model.projector.parameters.update(|values, gradients| sgd.projector.step(values, gradients, lr));
        let full_lr = schedule.full_lr();
        model.predictor.parameters.update(|values, gradients| sgd.predictor.step(values, gradients, full_lr));
    }
}

#[test]
fn state_round_trips() {
    let model = model();
    let mut other = SimSiam::build(
        model.backbone.config(),
        &ProjectorConfig { hidden_dim: 64, output_dim: 48, num_layers: 3, output_bn: true },
        &PredictorConfig { hidden_dim: 24 },
        9,
    )
    .unwrap();
    assert_ne!(other.state_dict(), model.state_dict());
    other.load_state_dict(&model.state_dict()).unwrap();
    assert_eq!(other.state_dict(), model.state_dict());
}
