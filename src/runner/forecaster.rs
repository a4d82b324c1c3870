//! What stages that have never run will cost: finds the shapes of their work in the pipeline, its sources and the cache.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use super::planner::Known;
use crate::{
    cache::Store,
    config::{Pipeline, Stage},
    data::{DatasetCard, IngestSample},
    eval::{ExtractConfig, FitConfig},
    stage::{
        StageConfig,
        forecast::{self, DatasetShape, EncoderShape, Forecast, Machine},
    },
};

/// Remembers what was found out.
#[derive(Debug, Default)]
pub struct Forecaster {
    machine: OnceLock<Machine>,
    samples: Mutex<BTreeMap<String, Option<IngestSample>>>,
    forecasts: Mutex<BTreeMap<String, Option<Forecast>>>,
}

/// Where shapes are looked for.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) store: &'a Store,
    pub(super) project_root: &'a Path,
    /// Artifacts that are there.
    pub(super) known: &'a Known,
}

impl Forecaster {
    /// What a stage will cost; `None` where nothing tells: kinds whose work has no shape, sources that only reading
    /// everything would count, and whatever is wrong and will be told when the stage runs.
    pub(super) fn of(&self, stage: &Stage, around: &Surroundings<'_>) -> Option<Forecast> {
        let known = |forecasts: &BTreeMap<_, _>| forecasts.get(&stage.name).copied();
        if let Some(forecast) = known(&self.forecasts.lock().unwrap_or_else(PoisonError::into_inner)) {
            return forecast;
        }
        let forecast = self.find(stage, around);
        self.forecasts.lock().unwrap_or_else(PoisonError::into_inner).insert(stage.name.clone(), forecast);
        forecast
    }

    fn find(&self, stage: &Stage, around: &Surroundings<'_>) -> Option<Forecast> {
        let machine = || self.machine.get_or_init(Machine::measure);
        let dataset = |input: &str| self.dataset(parent(around.pipeline, stage, input)?, around);
        // A test split that is not given holds nothing.
        let test = || {
            if stage.inputs.contains_key("test") { dataset("test") } else { Some(DatasetShape::default()) }
        };
        match &stage.config {
            StageConfig::Ingest(_) => Some(forecast::ingest(&self.sample(stage, around)?, machine())),
            StageConfig::Pretrain(config) => {
                let (views, image_size) = views(around.pipeline, stage)?;
                forecast::pretrain(config, views, image_size, dataset("dataset")?, machine()).ok()
            }
            StageConfig::Extract(config) => {
                let encoder = encoder(around.pipeline, stage)?;
                forecast::extract(config, encoder, dataset("train")?, test()?, machine()).ok()
            }
            StageConfig::Fit(config) => {
                let frozen = frozen(around.pipeline, stage);
                // On embeddings, the images are those that were extracted.
                let source = frozen.map_or(stage, |(source, _)| source);
                let dataset = |input: &str| self.dataset(parent(around.pipeline, source, input)?, around);
                let encoder = match config {
                    FitConfig::Supervised(config) => {
                        EncoderShape { backbone: config.backbone, image_size: views(around.pipeline, stage)?.1 }
                    }
                    _ => encoder(around.pipeline, source)?,
                };
                let frozen = frozen.map(|(_, config)| config);
                forecast::fit(config, frozen, encoder, dataset("train")?, dataset("test")?, machine()).ok()
            }
            StageConfig::Augment(_) | StageConfig::Report(_) | StageConfig::Command(_) => None,
        }
    }

    /// The images that a stage gives: those of its artifact, or what a sample of its source promises.
    fn dataset(&self, stage: &Stage, around: &Surroundings<'_>) -> Option<DatasetShape> {
        if let Some(artifact) = around.known.get(&stage.name) {
            let card = DatasetCard::load(&around.store.layout().object(artifact)).ok()?;
            return Some(DatasetShape {
                num_images: card.num_images,
                num_classes: card.class_names.len() as u64,
                num_bytes: around.store.manifest(artifact).ok()?.size(),
            });
        }
        self.sample(stage, around).map(|sample| DatasetShape::of(&sample))
    }

    fn sample(&self, stage: &Stage, around: &Surroundings<'_>) -> Option<IngestSample> {
        let StageConfig::Ingest(config) = &stage.config else { return None };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = samples.entry(stage.name.clone());
        *sample.or_insert_with(|| IngestSample::take(config, around.project_root).ok().flatten())
    }
}

fn parent<'a>(pipeline: &'a Pipeline, stage: &Stage, input: &str) -> Option<&'a Stage> {
    pipeline.stage(stage.inputs.get(input)?.first()?)
}

/// Number and size of the views that a stage is given.
fn views(pipeline: &Pipeline, stage: &Stage) -> Option<(u32, u32)> {
    match &parent(pipeline, stage, "augmentation")?.config {
        StageConfig::Augment(config) => Some((config.views, config.image_size)),
        _ => None,
    }
}

/// The encoder that a stage is given.
fn encoder(pipeline: &Pipeline, stage: &Stage) -> Option<EncoderShape> {
    let pretrain = parent(pipeline, stage, "encoder")?;
    let StageConfig::Pretrain(config) = &pretrain.config else { return None };
    // Its own policy decides, where a stage has one.
    let (_, image_size) = views(pipeline, stage).or_else(|| views(pipeline, pretrain))?;
    Some(EncoderShape { backbone: config.backbone, image_size })
}

/// The stage whose embeddings a stage is given, with its parameters.
fn frozen<'a>(pipeline: &'a Pipeline, stage: &Stage) -> Option<(&'a Stage, &'a ExtractConfig)> {
    let extract = parent(pipeline, stage, "embeddings")?;
    match &extract.config {
        StageConfig::Extract(config) => Some((extract, config)),
        _ => None,
    }
}
