//! What callers rely on beyond the numbers.

use super::backbone_config::{DarknetTinyConfig, ResnetConfig, Stem};
use super::{Backbone, BackboneConfig, BackboneError, StateData};

const DARKNET: BackboneConfig = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
const RESNET: BackboneConfig =
    BackboneConfig::Resnet18(ResnetConfig { stem: Stem::Imagenet, zero_init_residual: false });
const CIFAR: BackboneConfig = BackboneConfig::Resnet18(ResnetConfig { stem: Stem::Cifar, zero_init_residual: false });

fn images(n: usize, size: usize) -> Vec<f32> {
    (0..n * size * size * 3).map(|i| ((i * 7919 % 1009) as f32) / 504.5 - 1.0).collect()
}

/// Bits of everything that two steps leave behind.
fn two_steps(config: BackboneConfig, size: usize) -> Vec<u32> {
    let mut backbone = Backbone::build(&config, 5).unwrap();
    let mut left = Vec::new();
    for n in [5, 3] {
        let x = images(n, size);
        backbone.zero_gradients();
        let turned: Vec<f32> = x.iter().rev().copied().collect();
        left.extend(backbone.forward_train(&[&x, &turned], n, size).unwrap());
        backbone.backward(&vec![0.5; 2 * n * backbone.feature_dim()]).unwrap();
        left.extend(backbone.gradients());
        let (values, gradients) = backbone.values_and_gradients_mut();
        values.iter_mut().zip(gradients).for_each(|(v, g)| *v -= 0.01 * g);
        left.extend(backbone.forward_eval(&x, n, size).unwrap());
    }
    for entry in backbone.state_dict() {
        if let StateData::F32(values) = entry.data {
            left.extend(values);
        }
    }
    left.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn threads_do_not_change_a_bit() {
    for (config, size) in [(DARKNET, 19), (RESNET, 33)] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| two_steps(config, size))
        };
        let one = run(1);
        assert!(one.iter().all(|bits| f32::from_bits(*bits).is_finite()));
        assert!(run(2) == one && run(5) == one);
    }
}

#[test]
fn features_do_not_depend_on_the_rest_of_the_batch() {
    for (config, size) in [(DARKNET, 19), (RESNET, 64), (CIFAR, 16)] {
        let backbone = Backbone::build(&config, 5).unwrap();
        let x = images(5, size);
        let together = backbone.forward_eval(&x, 5, size).unwrap();
        let apart: Vec<f32> =
            x.chunks(size * size * 3).flat_map(|x| backbone.forward_eval(x, 1, size).unwrap()).collect();
        assert!(together == apart);
    }
}

#[test]
fn batches_of_any_length_give_the_same_bits() {
    for (config, size) in [(DARKNET, 16), (RESNET, 40), (CIFAR, 8)] {
        let backbone = Backbone::build(&config, 5).unwrap();
        let x = images(67, size);
        let in_batches = |of: usize| {
            let batches = x.chunks(of * size * size * 3);
            let features = batches.map(|x| backbone.forward_eval(x, x.len() / (size * size * 3), size).unwrap());
            features.collect::<Vec<_>>().concat()
        };
        let together = in_batches(67);
        for of in [64, 32, 9, 2] {
            assert!(in_batches(of) == together, "{of}");
        }
    }
}

#[test]
fn memory_of_another_shape_leaves_no_trace() {
    let (n, size) = (3, 16);
    let x = images(n, size);
    let step = |backbone: &mut Backbone| {
        backbone.zero_gradients();
        let mut left = backbone.forward_train(&[&x], n, size).unwrap();
        backbone.backward(&vec![1.0; n * backbone.feature_dim()]).unwrap();
        left.extend(backbone.gradients());
        left
    };
    let mut fresh = Backbone::build(&DARKNET, 1).unwrap();
    let mut used = Backbone::build(&DARKNET, 1).unwrap();
    let larger = images(4, 24);
    used.forward_train(&[&larger], 4, 24).unwrap();
    used.backward(&vec![1.0; 4 * 128]).unwrap();
    used.forward_eval(&larger, 4, 24).unwrap();
    assert!(step(&mut fresh) == step(&mut used));
}

#[test]
fn only_training_moves_the_statistics() {
    let mut backbone = Backbone::build(&DARKNET, 1).unwrap();
    let before = backbone.state_dict();
    let x = images(2, 16);
    backbone.forward_eval(&x, 2, 16).unwrap();
    assert_eq!(backbone.state_dict(), before);
    backbone.forward_train(&[&x, &x], 2, 16).unwrap();
    let after = backbone.state_dict();
    let counts: Vec<_> = after.iter().filter(|e| e.name.ends_with("num_batches_tracked")).map(|e| &e.data).collect();
    assert_eq!(counts.len(), 7);
    assert!(counts.iter().all(|data| **data == StateData::I64(vec![2])));
}

#[test]
fn changed_weights_are_seen_at_once() {
    let x = images(3, 33);
    let features = |backbone: &mut Backbone| {
        let mut features = backbone.forward_eval(&x, 3, 33).unwrap();
        features.extend(backbone.forward_train(&[&x], 3, 33).unwrap());
        backbone.zero_gradients();
        backbone.backward(&vec![1.0; 3 * 512]).unwrap();
        features.extend(backbone.gradients());
        features
    };
    let mut one = Backbone::build(&RESNET, 1).unwrap();
    let other = Backbone::build(&RESNET, 2).unwrap();
    let before = features(&mut one);
    one.values_mut().copy_from_slice(other.values());
    let after = features(&mut one);
    assert!(before != after);
    // A fresh network with the same weights and statistics agrees.
    let mut fresh = Backbone::build(&RESNET, 3).unwrap();
    let mut state = one.state_dict();
    fresh.load_state_dict(&state).unwrap();
    assert!(features(&mut one) == features(&mut fresh));
    one.values_and_gradients_mut().0.fill(0.01);
    state = one.state_dict();
    fresh.load_state_dict(&state).unwrap();
    assert!(features(&mut one) == features(&mut fresh));
}

#[test]
fn a_state_moves_to_another_network() {
    let first = Backbone::build(&RESNET, 1).unwrap();
    let mut second = Backbone::build(&RESNET, 2).unwrap();
    assert_ne!(first.values(), second.values());
    second.load_state_dict(&first.state_dict()).unwrap();
    assert_eq!(first.values(), second.values());
}

#[test]
fn a_wrong_state_is_refused_whole_and_explained() {
    let mut backbone = Backbone::build(&DARKNET, 1).unwrap();
    let before = backbone.state_dict();
    let mut state = Backbone::build(&DARKNET, 2).unwrap().state_dict();
    state.remove(0);
    state[0].name = "fc.weight".to_owned();
    state[1].shape = vec![64, 2];
    let last = state.len() - 1;
    state[last].data = StateData::F32(vec![0.0]);
    let error = backbone.load_state_dict(&state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tensors do not fit `darknet_tiny`: missing `stem.bn.weight`, `stem.conv.weight`; unexpected `fc.weight`; \
         of another shape `stem.bn.bias` (f32 [64, 2] instead of f32 [128]), `reduce.bn.num_batches_tracked` \
         (f32 [] instead of i64 [])"
    );
    let mut state = before.clone();
    state.push(state[3].clone());
    assert!(
        backbone.load_state_dict(&state).unwrap_err().to_string().contains("unexpected `stem.bn.running_mean` twice")
    );
    for (name, value) in [("stem.conv.weight", f32::NAN), ("stem.bn.running_var", -1.0)] {
        let mut state = before.clone();
        let entry = state.iter_mut().find(|e| e.name == name).unwrap();
        let StateData::F32(values) = &mut entry.data else { panic!("{name} is not f32") };
        values[0] = value;
        let error = backbone.load_state_dict(&state).unwrap_err();
        assert!(matches!(error, BackboneError::UnusableValue { name: n } if n == name));
    }
    assert_eq!(backbone.state_dict(), before);
}

#[test]
fn impossible_calls_are_refused() {
    let mut backbone = Backbone::build(&DARKNET, 1).unwrap();
    let error = backbone.forward_train(&[&images(2, 7)], 2, 7).unwrap_err();
    assert!(matches!(error, BackboneError::ImageTooSmall { image_size: 7, minimum: 8, .. }));
    assert!(matches!(backbone.multiply_adds(0), Err(BackboneError::ImageTooSmall { .. })));
    assert!(matches!(backbone.forward_eval(&[], 0, 16), Err(BackboneError::EmptyBatch)));
    assert!(matches!(backbone.forward_eval(&[], usize::MAX, 16), Err(BackboneError::TooLarge { .. })));
    assert!(matches!(backbone.forward_eval(&[], 1, usize::MAX), Err(BackboneError::TooLarge { .. })));
    assert!(matches!(backbone.forward_eval(&images(1, 8), 2, 8), Err(BackboneError::WrongLength { .. })));
    assert!(matches!(backbone.forward_train(&[], 1, 8), Err(BackboneError::EmptyBatch)));
    assert!(matches!(backbone.backward(&[0.0; 128]), Err(BackboneError::NothingKept)));
    // A single 8×8 image still has 16 positions before the last pool halves them.
    backbone.forward_train(&[&images(1, 8)], 1, 8).unwrap();
    assert!(matches!(backbone.backward(&[0.0; 127]), Err(BackboneError::WrongLength { .. })));
    backbone.backward(&[0.0; 128]).unwrap();
    assert!(matches!(backbone.backward(&[0.0; 128]), Err(BackboneError::NothingKept)));
    let mut resnet = Backbone::build(&RESNET, 1).unwrap();
    let error = resnet.forward_train(&[&images(1, 32)], 1, 32).unwrap_err();
    assert!(matches!(&error, BackboneError::SingleValuePerChannel { layer, n: 1, .. } if layer == "layer4.0.bn1"));
    resnet.forward_eval(&images(1, 1), 1, 1).unwrap();
}

#[test]
fn not_a_number_reaches_features_and_gradients() {
    let mut backbone = Backbone::build(&RESNET, 1).unwrap();
    let mut x = images(2, 33);
    x[1000] = f32::NAN;
    assert!(backbone.forward_eval(&x, 2, 33).unwrap().iter().any(|v| v.is_nan()));
    assert!(backbone.forward_train(&[&x], 2, 33).unwrap().iter().any(|v| v.is_nan()));
    backbone.backward(&vec![1.0; 2 * 512]).unwrap();
    assert!(backbone.gradients().iter().any(|v| v.is_nan()));
}

#[test]
fn it_can_move_between_threads() {
    fn send<T: Send>() {}
    send::<Backbone>();
}

#[test]
fn blocks_are_the_stem_and_the_residual_blocks() {
    let names = |config: BackboneConfig| -> Vec<String> {
        let backbone = Backbone::build(&config, 0).unwrap();
        backbone.program().blocks().into_iter().map(|block| block.name).collect()
    };
    assert_eq!(names(DARKNET), ["stem", "block1", "expand", "block2", "reduce"]);
    let resnet = names(RESNET);
    assert_eq!(
        (resnet.len(), resnet[0].as_str(), resnet[1].as_str(), resnet[8].as_str()),
        (9, "", "layer1.0", "layer4.1")
    );
    let backbone = Backbone::build(&RESNET, 0).unwrap();
    // Every value lies in the block that its name says.
    let blocks = backbone.program().blocks();
    for spec in &backbone.program().parameters {
        let block = blocks.iter().rev().find(|block| block.first_value <= spec.offset).unwrap();
        assert!(spec.name.starts_with(&block.name), "`{}` in `{}`", spec.name, block.name);
    }
}

#[test]
fn frozen_blocks_stay_and_the_others_learn_as_gradients_say() {
    for (config, size, blocks) in [(DARKNET, 19, 2), (CIFAR, 16, 3)] {
        let mut backbone = Backbone::build(&config, 5).unwrap();
        let x = images(4, size);
        backbone.forward_train(&[&x], 4, size).unwrap();
        let before = backbone.state_dict();
        backbone.train_last_blocks(blocks);
        let first = backbone.first_trained_value();
        assert!(first > 0 && first < backbone.num_parameters());
        let weights: Vec<f32> = (0..4 * backbone.feature_dim()).map(|i| ((i * 31 % 17) as f32) / 8.0 - 1.0).collect();
        let loss = |backbone: &mut Backbone| -> f64 {
            let features = backbone.forward_train(&[&x], 4, size).unwrap();
            features.iter().zip(&weights).map(|(f, w)| f64::from(f * w)).sum()
        };
        backbone.zero_gradients();
        loss(&mut backbone);
        backbone.backward(&weights).unwrap();
        let gradients = backbone.gradients().to_vec();
        assert!(gradients[..first].iter().all(|g| *g == 0.0), "frozen values have no gradient");
        // Along the gradient the loss changes by its squared length.
        let squared: f64 = gradients.iter().map(|g| f64::from(*g).powi(2)).sum();
        let step = 1e-3 / squared.sqrt();
        let mut along = |sign: f64| {
            let shift = |v: &mut f32, g: f32, by: f64| *v = (f64::from(*v) + by * f64::from(g)) as f32;
            backbone.values_mut().iter_mut().zip(&gradients).for_each(|(v, g)| shift(v, *g, sign * step));
            let value = loss(&mut backbone);
            backbone.values_mut().iter_mut().zip(&gradients).for_each(|(v, g)| shift(v, *g, -sign * step));
            value
        };
        let slope = (along(1.0) - along(-1.0)) / (2.0 * step);
        assert!((slope / squared - 1.0).abs() < 0.05, "{slope} is not {squared}");
        // Weights and statistics of frozen blocks are what they were.
        let frozen: Vec<String> = {
            let all = backbone.program().blocks();
            all[..all.len() - blocks].iter().map(|block| block.name.clone()).collect()
        };
        for (entry, old) in backbone.state_dict().iter().zip(&before) {
            let of = |block: &String| {
                if block.is_empty() { !entry.name.starts_with("layer") } else { entry.name.starts_with(block.as_str()) }
            };
            if frozen.iter().any(of) {
                assert_eq!(entry, old, "`{}`", entry.name);
            } else if entry.name.ends_with("num_batches_tracked") {
                assert_ne!(entry, old, "`{}`", entry.name);
            }
        }
    }
}
