//! The `report` stage: reads what its inputs hold and writes the page and both summaries.

use std::{fs, io::ErrorKind, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    InputArtifact, ReportConfig, StageContext, StageError, StageOutcome,
    fit::METRICS_FORMAT,
    report_data::{count_duplicates, shared_images},
    report_embeddings::read_embeddings,
    report_thumbnails::{map_sprite, mistake_thumbnails, neighbour_thumbnails},
};
use crate::{
    augment::Policy,
    data::Dataset,
    report::{
        ReportError, ReportInputs,
        build::{AugmentationInput, ClassifierInput, DatasetInput, EncoderInput},
        build_summary,
        html::Pictures,
        pictures::fit_sheet,
        render_html, render_markdown,
        summary::{ArtifactRef, Summary},
    },
    train::{EpochRecord, PretrainConfig},
};

/// Runs a `report` stage. Leaves `report.html`, `summary.json` and `summary.md`.
///
/// # Errors
/// Where an input artifact is not as expected, or a file cannot be read or written.
pub fn run(config: &ReportConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let mut encoders = read_all(ctx, "pretraining", read_encoder)?.into_iter();
    let datasets = read_all(ctx, "datasets", |artifact| Ok(Dataset::open(&artifact.dir)?))?;
    let mut inputs = ReportInputs {
        title: config.title.clone(),
        pipeline: ctx.pipeline.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        encoder: encoders.next(),
        more_encoders: encoders.collect(),
        augmentation: ctx.input("augmentation").map(read_augmentation).transpose()?,
        embeddings: ctx.input("embeddings").map(read_embeddings).transpose()?.flatten(),
        classifiers: read_all(ctx, "classifiers", read_classifier)?,
        datasets: dataset_inputs(ctx, &datasets),
        shared_images: vec![],
        artifacts: vec![],
    };
    let digests = count_duplicates(&datasets, &mut inputs.datasets, ctx.reporter)?;
    inputs.shared_images = shared_images(&datasets, &inputs.datasets, &digests);
    for (name, artifacts) in ctx.inputs {
        inputs.artifacts.extend(artifacts.iter().map(|artifact| ArtifactRef {
            input: name.clone(),
            stage: artifact.stage.clone(),
            digest: artifact.digest.hex(),
        }));
    }
    if ctx.reporter.is_cancelled() {
        return Err(StageError::Cancelled);
    }
    let mut pictures = Pictures::default();
    if let Some(artifact) = ctx.input("augmentation") {
        let path = artifact.dir.join("preview.png");
        if let Some(png) = read_optional(&path)? {
            pictures.preview = fit_sheet(png);
            if pictures.preview.is_none() {
                ctx.reporter.warn("the contact sheet is no PNG file or too large for the page and is left out");
            }
        }
    }
    let summary = build_summary(&inputs).map_err(|error| failed(ctx, &ReportError::from(error)))?;
    pictures.thumbnails = mistake_thumbnails(&summary, &datasets);
    if let (Some(artifact), Some(embeddings)) = (ctx.input("embeddings"), &inputs.embeddings) {
        pictures.map = map_sprite(&artifact.dir, embeddings)?;
        pictures.neighbours = neighbour_thumbnails(&artifact.dir, embeddings)?;
    }
    let page = render_html(&summary, &pictures).map_err(|error| failed(ctx, &error))?;
    let json = summary.to_json().map_err(|error| failed(ctx, &ReportError::from(error)))?;
    write(&ctx.out_dir.join("report.html"), &page)?;
    write(&ctx.out_dir.join("summary.json"), &json)?;
    write(&ctx.out_dir.join("summary.md"), &render_markdown(&summary))?;
    ctx.reporter.info(&summary.verdict.headline);
    Ok(outcome(&summary))
}

/// How much better than each baseline the pretrained features are, such as `probe/gain_over_untrained`, and than training
/// from scratch with as many labels, such as `fine_tune/gain_over_supervised@0.05`.
fn outcome(summary: &Summary) -> StageOutcome {
    let mut outcome = StageOutcome::default();
    for classifier in &summary.classifiers {
        for comparison in &classifier.comparisons {
            let name = format!("{}/gain_over_{}", classifier.stage, comparison.baseline);
            outcome.metrics.insert(name, comparison.difference);
        }
    }
    for point in &summary.label_efficiency {
        let name = format!("{}/gain_over_supervised@{}", point.protocol, point.label_fraction);
        outcome.metrics.insert(name, point.gain);
    }
    outcome
}

fn failed(ctx: &StageContext<'_>, error: &ReportError) -> StageError {
    let cause = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    StageError::Artifact { path: ctx.out_dir.to_owned(), message: format!("{error}{cause}") }
}

fn read_all<T>(
    ctx: &StageContext<'_>,
    name: &str,
    read: fn(&InputArtifact) -> Result<T, StageError>,
) -> Result<Vec<T>, StageError> {
    ctx.inputs.get(name).map_or_else(|| Ok(vec![]), |artifacts| artifacts.iter().map(read).collect())
}

fn read_encoder(artifact: &InputArtifact) -> Result<EncoderInput, StageError> {
    let path = artifact.dir.join("history.jsonl");
    let mut history = vec![];
    for (idx, line) in read_text(&path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let record: EpochRecord =
            serde_json::from_str(line).map_err(|error| broken(&path, &format!("line {}: {error}", idx + 1)))?;
        history.push(record);
    }
    history.sort_by_key(|record| record.epoch);
    history.dedup_by_key(|record| record.epoch);
    Ok(EncoderInput {
        stage: artifact.stage.clone(),
        card: read_json(&artifact.dir.join("encoder.json"))?,
        history,
        config: read_config(&artifact.dir)?,
    })
}

/// The parameters that made an encoder. An artifact without them is still worth a report, so whatever is not
/// as expected counts as absent.
fn read_config(dir: &Path) -> Result<Option<PretrainConfig>, StageError> {
    /// The part of an artifact's `config.yaml` that is read here.
    #[derive(Deserialize)]
    struct StoredStage {
        with: PretrainConfig,
    }
    let Some(bytes) = read_optional(&dir.join("config.yaml"))? else { return Ok(None) };
    // By way of JSON, in whose data model enums are maps of one key, as in pipelines; YAML's own are tags.
    let stored: Option<Value> = serde_yaml::from_slice(&bytes).ok();
    Ok(stored.and_then(|value| serde_json::from_value::<StoredStage>(value).ok()).map(|stored| stored.with))
}

fn read_augmentation(artifact: &InputArtifact) -> Result<AugmentationInput, StageError> {
    Ok(AugmentationInput { stage: artifact.stage.clone(), policy: Policy::load(&artifact.dir)?.config().clone() })
}

fn read_classifier(artifact: &InputArtifact) -> Result<ClassifierInput, StageError> {
    let predictions = read_optional(&artifact.dir.join("predictions.csv"))?.unwrap_or_default();
    let path = artifact.dir.join("metrics.json");
    let metrics: Value = read_json(&path)?;
    // Before its fields: those of a newer version are unknown.
    if metrics["format"] != METRICS_FORMAT {
        let message = format!("format {} is not {METRICS_FORMAT}, the one that this version reads", metrics["format"]);
        return Err(broken(&path, &message));
    }
    Ok(ClassifierInput {
        stage: artifact.stage.clone(),
        metrics: serde_json::from_value(metrics).map_err(|error| broken(&path, &error.to_string()))?,
        predictions: String::from_utf8_lossy(&predictions).into_owned(),
    })
}

fn dataset_inputs(ctx: &StageContext<'_>, datasets: &[Dataset]) -> Vec<DatasetInput> {
    let artifacts = ctx.inputs.get("datasets").into_iter().flatten();
    artifacts
        .zip(datasets)
        .map(|(artifact, dataset)| DatasetInput {
            stage: artifact.stage.clone(),
            card: dataset.card().clone(),
            num_duplicates: None,
        })
        .collect()
}

pub(super) fn broken(path: &Path, message: &str) -> StageError {
    StageError::Artifact { path: path.to_owned(), message: message.to_owned() }
}

pub(super) fn read_text(path: &Path) -> Result<String, StageError> {
    fs::read_to_string(path).map_err(|source| StageError::Io { action: "read", path: path.to_owned(), source })
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StageError> {
    serde_json::from_str(&read_text(path)?).map_err(|error| broken(path, &error.to_string()))
}

pub(super) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, StageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StageError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), StageError> {
    fs::write(path, text).map_err(|source| StageError::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
