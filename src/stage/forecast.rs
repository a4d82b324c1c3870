//! What a stage that has never run will cost, by the shapes of its work.
//!
//! Multiply-adds are counted and divided by what this machine manages in a matrix product, times how the work at hand
//! compares with that on the machines where it was measured (`docs/benchmarks.md`, "What plan says beforehand"). Memory
//! and disk are sums over the buffers and files that a stage is known to have. A forecast is good enough to tell a minute
//! from an hour, and a laptop that suffices from one that does not.

use std::time::Instant;

use crate::{
    data::IngestSample,
    eval::{
        ExtractConfig, FitConfig,
        embed::batch_size as inference_batch,
        eval_config::{Baseline, LinearProbeConfig},
    },
    kernels::{matrix::Matrix, product::multiply},
    model::{
        backbone::{Backbone, BackboneConfig},
        predictor::PredictorConfig,
        projector::ProjectorConfig,
        simsiam::SimSiamError,
    },
    train::{PretrainConfig, train_config::ClassifierTrainConfig},
};

/// What the program itself holds: code, threads, tables.
const PROGRAM_BYTES: u64 = 24 << 20;
/// Bytes of a value.
const VALUE: u64 = size_of::<f32>() as u64;
/// Bytes of an image's picture in an embeddings artifact, about.
const THUMBNAIL_BYTES: u64 = 1200;
/// Bytes of what a dataset's table says of an image.
const TABLE_BYTES: u64 = 112;

/// What a stage will cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// How long it will take.
    pub seconds: f64,
    /// Most memory that the whole process will hold.
    pub peak_memory_bytes: u64,
    /// Bytes of the artifact.
    pub disk_bytes: u64,
}

/// How fast this machine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Multiply-adds a second of a matrix product on all threads.
    pub multiply_adds_per_second: f64,
    /// Threads.
    pub threads: usize,
}

/// Images of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetShape {
    /// How many.
    pub num_images: u64,
    /// Classes.
    pub num_classes: u64,
    /// Bytes of their pixels.
    pub num_bytes: u64,
}

/// What an encoder looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderShape {
    /// The network.
    pub backbone: BackboneConfig,
    /// Width and height of an image.
    pub image_size: u32,
}

impl Machine {
    /// Takes a few milliseconds.
    pub fn measure() -> Self {
        const EDGE: usize = 512;
        let a: Vec<f32> = (0..EDGE * EDGE).map(|idx| (idx * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let mut c = vec![0.0; EDGE * EDGE];
        let matrix = Matrix::row_major(&a, EDGE);
        let mut fastest = f64::INFINITY;
        // The first finds cold caches, and does not hurt.
        for _ in 0..4 {
            let started = Instant::now();
            multiply([EDGE; 3], matrix, matrix, &mut c, false);
            fastest = fastest.min(started.elapsed().as_secs_f64());
        }
        Self {
            multiply_adds_per_second: (EDGE as f64).powi(3) / fastest.max(1e-9),
            threads: rayon::current_num_threads(),
        }
    }

    fn seconds(&self, multiply_adds: f64, efficiency: f64) -> f64 {
        multiply_adds / (self.multiply_adds_per_second * efficiency)
    }
}

impl DatasetShape {
    /// Of what a sample promises.
    pub fn of(sample: &IngestSample) -> Self {
        Self {
            num_images: sample.num_images,
            num_classes: u64::from(sample.num_classes),
            num_bytes: (sample.num_images as f64 * sample.bytes_per_image) as u64,
        }
    }
}

/// Multiply-adds a second in training and at inference, relative to a matrix product: more than one where most
/// convolutions are 3×3, which minimal filtering computes with fewer multiplications than are counted.
fn efficiency(backbone: BackboneConfig) -> (f64, f64) {
    match backbone {
        BackboneConfig::Resnet50(_) => (0.95, 1.3),
        BackboneConfig::Resnet18(_) | BackboneConfig::Resnet34(_) | BackboneConfig::DarknetTiny(_) => (1.5, 2.2),
    }
}

/// Of an `ingest` stage.
pub fn ingest(sample: &IngestSample, machine: &Machine) -> Forecast {
    /// Seconds in which a byte is written and its digest made.
    const SECONDS_PER_BYTE: f64 = 1.0 / 1.0e9;
    let images = sample.num_images as f64;
    let num_bytes = images * sample.bytes_per_image;
    Forecast {
        seconds: images * sample.seconds_per_image / machine.threads as f64 + num_bytes * SECONDS_PER_BYTE,
        peak_memory_bytes: PROGRAM_BYTES
            + (256.0 * sample.bytes_per_image).min(2.0 * num_bytes) as u64
            + sample.num_images * 2 * TABLE_BYTES,
        disk_bytes: num_bytes as u64 + sample.num_images * TABLE_BYTES,
    }
}

/// Of a `pretrain` stage on `views` views of each image.
///
/// # Errors
/// Where the network cannot take such images.
pub fn pretrain(
    config: &PretrainConfig,
    views: u32,
    image_size: u32,
    dataset: DatasetShape,
    machine: &Machine,
) -> Result<Forecast, SimSiamError> {
    let backbone = Backbone::zeroed(&config.backbone);
    let heads = Heads::of(&config.projector, config.predictor, backbone.feature_dim() as u64);
    let (views, image_size) = (views as usize, image_size as usize);
    let batch = u64::from(config.batch_size).clamp(1, dataset.num_images.max(1));
    let multiply_adds = backbone.multiply_adds(image_size)?;
    let (training, inference) = efficiency(config.backbone);
    let steps = u64::from(config.epochs) * (dataset.num_images / batch);
    // Backward costs twice what forward does.
    let trained = 3.0 * (steps * batch) as f64 * views as f64 * (multiply_adds + heads.multiply_adds) as f64;
    let evaluations = u64::from(config.epochs.checked_div(config.knn_monitor.every_epochs).unwrap_or(0));
    let watched = (evaluations * dataset.num_images) as f64 * multiply_adds as f64;
    let part = (batch / u64::from(config.accumulate.max(1))).max(1) as usize;
    let values = backbone.num_parameters() as u64 + heads.parameters;
    // Batches on their way: one in use, two ahead.
    let batches = 3 * batch * (views * image_size * image_size * 3) as u64 * VALUE;
    // Values and velocities, once more as tensors and once as the bytes of the file.
    let checkpoint = 4 * values * VALUE;
    Ok(Forecast {
        seconds: machine.seconds(trained, training) + machine.seconds(watched, inference),
        peak_memory_bytes: PROGRAM_BYTES
            + training_bytes(&backbone, &heads, views, part, image_size)?
            + batches
            + checkpoint
            + dataset.num_bytes,
        // The backbone alone, and everything.
        disk_bytes: (values + backbone.num_parameters() as u64) * VALUE,
    })
}

/// Projector and predictor, without drawing their weights.
#[derive(Debug, Default)]
struct Heads {
    parameters: u64,
    /// Values that all layers give for a row.
    values_per_row: u64,
    /// Of a row, forward.
    multiply_adds: u64,
}

impl Heads {
    fn of(projector: &ProjectorConfig, predictor: PredictorConfig, feature_dim: u64) -> Self {
        let (hidden, output) = (u64::from(projector.hidden_dim), u64::from(projector.output_dim));
        let mut heads = Self::default();
        let mut inputs = feature_dim;
        for _ in 1..projector.num_layers {
            heads.linear(inputs, hidden, false);
            heads.norm(hidden, true);
            inputs = hidden;
        }
        heads.linear(inputs, output, !projector.output_bn);
        if projector.output_bn {
            heads.norm(output, false);
        }
        let hidden = u64::from(predictor.hidden_dim);
        heads.linear(output, hidden, false);
        heads.norm(hidden, true);
        heads.linear(hidden, output, true);
        heads
    }

    fn linear(&mut self, inputs: u64, outputs: u64, with_bias: bool) {
        self.parameters += inputs * outputs + if with_bias { outputs } else { 0 };
        self.values_per_row += outputs;
        self.multiply_adds += inputs * outputs;
    }

    fn norm(&mut self, dim: u64, is_affine: bool) {
        self.parameters += if is_affine { 2 * dim } else { 0 };
        self.values_per_row += dim;
    }
}

/// As [`SimSiam::training_bytes`](crate::model::simsiam::SimSiam::training_bytes).
fn training_bytes(
    backbone: &Backbone,
    heads: &Heads,
    views: usize,
    n: usize,
    image_size: usize,
) -> Result<u64, SimSiamError> {
    let activations = heads.values_per_row * (views * n * 4) as u64;
    let own = 3 * heads.parameters + activations + backbone.num_parameters() as u64;
    Ok(own * VALUE + backbone.training_bytes(views * n, image_size)?)
}

/// Of an `extract` stage.
///
/// # Errors
/// Where the network cannot take such images.
pub fn extract(
    config: &ExtractConfig,
    encoder: EncoderShape,
    train: DatasetShape,
    test: DatasetShape,
    machine: &Machine,
) -> Result<Forecast, SimSiamError> {
    let backbone = Backbone::zeroed(&encoder.backbone);
    let image_size = encoder.image_size as usize;
    let images = train.num_images + test.num_images;
    let passes = 1 + u64::from(config.baselines.contains(&Baseline::Untrained));
    let multiply_adds = (passes * images) as f64 * backbone.multiply_adds(image_size)? as f64;
    let values: u64 = dims(config, backbone.feature_dim()).iter().sum::<u64>() * images;
    let batch = inference_batch(image_size);
    let views = (batch * image_size * image_size * 3) as u64 * VALUE;
    // The tensors of a file beside the network that is made of them.
    let loading = 2 * backbone.num_parameters() as u64 * VALUE;
    Ok(Forecast {
        seconds: machine.seconds(multiply_adds, efficiency(encoder.backbone).1),
        peak_memory_bytes: PROGRAM_BYTES
            + passes * backbone.inference_bytes(batch, image_size)?
            + loading
            + views
            + 2 * values * VALUE
            + train.num_bytes
            + test.num_bytes,
        disk_bytes: values * VALUE + images * THUMBNAIL_BYTES + backbone.num_parameters() as u64 * VALUE,
    })
}

/// Dimensions of the representations that are extracted.
fn dims(config: &ExtractConfig, feature_dim: usize) -> Vec<u64> {
    let side = u64::from(config.raw_pixels_size);
    let baselines = config.baselines.iter().map(|baseline| match baseline {
        Baseline::Untrained => feature_dim as u64,
        Baseline::RawPixels => 3 * side * side,
    });
    std::iter::once(feature_dim as u64).chain(baselines).collect()
}

/// Of a `fit` stage. `frozen` says what the embeddings hold, where it is embeddings that the stage learns from.
///
/// # Errors
/// Where the network cannot take such images.
pub fn fit(
    config: &FitConfig,
    frozen: Option<&ExtractConfig>,
    encoder: EncoderShape,
    train: DatasetShape,
    test: DatasetShape,
    machine: &Machine,
) -> Result<Forecast, SimSiamError> {
    let backbone = Backbone::zeroed(&encoder.backbone);
    let dims =
        frozen.map_or_else(|| vec![backbone.feature_dim() as u64], |frozen| dims(frozen, backbone.feature_dim()));
    let values = dims.iter().sum::<u64>() * (train.num_images + test.num_images);
    let rows = train.num_images as f64;
    let image_size = encoder.image_size as usize;
    let forward = backbone.multiply_adds(image_size)? as f64;
    let (training, inference) = efficiency(encoder.backbone);
    let on_embeddings = PROGRAM_BYTES + 3 * values * VALUE;
    let (seconds, peak_memory_bytes) = match config {
        FitConfig::Knn(_) => {
            // Products at full speed, and as much again for the nearest of each row.
            let products: u64 = dims.iter().map(|dim| dim * train.num_images * test.num_images).sum();
            (2.0 * machine.seconds(products as f64, 1.0), on_embeddings)
        }
        FitConfig::LinearProbe(LinearProbeConfig { sgd: Some(sgd), .. }) => {
            let seen = f64::from(sgd.epochs) * rows + test.num_images as f64;
            (machine.seconds(seen * forward, inference), network_bytes(&backbone, image_size, train, test)?)
        }
        FitConfig::LinearProbe(probe) => {
            let rows = rows * probe.label_fraction;
            let evaluations = f64::from(probe.max_iter.min(LBFGS_ITERATIONS));
            let solutions = probe.cross_validation.as_ref().map_or(1, |cv| cv.folds as usize * cv.l2.len() + 1);
            // A product forward and one for the gradient; thin ones, far from full speed.
            let products = 2.0 * rows * train.num_classes as f64 * dims.iter().sum::<u64>() as f64;
            (machine.seconds(products * evaluations * solutions as f64, 0.1), on_embeddings)
        }
        FitConfig::FineTune(tuned) => {
            let seconds = machine.seconds(3.0 * seen(&tuned.train, train) * forward, training);
            (seconds, learning_bytes(&tuned.train, &backbone, image_size, train, test)?)
        }
        FitConfig::Supervised(supervised) => {
            let seconds = machine.seconds(3.0 * seen(&supervised.train, train) * forward, training);
            (seconds, learning_bytes(&supervised.train, &backbone, image_size, train, test)?)
        }
    };
    Ok(Forecast {
        seconds: seconds + machine.seconds(test.num_images as f64 * forward, inference),
        peak_memory_bytes,
        disk_bytes: backbone.num_parameters() as u64 * VALUE + test.num_images * 64,
    })
}

/// Iterations after which a linear probe has mostly come to rest.
const LBFGS_ITERATIONS: u32 = 150;

/// Images that a classifier is shown.
fn seen(config: &ClassifierTrainConfig, train: DatasetShape) -> f64 {
    f64::from(config.epochs) * train.num_images as f64 * config.label_fraction * (1.0 - config.validation_fraction)
}

/// Memory of a network that only looks.
fn network_bytes(
    backbone: &Backbone,
    image_size: usize,
    train: DatasetShape,
    test: DatasetShape,
) -> Result<u64, SimSiamError> {
    let batch = inference_batch(image_size);
    Ok(PROGRAM_BYTES + backbone.inference_bytes(batch, image_size)? + train.num_bytes + test.num_bytes)
}

/// Memory of a network that learns from labels.
fn learning_bytes(
    config: &ClassifierTrainConfig,
    backbone: &Backbone,
    image_size: usize,
    train: DatasetShape,
    test: DatasetShape,
) -> Result<u64, SimSiamError> {
    let batch = u64::from(config.batch_size).clamp(1, train.num_images.max(1)) as usize;
    // The optimiser keeps up to two values for each that it moves.
    let optimizer = 2 * backbone.num_parameters() as u64 * VALUE;
    Ok(PROGRAM_BYTES + backbone.training_bytes(batch, image_size)? + optimizer + train.num_bytes + test.num_bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::simsiam::SimSiam;

    const MACHINE: Machine = Machine { multiply_adds_per_second: 1e11, threads: 2 };
    const TRAIN: DatasetShape = DatasetShape { num_images: 1_000, num_classes: 6, num_bytes: 12_288_000 };
    const TEST: DatasetShape = DatasetShape { num_images: 200, num_classes: 6, num_bytes: 2_457_600 };

    fn resnet18() -> BackboneConfig {
        serde_json::from_value(json!({ "resnet18": {} })).unwrap()
    }

    fn pretrained(options: &Value) -> Forecast {
        let mut config = json!({ "backbone": { "resnet18": {} }, "epochs": 2, "batch_size": 50 });
        config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        pretrain(&serde_json::from_value(config).unwrap(), 2, 64, TRAIN, &MACHINE).unwrap()
    }

    fn fitted(config: Value, frozen: bool) -> Forecast {
        let encoder = EncoderShape { backbone: resnet18(), image_size: 64 };
        let extract = ExtractConfig::default();
        let config = serde_json::from_value(config).unwrap();
        fit(&config, frozen.then_some(&extract), encoder, TRAIN, TEST, &MACHINE).unwrap()
    }

    #[test]
    fn training_is_three_passes_over_every_view() {
        let base = pretrained(&json!({ "knn_monitor": { "every_epochs": 0 } }));
        let backbone = Backbone::zeroed(&resnet18());
        let convolutions = backbone.multiply_adds(64).unwrap() as f64;
        // Projector and predictor of the paper.
        let heads = f64::from(512 * 2048 + 2 * 2048 * 2048 + 2 * 2048 * 512);
        let expected = 2.0 * 1_000.0 * 2.0 * 3.0 * (convolutions + heads) / (1e11 * 1.5);
        assert!((base.seconds - expected).abs() < 1e-9 * expected, "{base:?} {expected}");
        let twice = pretrained(&json!({ "epochs": 4, "knn_monitor": { "every_epochs": 0 } }));
        assert!((twice.seconds / base.seconds - 2.0).abs() < 1e-9 && twice.disk_bytes == base.disk_bytes);
        assert!(pretrained(&json!({ "knn_monitor": { "every_epochs": 1 } })).seconds > base.seconds);
        let parts = pretrained(&json!({ "accumulate": 5 }));
        assert!(parts.peak_memory_bytes < base.peak_memory_bytes, "smaller parts hold less");
        // Weights of ResNet-18, and once more with the heads.
        assert!((135_000_000..136_000_000).contains(&base.disk_bytes), "{base:?}");
    }

    #[test]
    fn heads_are_counted_as_they_are_built() {
        for (num_layers, output_bn) in [(1, true), (2, false), (3, true)] {
            let projector = ProjectorConfig { hidden_dim: 24, output_dim: 16, num_layers, output_bn };
            let predictor = PredictorConfig { hidden_dim: 4 };
            let model = SimSiam::build(&resnet18(), &projector, &predictor, 0).unwrap();
            let backbone = Backbone::zeroed(&resnet18());
            let heads = Heads::of(&projector, predictor, 512);
            let built = [&model.projector, &model.predictor].map(|head| head.parameters.values().len() as u64);
            assert_eq!(heads.parameters, built.iter().sum::<u64>());
            assert_eq!(heads.multiply_adds, model.multiply_adds(32).unwrap().1);
            let bytes = training_bytes(&backbone, &heads, 2, 8, 32).unwrap();
            assert_eq!(bytes, model.training_bytes(2, 8, 32).unwrap());
        }
    }

    #[test]
    fn a_batch_that_is_larger_than_the_dataset_is_the_dataset() {
        let whole = pretrained(&json!({ "batch_size": 1_000 }));
        assert_eq!(pretrained(&json!({ "batch_size": 4_096 })), whole);
    }

    #[test]
    fn images_that_are_too_small_have_no_forecast() {
        let config = serde_json::from_value(json!({ "backbone": { "resnet18": {} } })).unwrap();
        assert!(pretrain(&config, 2, 0, TRAIN, &MACHINE).is_err());
    }

    #[test]
    fn baselines_are_extracted_and_judged_too() {
        let encoder = EncoderShape { backbone: resnet18(), image_size: 64 };
        let of = |baselines: Vec<Baseline>| {
            let config = ExtractConfig { baselines, ..ExtractConfig::default() };
            extract(&config, encoder, TRAIN, TEST, &MACHINE).unwrap()
        };
        let (alone, both) = (of(vec![]), of(vec![Baseline::Untrained]));
        assert!((both.seconds / alone.seconds - 2.0).abs() < 1e-9);
        assert_eq!(both.disk_bytes - alone.disk_bytes, 1_200 * 512 * 4);
        assert_eq!(of(vec![Baseline::RawPixels]).disk_bytes - alone.disk_bytes, 1_200 * 192 * 4);
    }

    #[test]
    fn every_protocol_has_a_forecast() {
        let train = json!({ "epochs": 3, "batch_size": 50 });
        let knn = fitted(json!({ "knn": {} }), true);
        let probe = |options: Value| fitted(json!({ "linear_probe": options }), true);
        let once = probe(json!({ "l2": 0.01 }));
        let chosen = probe(json!({ "cross_validation": { "folds": 5, "l2": [0.1, 0.01] } }));
        assert!(knn.seconds < once.seconds && once.seconds < chosen.seconds, "{knn:?} {once:?} {chosen:?}");
        let tuned = fitted(json!({ "fine_tune": { "train": train } }), false);
        let few = json!({ "epochs": 3, "batch_size": 50, "label_fraction": 0.1 });
        let few = fitted(json!({ "fine_tune": { "train": few } }), false);
        assert!(few.seconds < tuned.seconds / 3.0 && tuned.seconds > chosen.seconds, "{few:?} {tuned:?}");
        assert!(tuned.peak_memory_bytes > 2 * knn.peak_memory_bytes);
        assert_eq!(tuned.disk_bytes, knn.disk_bytes, "each keeps its backbone");
    }

    #[test]
    fn a_folder_takes_as_long_as_its_images() {
        let sample =
            IngestSample { num_images: 1_000, num_classes: 2, seconds_per_image: 0.002, bytes_per_image: 10_000.0 };
        let forecast = ingest(&sample, &MACHINE);
        assert!((forecast.seconds - 1.01).abs() < 1e-9, "{forecast:?}");
        assert_eq!(forecast.disk_bytes, 10_112_000);
    }

    #[test]
    fn the_machine_is_measured() {
        let machine = Machine::measure();
        assert!(machine.multiply_adds_per_second > 1e6 && machine.threads > 0);
    }
}
