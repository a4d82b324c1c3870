//! `pretrain`: SimSiam on a dataset; leaves the encoder with its history.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{StageContext, StageError, StageOutcome, extract::input_dir, knn_monitor::KnnMonitor};
use crate::{
    augment::Policy,
    data::{BatchLoader, Dataset, DatasetCard},
    digest::Digest,
    fs::{FsError, files},
    model::{
        backbone::{Backbone, BackboneConfig},
        state::{StateEntry, to_safetensors},
        weights::{WeightsError, outside_weights},
    },
    sys,
    train::{
        EncoderCard, EpochRecord, EpochTime, Preprocessing, PretrainConfig, TrainError,
        encoder_card::{CARD_FILE, ENCODER_FORMAT, WEIGHTS_FILE},
        history::TIMES_FILE,
        pretrain::{Batch, BatchSource, Pretrained, StepProgress, TrainHost, pretrain},
        schedule::linear_scaled_lr,
        tensorboard::{EventWriter, event_file_name},
        train_config::PretrainOptimizerConfig,
    },
};

/// Trains and leaves `encoder.safetensors`, `simsiam.safetensors`, `encoder.json`, `history.jsonl` and, under
/// `logs/`, times and TensorBoard events.
///
/// # Errors
/// See [`StageError`].
pub fn run(config: &PretrainConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let dataset = Arc::new(Dataset::open(input_dir(ctx, "dataset")?)?);
    let policy = Arc::new(Policy::load(input_dir(ctx, "augmentation")?)?);
    let view = policy.evaluation_view();
    let monitor = match ctx.input("monitor") {
        Some(input) if config.knn_monitor.every_epochs > 0 => {
            let queries = Arc::new(Dataset::open(&input.dir)?);
            KnnMonitor::new(&config.knn_monitor, &dataset, &queries, view)
                .map_err(|why| ctx.reporter.warn(&format!("no kNN accuracy while training: {why}")))
                .ok()
        }
        _ => None,
    };
    if dataset.len() < config.batch_size as usize {
        let error = TrainError::TooFewImages { found: dataset.len(), batch_size: config.batch_size };
        return Err(StageError::from(error));
    }
    warn_about_lr(config, ctx);
    let loader = BatchLoader::new(Arc::clone(&dataset), Arc::clone(&policy), ctx.seed, config.batch_size as usize)?;
    let waited = Cell::new(Duration::ZERO);
    let source = LoaderSource {
        loader,
        waited: &waited,
        num_images: dataset.len(),
        image_size: policy.image_size(),
        num_views: policy.num_views(),
    };
    let mut host = Host::new(config, ctx, monitor, &waited)?;
    let init = config.init.as_ref().map(|path| Init::read(path, config.backbone, ctx)).transpose()?;
    let weights = init.as_ref().map(|init| init.weights.as_slice());
    let pretrained = pretrain(config, ctx.seed, weights, &source, ctx.compute, &mut host)?;
    save(config, ctx, &policy, dataset.card(), &pretrained, init.map(|init| init.digest))
}

/// The paper's rate for a batch of 256; its own experiments reach four times as much.
const USUAL_BASE_LR: f64 = 0.05;
const HIGH_BASE_LR: f64 = 8.0 * USUAL_BASE_LR;

fn warn_about_lr(config: &PretrainConfig, ctx: &StageContext<'_>) {
    let PretrainOptimizerConfig::Sgd(sgd) = &config.optimizer;
    if sgd.base_lr > HIGH_BASE_LR {
        let batch_size = config.batch_size;
        ctx.reporter.warn(&format!(
            "the learning rate is high for the batch: `base_lr: {}` makes {} at a batch of {batch_size}, where the paper has \
             {}; if the loss jumps or the embeddings collapse, try `base_lr: {USUAL_BASE_LR}`",
            sgd.base_lr,
            linear_scaled_lr(sgd.base_lr, batch_size),
            linear_scaled_lr(USUAL_BASE_LR, batch_size),
        ));
    }
}

/// Weights to start from.
struct Init {
    weights: Vec<StateEntry>,
    digest: Digest,
}

impl Init {
    /// Reads the file `name`, which must fit the backbone.
    fn read(name: &str, config: BackboneConfig, ctx: &StageContext<'_>) -> Result<Self, StageError> {
        let bytes = files::read(&ctx.project_root.join(name))?;
        let checked = || -> Result<Vec<StateEntry>, WeightsError> {
            let weights = outside_weights(&bytes, Path::new(name))?;
            Backbone::from_state_dict(&config, &weights)?;
            Ok(weights)
        };
        let weights = checked().map_err(|error| StageError::Data {
            message: format!("`init: {name}` cannot be used: {error}"),
            help: Some(
                "give a safetensors file of the same backbone with the same stem: torchvision's, or an \
                 `encoder.safetensors` of this program"
                    .into(),
            ),
        })?;
        ctx.reporter.info(&format!("the backbone starts from `{name}`"));
        Ok(Self { weights, digest: Digest::of(&bytes) })
    }
}

fn save(
    config: &PretrainConfig,
    ctx: &StageContext<'_>,
    policy: &Policy,
    dataset: &DatasetCard,
    pretrained: &Pretrained,
    init: Option<Digest>,
) -> Result<StageOutcome, StageError> {
    let Pretrained { model, history, steps, stopped_early, warnings } = pretrained;
    let last = history.last().ok_or_else(|| StageError::Training {
        message: "the training ended before its first epoch".into(),
        help: Some("run it again with `--force`".into()),
    })?;
    let augmentation = policy.config();
    let card = EncoderCard {
        format: ENCODER_FORMAT,
        backbone: config.backbone,
        feature_dim: model.backbone.feature_dim() as u32,
        projector: config.projector,
        predictor: config.predictor,
        preprocessing: Preprocessing {
            resize: dataset.resize,
            background: dataset.background,
            image_size: augmentation.image_size,
            evaluation: augmentation.evaluation,
            channel_stats: augmentation.normalize.channel_stats(),
        },
        seed: ctx.seed,
        init: init.map(|digest| digest.to_string()),
        epochs: last.epoch,
        steps: *steps,
        stopped_early: *stopped_early,
        final_loss: last.loss,
        final_embedding_std_ratio: last.embedding_std_ratio,
        warnings: warnings.clone(),
    };
    save_tensors(&ctx.out_dir.join(WEIGHTS_FILE), &model.backbone.state_dict())?;
    save_tensors(&ctx.out_dir.join("simsiam.safetensors"), &model.state_dict())?;
    files::write_atomic(&ctx.out_dir.join(CARD_FILE), &json(&card)?)?;
    let mut lines = vec![];
    for record in history {
        lines.extend(json_line(record)?);
    }
    files::write_atomic(&ctx.out_dir.join("history.jsonl"), &lines)?;

    let mut metrics = BTreeMap::from([
        ("train/loss".to_owned(), last.loss),
        ("train/embedding_std_ratio".to_owned(), last.embedding_std_ratio),
        ("train/epochs".to_owned(), f64::from(last.epoch)),
    ]);
    if let Some(top1) = history.iter().rev().find_map(|record| record.knn_top1) {
        metrics.insert("knn/top1".to_owned(), top1);
    }
    Ok(StageOutcome { metrics })
}

pub(super) fn save_tensors(path: &Path, entries: &[StateEntry]) -> Result<(), StageError> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = to_safetensors(entries, metadata)
        .map_err(|error| StageError::Artifact { path: path.to_owned(), message: error.to_string() })?;
    Ok(files::write_atomic(path, &bytes)?)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| not_finite(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn json_line<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| not_finite(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn not_finite(error: &serde_json::Error) -> StageError {
    StageError::Training {
        message: format!("the result cannot be written down: {error}"),
        help: Some("lower `optimizer.sgd.base_lr`".into()),
    }
}

struct LoaderSource<'a> {
    loader: BatchLoader,
    /// How long the training has waited for views in this epoch.
    waited: &'a Cell<Duration>,
    num_images: usize,
    image_size: usize,
    num_views: usize,
}

impl BatchSource for LoaderSource<'_> {
    fn num_images(&self) -> usize {
        self.num_images
    }

    fn image_size(&self) -> usize {
        self.image_size
    }

    fn num_views(&self) -> usize {
        self.num_views
    }

    fn epoch(&self, epoch: u32, first_batch: u64) -> Box<dyn Iterator<Item = Batch> + '_> {
        let mut batches = self.loader.epoch_from(epoch, first_batch as usize);
        Box::new(std::iter::from_fn(move || {
            let began = Instant::now();
            let batch = batches.next();
            self.waited.set(self.waited.get() + began.elapsed());
            Some(Batch { x: batch?.x })
        }))
    }
}

/// Passes a training's words on and keeps its checkpoints in the stage's work folder.
struct Host<'a> {
    ctx: &'a StageContext<'a>,
    monitor: Option<KnnMonitor>,
    keep: usize,
    batch_size: u64,
    events: EventWriter<std::fs::File>,
    times: Vec<u8>,
    epoch_began: Instant,
    epoch_steps: u64,
    waited: &'a Cell<Duration>,
    last: Option<StepProgress>,
}

/// Width and height in pixels, and the PNG file.
type ContactSheet = ([u32; 2], Vec<u8>);

/// The contact sheet of the policy and its size, if there is one. It decides nothing: it is for those who look at logs.
fn contact_sheet(ctx: &StageContext<'_>) -> Result<Option<ContactSheet>, StageError> {
    const MAX_BYTES: usize = 8 << 20;
    let path = input_dir(ctx, "augmentation")?.join("preview.png");
    let Some(png) = files::read_if_exists(&path)?.filter(|png| png.len() <= MAX_BYTES) else { return Ok(None) };
    let reader = image::ImageReader::with_format(std::io::Cursor::new(&png), image::ImageFormat::Png);
    let size = reader.into_dimensions().ok();
    Ok(size.map(|(width, height)| ([width, height], png)))
}

impl<'a> Host<'a> {
    fn new(
        config: &PretrainConfig,
        ctx: &'a StageContext<'a>,
        monitor: Option<KnnMonitor>,
        waited: &'a Cell<Duration>,
    ) -> Result<Self, StageError> {
        let logs = ctx.out_dir.join("logs");
        files::create_dir_all(&logs)?;
        files::create_dir_all(ctx.work_dir)?;
        let now = wall_time();
        let path = logs.join(event_file_name(now as u64, 0));
        let io = |source| StageError::Io { action: "write", path: path.clone(), source };
        let mut events = EventWriter::new(files::create(&path)?, now).map_err(io)?;
        if let Some((size, png)) = contact_sheet(ctx)? {
            events.image_png("views/preview", 0, size, &png, now).map_err(io)?;
        }
        Ok(Self {
            ctx,
            monitor,
            keep: config.checkpoint.keep as usize,
            batch_size: u64::from(config.batch_size),
            events,
            times: vec![],
            epoch_began: Instant::now(),
            epoch_steps: 0,
            waited,
            last: None,
        })
    }

    /// Checkpoints in the work folder, newest last.
    fn checkpoint_names(&self) -> Vec<String> {
        let mut names = files::list(self.ctx.work_dir).unwrap_or_default();
        names.retain(|name| name.starts_with("step-") && Path::new(name).extension().is_some_and(|ext| ext == "ckpt"));
        names.sort();
        names
    }

    fn write_logs(&mut self, record: &EpochRecord) -> Result<(), StageError> {
        let seconds = self.epoch_began.elapsed().as_secs_f64();
        let images_per_second = (self.epoch_steps * self.batch_size) as f64 / seconds.max(1e-9);
        let waited_for_data = self.waited.take().as_secs_f64();
        let time = EpochTime { epoch: record.epoch, seconds, images_per_second, waited_for_data };
        self.times.extend(json_line(&time)?);
        let wait_share = waited_for_data / seconds.max(1e-9);
        files::write_atomic(&self.ctx.out_dir.join(TIMES_FILE), &self.times)?;
        let mut figures = vec![
            ("train/loss", record.loss),
            ("train/embedding_std_ratio", record.embedding_std_ratio),
            ("train/lr", record.lr),
            ("train/predictor_lr", record.predictor_lr),
            ("train/images_per_second", images_per_second),
            ("train/wait_share", wait_share),
        ];
        figures.extend(record.knn_top1.map(|top1| ("knn/top1", top1)));
        self.events
            .scalars(&figures, record.step, wall_time())
            .and_then(|()| self.events.flush())
            .map_err(|source| StageError::Io { action: "write", path: self.ctx.out_dir.join("logs"), source })
    }
}

#[allow(clippy::disallowed_methods, reason = "TensorBoard's events carry the time, and they are not content")]
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl TrainHost for Host<'_> {
    fn step(&mut self, progress: &StepProgress) {
        self.epoch_steps += 1;
        self.last = Some(*progress);
        let StepProgress { epoch, steps, total_steps, loss, embedding_std_ratio, .. } = progress;
        let message = format!("epoch {epoch}, loss {loss:.3}, std·√d {embedding_std_ratio:.2}");
        self.ctx.reporter.progress(*steps, *total_steps, "steps", &message);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let EpochRecord { epoch, loss, embedding_std_ratio, lr, .. } = record;
        let knn = record.knn_top1.map_or_else(String::new, |top1| format!(", kNN {:.1} %", 100.0 * top1));
        self.ctx
            .reporter
            .info(&format!("epoch {epoch}: loss {loss:.4}, std·√d {embedding_std_ratio:.3}, lr {lr:.4}{knn}"));
        self.ctx.reporter.metric("train/loss", record.step, *loss);
        self.ctx.reporter.metric("train/embedding_std_ratio", record.step, *embedding_std_ratio);
        if let Some(top1) = record.knn_top1 {
            self.ctx.reporter.metric("knn/top1", record.step, top1);
        }
        // Logs are worth a warning, not a training.
        if let Err(error) = self.write_logs(record) {
            self.ctx.reporter.warn(&error.to_string());
        }
        self.epoch_steps = 0;
        self.epoch_began = Instant::now();
    }

    fn warn(&mut self, message: &str) {
        self.ctx.reporter.warn(message);
    }

    fn info(&mut self, message: &str) {
        self.ctx.reporter.info(message);
    }

    fn is_cancelled(&self) -> bool {
        self.ctx.reporter.is_cancelled()
    }

    fn available_memory(&self) -> Option<u64> {
        sys::available_memory_bytes()
    }

    fn knn_top1(&mut self, backbone: &Backbone) -> Result<Option<f64>, TrainError> {
        let top1 = self
            .monitor
            .as_ref()
            .map(|monitor| monitor.top1(backbone, self.ctx.compute, self.ctx.reporter))
            .transpose();
        match top1 {
            Err(StageError::Cancelled) => Err(TrainError::Cancelled),
            other => other.map_err(|error| TrainError::Host(Box::new(error))),
        }
    }

    fn save_checkpoint(&mut self, steps: u64, bytes: Vec<u8>) -> Result<(), TrainError> {
        let path = self.ctx.work_dir.join(format!("step-{steps:012}.ckpt"));
        files::write_atomic(&path, &bytes).map_err(|error| TrainError::Host(Box::new(error)))?;
        let names = self.checkpoint_names();
        for name in &names[..names.len().saturating_sub(self.keep)] {
            // One too many does no harm.
            let _ = files::remove_file(&self.ctx.work_dir.join(name));
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = vec![];
        for name in self.checkpoint_names().into_iter().rev() {
            let path = self.ctx.work_dir.join(name);
            match files::read(&path) {
                Ok(bytes) => found.push((path, bytes)),
                Err(error) => self.ctx.reporter.warn(&error.to_string()),
            }
        }
        found
    }
}

impl From<TrainError> for StageError {
    fn from(error: TrainError) -> Self {
        let (message, help) = (error.to_string(), error.help());
        match error {
            TrainError::Cancelled => Self::Cancelled,
            TrainError::TooFewImages { .. } | TrainError::TooLittleMemory { .. } | TrainError::Model(_) => {
                Self::Config { message, help }
            }
            TrainError::Host(error) => match error.downcast::<StageError>() {
                Ok(error) => *error,
                Err(error) => match error.downcast::<FsError>() {
                    Ok(error) => Self::from(*error),
                    Err(error) => Self::Training { message: error.to_string(), help },
                },
            },
            TrainError::NotFinite { .. }
            | TrainError::Collapsed(_)
            | TrainError::Checkpoint(_)
            | TrainError::OutOfMemory(_)
            | TrainError::Device(_) => Self::Training { message, help },
        }
    }
}
