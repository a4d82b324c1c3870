//! What takes the steps of a training. The networks and velocities of the host are those of every checkpoint and artifact;
//! an engine with memory of its own takes them when it starts and gives them back when they are wanted.

use super::step::{SimSiamSgd, StepMetrics, StepRates, take_step};
#[cfg(any(test, feature = "cuda"))]
use crate::cuda::{CudaRates, CudaSimSiam, LossScale};
use crate::{
    compute::{Compute, ComputeError},
    model::{
        simsiam::{SimSiam, Views},
        state::{StateEntry, StateMap},
    },
};

/// The tensor of a checkpoint that holds the loss scale of f16: the factor and the steps since it changed.
#[cfg(any(test, feature = "cuda"))]
const LOSS_SCALE: &str = "loss_scale";

/// What takes the steps.
pub(super) enum Engine {
    /// This processor, on the host's networks.
    Cpu,
    /// A GPU, on a copy.
    #[cfg(any(test, feature = "cuda"))]
    Cuda(Box<CudaSimSiam>),
}

#[cfg_attr(
    not(any(test, feature = "cuda")),
    allow(unused_variables, clippy::unnecessary_wraps, clippy::unused_self, reason = "one engine only")
)]
impl Engine {
    /// The engine for networks and velocities as they are now.
    pub(super) fn start(compute: &Compute, model: &SimSiam, sgd: &SimSiamSgd) -> Result<Self, ComputeError> {
        match compute {
            Compute::Cpu => Ok(Self::Cpu),
            #[cfg(any(test, feature = "cuda"))]
            Compute::Cuda(device) => {
                let mut engine = CudaSimSiam::new(device, model)?;
                let SimSiamSgd { backbone, projector, predictor } = sgd;
                let velocities = [&backbone.velocity[..], &projector.velocity[..], &predictor.velocity[..]];
                engine.load_velocities(model, velocities)?;
                Ok(Self::Cuda(Box::new(engine)))
            }
        }
    }

    /// [`take_step`], by this engine.
    pub(super) fn take_step(
        &mut self,
        model: &mut SimSiam,
        sgd: &mut SimSiamSgd,
        views: &Views<'_>,
        parts: usize,
        rates: StepRates,
    ) -> Result<StepMetrics, ComputeError> {
        match self {
            Self::Cpu => Ok(take_step(model, sgd, views, parts, rates)?),
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(engine) => {
                let config = sgd.backbone.config();
                let rates = CudaRates {
                    encoder: rates.encoder,
                    predictor: rates.predictor,
                    momentum: config.momentum,
                    weight_decay: config.weight_decay,
                };
                let step = engine.step(model, views, parts, &rates)?;
                Ok(StepMetrics { loss: step.loss, embedding_std: step.embedding_std })
            }
        }
    }

    /// Gives the host what was learnt.
    pub(super) fn store(&self, model: &mut SimSiam, sgd: &mut SimSiamSgd) -> Result<(), ComputeError> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(engine) => {
                engine.store(model)?;
                let SimSiamSgd { backbone, projector, predictor } = sgd;
                let velocities = [&mut backbone.velocity[..], &mut projector.velocity[..], &mut predictor.velocity[..]];
                Ok(engine.store_velocities(model, velocities)?)
            }
        }
    }

    /// What it needs to go on beside networks and velocities.
    pub(super) fn own_state(&self) -> Vec<StateEntry> {
        match self {
            Self::Cpu => vec![],
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(engine) => {
                let LossScale { factor, good_steps } = engine.loss_scale();
                vec![StateEntry::f32(LOSS_SCALE, vec![2], vec![factor, good_steps as f32])]
            }
        }
    }

    /// Takes it from a checkpoint, which may be one of another engine.
    pub(super) fn load_own_state(&mut self, state: &StateMap<'_>) {
        match self {
            Self::Cpu => {}
            #[cfg(any(test, feature = "cuda"))]
            Self::Cuda(engine) => {
                if let Ok(&[factor, good_steps]) = state.f32(LOSS_SCALE, &[2]) {
                    engine.set_loss_scale(LossScale { factor, good_steps: good_steps as u32 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, path::PathBuf, sync::Arc};

    use super::super::{
        EpochRecord, PretrainConfig, TrainError,
        pretrain::{Batch, BatchSource, Pretrained, StepProgress, TrainHost, pretrain},
    };
    use super::*;
    use crate::{
        cuda::{Device, Precision, emulator::Emulator},
        model::{backbone::Backbone, state::StateData},
        seed::{seeded_rng, uniform},
    };

    const N: usize = 4;
    const SIZE: usize = 8;

    struct Source;

    impl BatchSource for Source {
        fn num_images(&self) -> usize {
            2 * N
        }

        fn image_size(&self) -> usize {
            SIZE
        }

        fn num_views(&self) -> usize {
            2
        }

        fn epoch(&self, epoch: u32, first_batch: u64) -> Box<dyn Iterator<Item = Batch> + '_> {
            Box::new((first_batch..2).map(move |batch| {
                let mut rng = seeded_rng(4, "batch", &[u64::from(epoch), batch]);
                Batch { x: (0..2 * N * SIZE * SIZE * 3).map(|_| uniform(&mut rng, -1.0, 1.0) as f32).collect() }
            }))
        }
    }

    /// Keeps checkpoints and stops after some steps.
    struct Host<'a> {
        checkpoints: &'a RefCell<Vec<Vec<u8>>>,
        steps_left: usize,
    }

    impl TrainHost for Host<'_> {
        fn step(&mut self, _: &StepProgress) {
            self.steps_left -= 1;
        }

        fn epoch(&mut self, _: &EpochRecord) {}

        fn warn(&mut self, message: &str) {
            assert!(message.contains("collapse"), "{message}");
        }

        fn info(&mut self, _: &str) {}

        fn is_cancelled(&self) -> bool {
            self.steps_left == 0
        }

        fn available_memory(&self) -> Option<u64> {
            None
        }

        fn knn_top1(&mut self, _: &Backbone) -> Result<Option<f64>, TrainError> {
            Ok(None)
        }

        fn save_checkpoint(&mut self, _: u64, bytes: Vec<u8>) -> Result<(), TrainError> {
            self.checkpoints.borrow_mut().insert(0, bytes);
            Ok(())
        }

        fn checkpoints(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
            self.checkpoints.borrow().iter().map(|bytes| (PathBuf::from("checkpoint"), bytes.clone())).collect()
        }
    }

    fn train(compute: &Compute, checkpoints: &RefCell<Vec<Vec<u8>>>, steps: usize) -> Result<Pretrained, TrainError> {
        let config: PretrainConfig = serde_json::from_value(serde_json::json!({
            "backbone": { "darknet_tiny": {} },
            "projector": { "hidden_dim": 8, "output_dim": 8, "num_layers": 2 },
            "predictor": { "hidden_dim": 4 },
            "epochs": 2,
            "batch_size": N,
        }))
        .unwrap();
        pretrain(&config, 3, None, &Source, compute, &mut Host { checkpoints, steps_left: steps })
    }

    fn gpu(precision: Precision) -> Compute {
        let device: Arc<dyn Device> = Emulator::open(precision);
        Compute::Cuda(device)
    }

    #[test]
    fn a_training_on_a_gpu_follows_the_cpus() {
        let all = RefCell::new(vec![]);
        let cpu = train(&Compute::Cpu, &RefCell::new(vec![]), 9).unwrap();
        let gpu = train(&gpu(Precision::F32), &all, 9).unwrap();
        assert_eq!(cpu.steps, gpu.steps);
        for (cpu, gpu) in cpu.history.iter().zip(&gpu.history) {
            assert!((cpu.loss - gpu.loss).abs() < 0.02, "{cpu:?} {gpu:?}");
        }
        let names =
            |model: &SimSiam| model.state_dict().iter().map(|e| (e.name.clone(), e.shape.clone())).collect::<Vec<_>>();
        assert_eq!(names(&cpu.model), names(&gpu.model));
        // A checkpoint of the GPU, made after the first epoch, goes on here.
        assert_eq!(all.borrow().len(), 1);
        let moved = train(&Compute::Cpu, &all, 9).unwrap();
        assert_eq!(moved.history[0], gpu.history[0]);
        assert!((moved.history[1].loss - gpu.history[1].loss).abs() < 0.02);
    }

    #[test]
    fn a_training_on_a_gpu_that_was_interrupted_ends_with_the_same_bits() {
        let whole = train(&gpu(Precision::F16), &RefCell::new(vec![]), 9).unwrap();
        let kept = RefCell::new(vec![]);
        assert!(matches!(train(&gpu(Precision::F16), &kept, 3), Err(TrainError::Cancelled)));
        let resumed = train(&gpu(Precision::F16), &kept, 9).unwrap();
        assert_eq!(resumed.history, whole.history);
        assert_eq!(resumed.model.state_dict(), whole.model.state_dict());
        let finite = |entry: &StateEntry| match &entry.data {
            StateData::F32(values) => values.iter().all(|v| v.is_finite()),
            StateData::I64(_) => true,
        };
        assert!(whole.model.state_dict().iter().all(finite));
    }
}
