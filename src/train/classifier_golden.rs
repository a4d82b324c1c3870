//! Six steps of fine-tuning against PyTorch (`scripts/goldens/fine_tune.py`): which layers learn, by which rule, and that
//! the batch norms of frozen ones stay in evaluation mode.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    classifier::{Classifier, ClassifierHost, LabelledBatch, LabelledSource},
    train_config::{AdamConfig, AdamwConfig, ClassifierOptimizerConfig, ClassifierTrainConfig, SgdConfig, TunedLayers},
};
use crate::model::{
    backbone::{Backbone, BackboneConfig, ResnetConfig, StateData},
    simsiam_golden::{BATCH, SIZE, fill, images},
};

const STEPS: usize = 6;

#[derive(Deserialize)]
struct Golden {
    losses: Vec<f64>,
    moved: BTreeMap<String, f64>,
    probabilities: Vec<f64>,
}

/// The same batch again and again.
struct Images(Vec<f32>);

impl Images {
    fn batch(&self) -> LabelledBatch {
        LabelledBatch { images: self.0.clone(), labels: (0..BATCH as u32).map(|idx| idx * 7 % 4).collect() }
    }
}

impl LabelledSource for Images {
    fn num_images(&self) -> usize {
        STEPS * BATCH
    }

    fn image_size(&self) -> usize {
        SIZE
    }

    fn epoch(&self, _epoch: u32, _batch_size: usize) -> Box<dyn Iterator<Item = LabelledBatch> + '_> {
        Box::new((0..STEPS).map(|_| self.batch()))
    }

    fn validation(&self) -> Box<dyn Iterator<Item = LabelledBatch> + '_> {
        Box::new(std::iter::empty())
    }
}

#[derive(Default)]
struct Losses(Vec<f64>);

impl ClassifierHost for Losses {
    fn step(&mut self, _steps: u64, _total_steps: u64, loss: f64) {
        self.0.push(loss);
    }

    fn info(&mut self, _message: &str) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

fn values(classifier: &Classifier) -> BTreeMap<String, Vec<f32>> {
    let entries = classifier.backbone.state_dict().into_iter().chain(classifier.head_state());
    let floats = entries.filter_map(|entry| match entry.data {
        StateData::F32(values) => Some((entry.name, values)),
        StateData::I64(_) => None,
    });
    floats.collect()
}

#[track_caller]
fn check(case: &str, layers: TunedLayers, optimizer: ClassifierOptimizerConfig) {
    let cases: BTreeMap<String, Golden> =
        serde_json::from_str(include_str!("../../tests/golden/fine_tune/resnet18.json")).unwrap();
    let golden = &cases[case];
    let backbone = Backbone::build(&BackboneConfig::Resnet18(ResnetConfig::default()), 0).unwrap();
    let mut classifier = Classifier::new(backbone, 4, 0);
    let mut state = classifier.backbone.state_dict();
    state.iter_mut().for_each(fill);
    classifier.backbone.load_state_dict(&state).unwrap();
    let mut head = classifier.head_state();
    head.iter_mut().for_each(fill);
    classifier.load_head_state(&head).unwrap();
    let before = values(&classifier);

    let config = ClassifierTrainConfig { epochs: 1, batch_size: BATCH as u32, optimizer, ..Default::default() };
    let (source, mut losses) = (Images(images("x1")), Losses::default());
    classifier.train(&config, layers, &source, &mut losses).unwrap();

    assert_eq!(losses.0.len(), STEPS);
    for (step, (ours, theirs)) in losses.0.iter().zip(&golden.losses).enumerate() {
        assert!((ours - theirs).abs() < 1e-4 * theirs.max(1.0), "step {step}: {ours} is not {theirs}");
    }
    let after = values(&classifier);
    for (name, theirs) in &golden.moved {
        let squares = after[name].iter().zip(&before[name]).map(|(a, b)| f64::from(a - b).powi(2));
        let ours = squares.sum::<f64>().sqrt();
        // What f32 rounds away of values around 1 is more than a small step moves them.
        let rounding = if *theirs == 0.0 { 0.0 } else { f64::from(f32::EPSILON) * (after[name].len() as f64).sqrt() };
        assert!((ours - theirs).abs() <= 2e-3 * theirs + rounding, "`{name}` moved by {ours}, not {theirs}");
    }
    let probabilities = classifier.probabilities(&source.0, BATCH, SIZE).unwrap();
    for (ours, theirs) in probabilities.iter().zip(&golden.probabilities) {
        assert!((f64::from(*ours) - theirs).abs() < 1e-3, "{ours} is not {theirs}");
    }
}

#[test]
fn all_layers_by_sgd_as_pytorch() {
    // A rate of 2e-5 at this batch.
    let base_lr = 2e-5 * 256.0 / BATCH as f64;
    let sgd = SgdConfig { base_lr, momentum: 0.9, weight_decay: 5e-4 };
    check("all_sgd", TunedLayers::All, ClassifierOptimizerConfig::Sgd(sgd));
}

#[test]
fn the_last_blocks_by_adamw_as_pytorch() {
    let adamw = AdamwConfig { lr: 3e-4, eps: 1e-4, weight_decay: 0.05, ..Default::default() };
    check("last_blocks_adamw", TunedLayers::LastBlocks(2), ClassifierOptimizerConfig::Adamw(adamw));
}

#[test]
fn the_softmax_layer_by_adam_as_pytorch() {
    let adam = AdamConfig { lr: 1e-4, weight_decay: 0.01, ..Default::default() };
    check("classifier_adam", TunedLayers::Classifier, ClassifierOptimizerConfig::Adam(adam));
}
