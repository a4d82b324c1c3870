//! `bench stage`: a stage of a pipeline with its own parameters on this machine, and how long it will take.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{PipelineArgs, Session, load, plan};
use crate::{
    augment::{AugmentConfig, Policy},
    bench::{BenchError, Measurement, extract::ExtractBench, ingest::IngestBench, train::TrainBench},
    config::{Pipeline, pipeline::Stage},
    data::{BatchLoader, Dataset},
    error::Error,
    eval::{embed::batch_size, eval_config::Baseline},
    profile::{Work, enter_layer, span},
    runner::{Plan, RunOptions, Selection, Verdict, text},
    stage::StageConfig,
    train::{PretrainConfig, pretrain::Batch, train_config::PretrainOptimizerConfig},
};

/// Arguments of `bench stage`.
#[derive(Clone, Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[command(after_help = "Examples:\n  simsiam-pipe bench stage pretrain\n  \
                        simsiam-pipe bench stage pipelines/intel.yaml pretrain --profile\n  \
                        simsiam-pipe bench stage pretrain --set stages.pretrain.with.batch_size=128\n\n\
                        `pretrain` trains on the images of its dataset where the cache has it, else on random \
                        ones; `extract` embeds random images; `ingest` reads its source. Results go nowhere.")]
pub struct BenchStageArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The stage, or one of its cells.
    #[arg(value_name = "STAGE", required = true)]
    pub stage: String,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Timed steps, after one that is not timed; of an `ingest` stage, timed passes over its source.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Say where the time of the fastest step went: by kind of work, and by layer.
    #[arg(long)]
    pub profile: bool,
}

/// How long a stage will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The stage.
    pub stage: String,
    /// Images of its dataset, where the cache has it.
    pub images: Option<u64>,
    /// How often it goes over them.
    pub passes: u32,
    /// Seconds in all, by the step in the middle; absent where the number of images is not known.
    pub seconds: Option<f64>,
    /// Whether the images were those of the stage; else making them is not counted.
    pub real_images: bool,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, images, passes, seconds, real_images } = self;
        let (Some(images), Some(seconds)) = (images, seconds) else {
            return write!(f, "`{stage}` takes as long as it has images, and its dataset is not in the cache yet");
        };
        let (images, duration) = (text::count(*images), text::duration(*seconds));
        match passes {
            1 => write!(f, "`{stage}` will take {duration} for {images} images")?,
            _ => write!(f, "`{stage}` will take {duration} for {passes} passes over {images} images")?,
        }
        if *real_images { Ok(()) } else { f.write_str(", the loading of images not counted") }
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// The figures.
    pub measurement: Measurement,
    /// What the work was.
    pub work: String,
    /// What follows for the stage.
    pub forecast: Option<Forecast>,
}

/// Measures a stage.
///
/// # Errors
/// Where the pipeline is wrong, there is no such stage or nothing to measure in it, or the work fails.
pub fn measure(args: &BenchStageArgs, session: &Session, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measured, Error> {
    let pipeline_args = PipelineArgs { pipeline: args.pipeline.clone(), set: args.set.clone() };
    let pipeline = load::load(&pipeline_args, session)?;
    let Some(stage) = pipeline.stage(&args.stage) else {
        let names: Vec<_> = pipeline.stages.iter().map(|stage| format!("`{}`", stage.name)).collect();
        return Err(Error::usage(
            format!("`{}` has no stage `{}`", pipeline.name, args.stage),
            format!("its stages are {}", names.join(", ")),
        ));
    };
    let bench = StageBench { args, session, pipeline: &pipeline, stage };
    match &stage.config {
        StageConfig::Pretrain(config) => bench.pretrain(config, on_step),
        StageConfig::Extract(config) => bench.extract(config.baselines.contains(&Baseline::Untrained), on_step),
        StageConfig::Ingest(config) => {
            let project = session.project()?;
            let measurement = IngestBench { config, root: &project.root, steps: args.steps }.run(on_step)?;
            let forecast = Forecast {
                stage: stage.name.clone(),
                images: Some(measurement.images_per_step),
                passes: 1,
                seconds: Some(measurement.median()),
                real_images: true,
            };
            Ok(Measured {
                measurement,
                work: format!("`{}`: its source to a dataset", stage.name),
                forecast: Some(forecast),
            })
        }
        StageConfig::Augment(_) | StageConfig::Fit(_) | StageConfig::Report(_) | StageConfig::Command(_) => {
            Err(Error::usage(
                format!("a stage of kind `{}` has no throughput to measure", stage.kind().name()),
                "name a stage that uses `ingest`, `pretrain` or `extract`; `simsiam-pipe plan` says how long any stage \
                 took last time",
            ))
        }
    }
}

struct StageBench<'a> {
    args: &'a BenchStageArgs,
    session: &'a Session,
    pipeline: &'a Pipeline,
    stage: &'a Stage,
}

impl StageBench<'_> {
    fn pretrain(&self, config: &PretrainConfig, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measured, Error> {
        let PretrainOptimizerConfig::Sgd(sgd) = config.optimizer;
        let &AugmentConfig { image_size, views, .. } = self.views_of(self.stage)?;
        let bench = TrainBench {
            backbone: config.backbone,
            projector: config.projector,
            predictor: config.predictor,
            sgd,
            views: views as usize,
            parts: config.accumulate,
            image_size,
            batch_size: config.batch_size,
            steps: self.args.steps,
        };
        let plan = self.plan()?;
        let dataset = self.input_dir(&plan, "dataset")?.map(|dir| Dataset::open(&dir)).transpose().map_err(data)?;
        let policy = self.input_dir(&plan, "augmentation")?.map(|dir| Policy::load(&dir)).transpose();
        let policy = policy.map_err(|error| Error::from(BenchError::from(error)))?;
        let num_images = dataset.as_ref().map(Dataset::len);
        let real_images = dataset.is_some() && policy.is_some();
        let measurement = if let (Some(dataset), Some(policy)) = (dataset, policy) {
            let batch_size = config.batch_size as usize;
            let loader =
                BatchLoader::new(Arc::new(dataset), Arc::new(policy), self.stage.seed, batch_size).map_err(data)?;
            // Epoch after epoch, for datasets of few batches.
            let mut batches = (0..).flat_map(|epoch| loader.epoch(epoch));
            let mut next = |work: &mut dyn FnMut(&Batch)| {
                enter_layer("images");
                if let Some(batch) = span(Work::Waiting, 0.0, || batches.next()) {
                    work(&Batch { x: batch.x });
                }
            };
            bench.run_on(&mut next, on_step)?
        } else {
            bench.run(on_step)?
        };
        let steps = num_images.map(|images| u64::from(config.epochs) * (images as u64 / u64::from(config.batch_size)));
        let forecast = Forecast {
            stage: self.stage.name.clone(),
            images: num_images.map(|images| images as u64),
            passes: config.epochs,
            seconds: steps.map(|steps| steps as f64 * measurement.median()),
            real_images,
        };
        let images = if real_images { "its own images" } else { "random images" };
        let work = format!(
            "`{}`: training on {images}, {image_size}×{image_size} pixels, batches of {}",
            self.stage.name, config.batch_size
        );
        Ok(Measured { measurement, work, forecast: Some(forecast) })
    }

    fn extract(&self, untrained: bool, on_step: &mut dyn FnMut(u32, f64)) -> Result<Measured, Error> {
        let encoder = self.parent("encoder").filter(|stage| matches!(stage.config, StageConfig::Pretrain(_)));
        let (Some(encoder), Some(StageConfig::Pretrain(config))) = (encoder, encoder.map(|stage| &stage.config)) else {
            return Err(Error::usage(
                format!("the encoder of `{}` is not made by a `pretrain` stage", self.stage.name),
                "measure with `simsiam-pipe bench extract --backbone …`",
            ));
        };
        let image_size = self.views_of(encoder)?.image_size;
        let batch_size = batch_size(image_size as usize) as u32;
        let measurement =
            ExtractBench { backbone: config.backbone, image_size, batch_size, steps: self.args.steps }.run(on_step)?;
        let plan = self.plan()?;
        let mut images = Some(0);
        for input in ["train", "test"] {
            if self.stage.inputs.contains_key(input) {
                let dataset = self.input_dir(&plan, input)?.map(|dir| Dataset::open(&dir)).transpose().map_err(data)?;
                images = images.zip(dataset).map(|(images, dataset)| images + dataset.len() as u64);
            }
        }
        let passes = if untrained { 2 } else { 1 };
        let seconds_per_image = measurement.median() / f64::from(batch_size);
        let forecast = Forecast {
            stage: self.stage.name.clone(),
            images,
            passes,
            seconds: images.map(|images| images as f64 * f64::from(passes) * seconds_per_image),
            real_images: false,
        };
        let work = format!(
            "`{}`: features of random images, {image_size}×{image_size} pixels, batches of {batch_size}",
            self.stage.name
        );
        Ok(Measured { measurement, work, forecast: Some(forecast) })
    }

    /// The stage that makes an input.
    fn parent(&self, input: &str) -> Option<&Stage> {
        self.pipeline.stage(self.stage.inputs.get(input)?.first()?)
    }

    /// What makes the views that a `pretrain` stage sees.
    fn views_of(&self, pretrain: &Stage) -> Result<&AugmentConfig, Error> {
        let policy = pretrain.inputs.get("augmentation").and_then(|names| self.pipeline.stage(names.first()?));
        match policy.map(|stage| &stage.config) {
            Some(StageConfig::Augment(config)) => Ok(config),
            _ => Err(Error::usage(
                format!("the views of `{}` are not made by an `augment` stage", pretrain.name),
                "measure with `simsiam-pipe bench train --image-size …`",
            )),
        }
    }

    /// What the cache has of the stages that this one needs.
    fn plan(&self) -> Result<Plan, Error> {
        let selection = Selection { stages: vec![self.stage.name.clone()], ..Selection::default() };
        plan::make(self.pipeline, &RunOptions { selection, ..RunOptions::default() }, self.session)
    }

    /// Where an input lies in the cache, if it is there.
    fn input_dir(&self, plan: &Plan, input: &str) -> Result<Option<PathBuf>, Error> {
        let (_, store) = self.session.open()?;
        let planned = self.parent(input).and_then(|parent| plan.stages.iter().find(|it| it.stage == parent.name));
        Ok(match planned.map(|planned| &planned.verdict) {
            Some(Verdict::Hit { artifact, .. }) => Some(store.layout().object(artifact)),
            _ => None,
        })
    }
}

fn data(error: crate::data::DataError) -> Error {
    Error::from(BenchError::from(error))
}
