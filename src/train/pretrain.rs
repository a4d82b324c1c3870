//! The pretraining loop. Everything that decides a bit is in the checkpoint or a function of seed and position,
//! so a training that was interrupted ends like one that was not.

use std::path::PathBuf;

use super::{
    EpochRecord, PretrainConfig, TrainError,
    checkpoint::{Checkpoint, Position},
    collapse::{COLLAPSE_HELP, collapse_message, has_collapsed},
    early_stopping::{EarlyStopping, Progress},
    engine::Engine,
    optimizer::Sgd,
    schedule::{Schedule, linear_scaled_lr},
    step::{SimSiamSgd, StepRates},
    train_config::{CollapseAction, PredictorLr, PretrainOptimizerConfig},
};
use crate::{
    compute::Compute,
    model::{
        backbone::Backbone,
        simsiam::{SimSiam, SimSiamError, Views},
        state::{StateData, StateEntry, StateMap},
    },
};

/// The views of a batch, as a [`BatchSource`] gives them.
pub struct Batch {
    /// View after view, each [n, size, size, 3].
    pub x: Vec<f32>,
}

/// Where batches come from.
pub trait BatchSource {
    /// Images there are.
    fn num_images(&self) -> usize;
    /// Width and height of a view.
    fn image_size(&self) -> usize;
    /// Views of each image.
    fn num_views(&self) -> usize;
    /// The batches of an epoch (from 0) from this one on; the incomplete last one is left out.
    fn epoch(&self, epoch: u32, first_batch: u64) -> Box<dyn Iterator<Item = Batch> + '_>;
}

/// Who follows a training, keeps its checkpoints and may stop it.
pub trait TrainHost {
    /// A step is done.
    fn step(&mut self, progress: &StepProgress);
    /// An epoch is done.
    fn epoch(&mut self, record: &EpochRecord);
    /// Something that the user should know.
    fn warn(&mut self, message: &str);
    /// Something worth a line.
    fn info(&mut self, message: &str);
    /// Whether to stop after this step.
    fn is_cancelled(&self) -> bool;
    /// Bytes of memory that the training may take, where that is known.
    fn available_memory(&self) -> Option<u64>;
    /// kNN accuracy of these features on the monitor images, if there are any.
    ///
    /// # Errors
    /// Whatever goes wrong in measuring.
    fn knn_top1(&mut self, backbone: &Backbone) -> Result<Option<f64>, TrainError>;
    /// Keeps a checkpoint.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn save_checkpoint(&mut self, steps: u64, bytes: Vec<u8>) -> Result<(), TrainError>;
    /// Checkpoints, newest first.
    fn checkpoints(&mut self) -> Vec<(PathBuf, Vec<u8>)>;
}

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepProgress {
    /// From 1.
    pub epoch: u32,
    /// Steps done.
    pub steps: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Loss of this step.
    pub loss: f64,
    /// `embedding_std` · √d of this step.
    pub embedding_std_ratio: f64,
    /// Learning rate of this step.
    pub lr: f64,
}

/// A finished training.
pub struct Pretrained {
    /// The networks.
    pub model: SimSiam,
    /// One record an epoch.
    pub history: Vec<EpochRecord>,
    /// Steps done.
    pub steps: u64,
    /// Whether early stopping ended it.
    pub stopped_early: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Trains SimSiam on `compute` from the newest usable checkpoint or from the beginning, with `init` as the backbone's first state
/// where it is given.
///
/// # Errors
/// See [`TrainError`].
pub fn pretrain(
    config: &PretrainConfig,
    seed: u64,
    init: Option<&[StateEntry]>,
    source: &dyn BatchSource,
    compute: &Compute,
    host: &mut dyn TrainHost,
) -> Result<Pretrained, TrainError> {
    let steps_per_epoch = (source.num_images() / config.batch_size as usize) as u64;
    if steps_per_epoch == 0 {
        return Err(TrainError::TooFewImages { found: source.num_images(), batch_size: config.batch_size });
    }
    let mut training = Training::new(config, seed, steps_per_epoch)?;
    if let Some(init) = init {
        training.model.backbone.load_state_dict(init).map_err(SimSiamError::from)?;
    }
    if matches!(compute, Compute::Cpu) {
        training.check_memory(source, host.available_memory())?;
    }
    training.resume(compute, host)?;
    let stopped_early = training.run(source, host)?;
    let Training { model, position, .. } = training;
    Ok(Pretrained {
        model,
        history: position.history,
        steps: position.steps,
        stopped_early,
        warnings: position.warnings,
    })
}

struct Training<'a> {
    config: &'a PretrainConfig,
    steps_per_epoch: u64,
    schedule: Schedule,
    model: SimSiam,
    sgd: SimSiamSgd,
    engine: Engine,
    position: Position,
}

impl<'a> Training<'a> {
    fn new(config: &'a PretrainConfig, seed: u64, steps_per_epoch: u64) -> Result<Self, TrainError> {
        let PretrainOptimizerConfig::Sgd(sgd) = config.optimizer;
        let lr = linear_scaled_lr(sgd.base_lr, config.batch_size);
        let model = SimSiam::build(&config.backbone, &config.projector, &config.predictor, seed)?;
        let position =
            Position { early_stopping: config.early_stopping.map(EarlyStopping::new), ..Position::default() };
        Ok(Self {
            config,
            steps_per_epoch,
            schedule: Schedule::new(config.schedule, lr, config.epochs, steps_per_epoch),
            sgd: SimSiamSgd::new(sgd, &model),
            engine: Engine::Cpu,
            model,
            position,
        })
    }

    /// Refuses what would not fit, before anything is computed.
    fn check_memory(&self, source: &dyn BatchSource, available: Option<u64>) -> Result<(), TrainError> {
        let (views, image_size) = (source.num_views(), source.image_size());
        let PretrainConfig { batch_size, accumulate, .. } = *self.config;
        let bytes = |parts: u32| self.model.training_bytes(views, (batch_size / parts.max(1)) as usize, image_size);
        let needed = bytes(accumulate)?;
        let Some(available) = available.filter(|available| needed > *available) else { return Ok(()) };
        let fits =
            |parts: &u32| batch_size.is_multiple_of(*parts) && bytes(*parts).is_ok_and(|needed| needed <= available);
        let fitting = (accumulate + 1..=batch_size / 2).find(fits);
        Err(TrainError::TooLittleMemory { needed, available, batch_size, fitting })
    }

    /// Takes up the newest checkpoint that can be read, and starts the engine; a damaged one is named and the one before
    /// it tried.
    fn resume(&mut self, compute: &Compute, host: &mut dyn TrainHost) -> Result<(), TrainError> {
        for (path, bytes) in host.checkpoints() {
            let taken = Checkpoint::from_bytes(&bytes, &path)
                .map_err(TrainError::from)
                .and_then(|checkpoint| self.load(checkpoint));
            match taken {
                Ok(tensors) => {
                    let Position { epochs, batches, .. } = self.position;
                    host.info(&format!("resuming after epoch {epochs} and {batches} batches"));
                    self.engine = Engine::start(compute, &self.model, &self.sgd)?;
                    self.engine.load_own_state(&StateMap::new(&tensors));
                    return Ok(());
                }
                Err(error) => host.warn(&format!("checkpoint `{}` is left aside: {error}", path.display())),
            }
        }
        self.engine = Engine::start(compute, &self.model, &self.sgd)?;
        Ok(())
    }

    /// Runs to the end; whether early stopping ended it.
    fn run(&mut self, source: &dyn BatchSource, host: &mut dyn TrainHost) -> Result<bool, TrainError> {
        while self.position.epochs < self.config.epochs {
            self.run_epoch(source, host)?;
            let progress = self.finish_epoch(host)?;
            let epochs = self.position.epochs;
            let stop = progress == Progress::Stop;
            if stop {
                host.info(&format!("early stopping after epoch {epochs}: the loss no longer falls"));
                return Ok(true);
            }
            let due = epochs.is_multiple_of(self.config.checkpoint.every_epochs);
            if due && epochs < self.config.epochs {
                self.save(host)?;
            }
        }
        Ok(false)
    }

    fn run_epoch(&mut self, source: &dyn BatchSource, host: &mut dyn TrainHost) -> Result<(), TrainError> {
        let (n, parts) = (self.config.batch_size as usize, self.config.accumulate as usize);
        let sqrt_d = f64::from(self.config.projector.output_dim).sqrt();
        let epoch = self.position.epochs;
        for batch in source.epoch(epoch, self.position.batches) {
            let view_len = batch.x.len() / source.num_views().max(1);
            let x = batch.x.chunks_exact(view_len.max(1)).collect();
            let views = Views { x, n, image_size: source.image_size() };
            let lr = self.schedule.lr(self.position.steps);
            let rates = StepRates { encoder: lr, predictor: predictor_lr(self.config, &self.schedule, lr) };
            let metrics = self.engine.take_step(&mut self.model, &mut self.sgd, &views, parts, rates)?;
            if !metrics.loss.is_finite() {
                return Err(TrainError::NotFinite { epoch: epoch + 1, step: self.position.steps + 1 });
            }

            self.position.batches += 1;
            self.position.steps += 1;
            self.position.sums.loss += metrics.loss;
            self.position.sums.embedding_std += metrics.embedding_std;
            host.step(&StepProgress {
                epoch: epoch + 1,
                steps: self.position.steps,
                total_steps: u64::from(self.config.epochs) * self.steps_per_epoch,
                loss: metrics.loss,
                embedding_std_ratio: metrics.embedding_std * sqrt_d,
                lr,
            });
            if host.is_cancelled() {
                self.save(host)?;
                return Err(TrainError::Cancelled);
            }
        }
        Ok(())
    }

    fn finish_epoch(&mut self, host: &mut dyn TrainHost) -> Result<Progress, TrainError> {
        let config = self.config;
        let num_batches = self.position.batches.max(1) as f64;
        let sums = std::mem::take(&mut self.position.sums);
        self.position.batches = 0;
        self.position.epochs += 1;
        let epoch = self.position.epochs;
        self.engine.store(&mut self.model, &mut self.sgd)?;
        // A checkpoint or an artifact of broken weights would be worth less than none.
        if !is_finite(&self.model) {
            return Err(TrainError::NotFinite { epoch, step: self.position.steps });
        }
        let every = config.knn_monitor.every_epochs;
        let measure = every > 0 && (epoch.is_multiple_of(every) || epoch == config.epochs);
        let embedding_std = sums.embedding_std / num_batches;
        let lr = self.schedule.lr(self.position.steps - 1);
        let record = EpochRecord {
            epoch,
            step: self.position.steps,
            loss: sums.loss / num_batches,
            embedding_std,
            embedding_std_ratio: embedding_std * f64::from(config.projector.output_dim).sqrt(),
            lr,
            predictor_lr: predictor_lr(config, &self.schedule, lr),
            knn_top1: if measure { host.knn_top1(&self.model.backbone)? } else { None },
        };
        host.epoch(&record);
        if has_collapsed(&config.collapse, record.embedding_std_ratio) {
            self.react_to_collapse(&record, host)?;
        }
        let progress = match &mut self.position.early_stopping {
            Some(stopping) => stopping.observe(record.loss),
            None => Progress::Improved,
        };
        self.position.history.push(record);
        Ok(progress)
    }

    fn react_to_collapse(&mut self, record: &EpochRecord, host: &mut dyn TrainHost) -> Result<(), TrainError> {
        let message = collapse_message(record.epoch, record.embedding_std_ratio, record.loss);
        match self.config.collapse.action {
            CollapseAction::Stop => Err(TrainError::Collapsed(message)),
            CollapseAction::Warn => {
                // Once is enough: later epochs would say the same.
                if self.position.warnings.is_empty() {
                    let message = format!("{message}; {COLLAPSE_HELP}");
                    host.warn(&message);
                    self.position.warnings.push(message);
                }
                Ok(())
            }
        }
    }

    fn save(&mut self, host: &mut dyn TrainHost) -> Result<(), TrainError> {
        self.engine.store(&mut self.model, &mut self.sgd)?;
        let mut tensors = self.model.state_dict();
        for entry in &mut tensors {
            entry.name.insert_str(0, "model.");
        }
        for (name, sgd) in velocities(&mut self.sgd) {
            tensors.push(StateEntry::f32(name, vec![sgd.velocity.len()], sgd.velocity.clone()));
        }
        tensors.extend(self.engine.own_state());
        let bytes = Checkpoint::new(self.position.clone(), tensors).to_bytes()?;
        host.save_checkpoint(self.position.steps, bytes)
    }

    /// Takes networks, velocities and position; gives back all tensors.
    fn load(&mut self, checkpoint: Checkpoint) -> Result<Vec<StateEntry>, TrainError> {
        let networks: Vec<StateEntry> = checkpoint
            .tensors
            .iter()
            .filter_map(|entry| Some(StateEntry { name: entry.name.strip_prefix("model.")?.into(), ..entry.clone() }))
            .collect();
        let state = StateMap::new(&checkpoint.tensors);
        self.model.load_state_dict(&networks)?;
        for (name, sgd) in velocities(&mut self.sgd) {
            let velocity = state.f32(name, &[sgd.velocity.len()]).map_err(SimSiamError::from)?;
            sgd.velocity.copy_from_slice(velocity);
        }
        self.position = checkpoint.position;
        Ok(checkpoint.tensors)
    }
}

/// Whether all weights and running statistics are numbers.
fn is_finite(model: &SimSiam) -> bool {
    model.state_dict().iter().all(|entry| match &entry.data {
        StateData::F32(values) => values.iter().all(|value| value.is_finite()),
        StateData::I64(_) => true,
    })
}

/// The optimisers and the names of their velocities.
fn velocities(sgd: &mut SimSiamSgd) -> [(&'static str, &mut Sgd); 3] {
    [
        ("velocity.backbone", &mut sgd.backbone),
        ("velocity.projector", &mut sgd.projector),
        ("velocity.predictor", &mut sgd.predictor),
    ]
}

fn predictor_lr(config: &PretrainConfig, schedule: &Schedule, lr: f64) -> f64 {
    match config.predictor_lr {
        PredictorLr::Fixed => schedule.full_lr(),
        PredictorLr::Scheduled => lr,
    }
}
