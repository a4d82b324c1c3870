//! Training steps against PyTorch and the CPU, and what must not depend on anything.

use std::sync::Arc;

use super::{Open, random};
use crate::{
    cuda::{
        device::Device,
        precision::Precision,
        simsiam::{CudaRates, CudaSimSiam, LossScale},
    },
    model::{
        backbone::{BackboneConfig, backbone_config::DarknetTinyConfig, golden_tests::IMAGENET},
        predictor::PredictorConfig,
        projector::ProjectorConfig,
        simsiam::{SimSiam, Views},
        simsiam_golden::{self, BATCH, SIZE},
        state::{StateData, StateEntry},
    },
    train::{
        step::{SimSiamSgd, StepRates, take_step},
        train_config::SgdConfig,
    },
};

/// Images and their size where only bits are compared, and where numbers are: batch norms over few values enlarge every
/// rounding.
const TINY: (usize, usize) = (4, 8);
const SMALL: (usize, usize) = (8, 16);
const RATES: CudaRates = CudaRates { encoder: 0.05, predictor: 0.1, momentum: 0.9, weight_decay: 1e-3 };

fn small_model(seed: u64) -> SimSiam {
    let backbone = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
    // Widths that fill no vector, and a layer with a bias.
    let projector = ProjectorConfig { hidden_dim: 12, output_dim: 10, num_layers: 2, output_bn: true };
    SimSiam::build(&backbone, &projector, &PredictorConfig { hidden_dim: 6 }, seed).unwrap()
}

/// Views of images that differ, as photographs do: each has a colour of its own.
fn random_views(views: usize, (n, size): (usize, usize)) -> Vec<Vec<f32>> {
    let colours = random("colours", n * 3);
    let view = |view: usize| {
        let mut x = random(&format!("view {view}"), n * size * size * 3);
        for (idx, value) in x.iter_mut().enumerate() {
            *value += colours[idx / (size * size * 3) * 3 + idx % 3];
        }
        x
    };
    (0..views).map(view).collect()
}

fn lend(x: &[Vec<f32>], (n, image_size): (usize, usize)) -> Views<'_> {
    Views { x: x.iter().map(Vec::as_slice).collect(), n, image_size }
}

/// Root mean square of the difference of two states over that of the first, tensor by tensor.
fn worst_difference(a: &[StateEntry], b: &[StateEntry]) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (a, b) in a.iter().zip(b) {
        assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
        let (StateData::F32(x), StateData::F32(y)) = (&a.data, &b.data) else {
            assert_eq!(a.data, b.data, "{}", a.name);
            continue;
        };
        let size = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let off = size(&mut x.iter().zip(y).map(|(x, y)| f64::from(*x) - f64::from(*y)));
        let scale = size(&mut x.iter().map(|x| f64::from(*x))).max(1e-2 * (x.len() as f64).sqrt());
        if off.is_nan() || off / scale > worst.0 {
            worst = (off / scale, a.name.clone());
        }
    }
    worst
}

/// Steps of f32 with three views, and in parts, against the CPU's: metrics, weights, statistics, velocities.
pub fn a_step_is_the_cpus(open: Open<'_>) {
    let device = open(Precision::F32);
    for (views, parts) in [(3, 1), (2, 2)] {
        let x = random_views(views, SMALL);
        let mut cpu = small_model(1);
        let config = SgdConfig { base_lr: 0.1, momentum: RATES.momentum, weight_decay: RATES.weight_decay };
        let mut sgd = SimSiamSgd::new(config, &cpu);
        let mut engine = CudaSimSiam::new(&device, &cpu).unwrap();
        let mut host = small_model(2);
        for step in 0..2 {
            let rates = StepRates { encoder: RATES.encoder, predictor: RATES.predictor };
            let expected = take_step(&mut cpu, &mut sgd, &lend(&x, SMALL), parts, rates).unwrap();
            let found = engine.step(&host, &lend(&x, SMALL), parts, &RATES).unwrap();
            let what = format!("{views} views in {parts} parts, step {step}");
            assert!((found.loss - expected.loss).abs() < 1e-4, "{what}: {found:?} {expected:?}");
            assert!((found.embedding_std - expected.embedding_std).abs() < 1e-4, "{what}: {found:?} {expected:?}");
        }
        engine.store(&mut host).unwrap();
        let (off, name) = worst_difference(&cpu.state_dict(), &host.state_dict());
        // Batch norms over two or four images enlarge every rounding.
        let tolerance = if parts == 1 { 1e-3 } else { 1e-2 };
        assert!(off < tolerance, "{views} views in {parts} parts: `{name}` is off by {off}");
        let mut velocities = [&sgd.backbone, &sgd.projector, &sgd.predictor].map(|sgd| vec![0.0; sgd.velocity.len()]);
        let [a, b, c] = &mut velocities;
        engine.store_velocities(&host, [a, b, c]).unwrap();
        for (found, sgd) in velocities.iter().zip([&sgd.backbone, &sgd.projector, &sgd.predictor]) {
            let size = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let off = size(&mut found.iter().zip(&sgd.velocity).map(|(x, y)| f64::from(*x) - f64::from(*y)));
            let scale = size(&mut sgd.velocity.iter().map(|x| f64::from(*x)));
            assert!(off < 10.0 * tolerance * scale, "velocities are off by {off} of {scale}");
        }
    }
}

/// `steps` steps of resnet18 with all heads in f32 against PyTorch's losses, and the first one's gradients.
pub fn a_step_is_pytorchs(open: Open<'_>, steps: usize) {
    let golden = simsiam_golden::golden();
    let mut host = simsiam_golden::model();
    let mut engine = CudaSimSiam::new(&open(Precision::F32), &host).unwrap();
    let (sgd, schedule) = simsiam_golden::sgd();
    let [x1, x2] = simsiam_golden::views();
    for (step, expected) in golden.losses.iter().enumerate().take(steps) {
        let views = Views { x: vec![&x1, &x2], n: BATCH, image_size: SIZE };
        engine.zero_gradients();
        let output = engine.forward_backward(&host, &views, 1.0).unwrap();
        let off = (f64::from(output.loss) - expected).abs();
        assert!(off < 2e-4, "step {step}: loss {} where PyTorch has {expected}", output.loss);
        if step == 0 {
            assert!((output.embedding_std - golden.embedding_std).abs() < 1e-5);
            let [backbone, projector, predictor] = engine.gradients(&host).unwrap();
            let gradients = simsiam_golden::name_gradients(&mut host, &backbone, [&projector, &predictor]);
            simsiam_golden::compare_gradients(&gradients, &golden.gradients);
        }
        let rates = CudaRates {
            encoder: schedule.lr(step as u64),
            predictor: schedule.full_lr(),
            momentum: sgd.momentum,
            weight_decay: sgd.weight_decay,
        };
        assert!(engine.update(&rates).unwrap());
    }
}

/// The loss and the direction of the gradients in tf32, bf16 and f16 against the CPU's, of a network whose ReLUs let
/// nearly everything through: the sides of others would change with every rounding.
pub fn lower_precisions_follow(open: Open<'_>) {
    let model = || {
        let backbone = BackboneConfig::Resnet18(IMAGENET);
        let projector = ProjectorConfig { hidden_dim: 32, output_dim: 24, num_layers: 2, output_bn: true };
        let mut model = SimSiam::build(&backbone, &projector, &PredictorConfig { hidden_dim: 16 }, 1).unwrap();
        let mut state = model.state_dict();
        state.iter_mut().for_each(simsiam_golden::fill);
        model.load_state_dict(&state).unwrap();
        model
    };
    let x = random_views(2, SMALL);
    let mut cpu = model();
    let expected = cpu.forward_backward(&lend(&x, SMALL), 1.0).unwrap();
    let truth = cpu.backbone.gradients().to_vec();
    for (precision, tolerance, cosine) in
        [(Precision::Tf32, 2e-3, 0.999), (Precision::Bf16, 2e-2, 0.85), (Precision::F16, 2e-3, 0.99)]
    {
        let host = model();
        let mut engine = CudaSimSiam::new(&open(precision), &host).unwrap();
        let found = engine.forward_backward(&host, &lend(&x, SMALL), 1.0).unwrap();
        let name = precision.name();
        let [gradient, ..] = engine.gradients(&host).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (along, own, other) = (dot(&gradient, &truth), dot(&gradient, &gradient), dot(&truth, &truth));
        println!("{name}: loss off by {:.1e}, cosine {:.5}", found.loss - expected.loss, along / (own * other).sqrt());
        assert!((found.loss - expected.loss).abs() < tolerance, "{name}: {found:?} {expected:?}");
        assert!(along / (own * other).sqrt() > cosine, "{name}: {along} {own} {other}");
        let factor = f64::from(engine.loss_scale().factor);
        assert!(((own / other).sqrt() / factor - 1.0).abs() < 0.05, "{name}: the gradient has another length");
    }
}

/// Two steps from the beginning: metrics, state and loss scale.
pub fn train_a_little(device: &Arc<dyn Device>) -> (Vec<u64>, Vec<StateEntry>) {
    let mut host = small_model(1);
    let mut engine = CudaSimSiam::new(device, &host).unwrap();
    let x = random_views(2, TINY);
    let mut bits = vec![];
    for _ in 0..2 {
        let step = engine.step(&host, &lend(&x, TINY), 1, &RATES).unwrap();
        bits.extend([step.loss.to_bits(), step.embedding_std.to_bits()]);
    }
    engine.store(&mut host).unwrap();
    (bits, host.state_dict())
}

/// The same device and seed give the same bits.
pub fn same_bits_every_time(open: Open<'_>) {
    for precision in Precision::ALL {
        assert_eq!(train_a_little(&open(precision)), train_a_little(&open(precision)), "{}", precision.name());
    }
}

/// What was stored and loaded again goes on with the same bits.
pub fn training_goes_on_where_it_was(open: Open<'_>) {
    for precision in [Precision::F32, Precision::F16] {
        let x = random_views(2, TINY);
        let mut host = small_model(1);
        let mut engine = CudaSimSiam::new(&open(precision), &host).unwrap();
        engine.step(&host, &lend(&x, TINY), 1, &RATES).unwrap();
        engine.store(&mut host).unwrap();
        let mut velocities = engine.gradients(&host).unwrap();
        let [a, b, c] = &mut velocities;
        engine.store_velocities(&host, [a, b, c]).unwrap();

        let mut fresh = small_model(9);
        fresh.load_state_dict(&host.state_dict()).unwrap();
        let mut resumed = CudaSimSiam::new(&open(precision), &fresh).unwrap();
        let [a, b, c] = &velocities;
        resumed.load_velocities(&fresh, [a, b, c]).unwrap();
        resumed.set_loss_scale(engine.loss_scale());

        let expected = engine.step(&host, &lend(&x, TINY), 1, &RATES).unwrap();
        assert_eq!(resumed.step(&fresh, &lend(&x, TINY), 1, &RATES).unwrap(), expected);
        engine.store(&mut host).unwrap();
        resumed.store(&mut fresh).unwrap();
        assert_eq!(fresh.state_dict(), host.state_dict());
    }
}

/// A state that went to a device comes back to the bit, in every precision.
pub fn states_move_between_devices(open: Open<'_>) {
    for precision in Precision::ALL {
        let mut model = small_model(3);
        let x = random_views(2, TINY);
        model.forward_backward(&lend(&x, TINY), 1.0).unwrap();
        let engine = CudaSimSiam::new(&open(precision), &model).unwrap();
        let mut other = small_model(4);
        engine.store(&mut other).unwrap();
        assert_eq!(other.state_dict(), model.state_dict());
    }
}

/// Gradients of f16 that overflow change no weight and halve the loss scale.
pub fn overflow_skips_the_step(open: Open<'_>) {
    let mut host = small_model(1);
    let before = host.clone_values();
    let mut engine = CudaSimSiam::new(&open(Precision::F16), &host).unwrap();
    engine.set_loss_scale(LossScale { factor: 2f32.powi(60), good_steps: 5 });
    let x = random_views(2, TINY);
    let step = engine.step(&host, &lend(&x, TINY), 1, &RATES).unwrap();
    assert!(step.loss.is_finite(), "{step:?}");
    assert_eq!(engine.loss_scale(), LossScale { factor: 2f32.powi(59), good_steps: 0 });
    engine.store(&mut host).unwrap();
    assert_eq!(host.clone_values(), before);
    engine.set_loss_scale(LossScale { factor: 1024.0, good_steps: 0 });
    engine.step(&host, &lend(&x, TINY), 1, &RATES).unwrap();
    assert_eq!(engine.loss_scale(), LossScale { factor: 1024.0, good_steps: 1 });
    engine.store(&mut host).unwrap();
    assert_ne!(host.clone_values(), before);
}

trait Values {
    fn clone_values(&self) -> [Vec<f32>; 3];
}

impl Values for SimSiam {
    fn clone_values(&self) -> [Vec<f32>; 3] {
        let head = |head: &crate::model::head::Head| head.parameters.values().to_vec();
        [self.backbone.values().to_vec(), head(&self.projector), head(&self.predictor)]
    }
}
