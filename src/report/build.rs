//! From what the adapter read to the view model.

use serde_json::Value;

use super::{
    advice::AdviceInputs,
    cells::PretrainingCells,
    embedding_map::{EmbeddingsInput, embedding_map},
    label_efficiency::label_efficiency,
    predictions::confident_mistakes,
    summary::{
        ArtifactRef, AugmentationSummary, ClassCount, ClassRow, ClassifierPoint, ClassifierSummary, ConfusedPair,
        CurvePoint, DatasetSummary, OpSummary, PretrainingSummary, Provenance, RepresentationScores, SUMMARY_FORMAT,
        SharedImages, Skipped, Summary,
    },
    text::significant,
    verdict::{COLLAPSED_BELOW, compare, judge, lead_classifier},
};
use crate::{
    augment::AugmentConfig,
    data::DatasetCard,
    eval::{ClassifierMetrics, Scores},
    model::backbone::{BackboneConfig, ResnetConfig, Stem},
    train::{
        EncoderCard, EpochRecord, PretrainConfig,
        train_config::{PredictorLr, PretrainOptimizerConfig},
    },
};

/// Classes up to which the whole confusion matrix is kept.
const CONFUSION_CLASSES: usize = 100;
/// Mistakes, confused pairs and skipped files that are listed.
const LISTED: usize = 12;

/// What the adapter read, parsed.
#[derive(Clone, Debug, Default)]
pub struct ReportInputs {
    /// Title of the page; empty takes the pipeline's name.
    pub title: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Version of simsiam-pipe.
    pub version: String,
    /// The pretraining.
    pub encoder: Option<EncoderInput>,
    /// Others to compare it with, such as the other cells of a matrix.
    pub more_encoders: Vec<EncoderInput>,
    /// The augmentation policy.
    pub augmentation: Option<AugmentationInput>,
    /// The embeddings.
    pub embeddings: Option<EmbeddingsInput>,
    /// The classifiers.
    pub classifiers: Vec<ClassifierInput>,
    /// The datasets.
    pub datasets: Vec<DatasetInput>,
    /// Images that datasets share.
    pub shared_images: Vec<SharedImages>,
    /// Every artifact that was read.
    pub artifacts: Vec<ArtifactRef>,
}

/// An encoder artifact.
#[derive(Clone, Debug)]
pub struct EncoderInput {
    /// Name of the stage that made it.
    pub stage: String,
    /// `encoder.json`.
    pub card: EncoderCard,
    /// `history.jsonl`.
    pub history: Vec<EpochRecord>,
    /// The parameters that made it, where the artifact holds them.
    pub config: Option<PretrainConfig>,
}

/// An augmentation artifact.
#[derive(Clone, Debug)]
pub struct AugmentationInput {
    /// Name of the stage that made it.
    pub stage: String,
    /// `policy.json`.
    pub policy: AugmentConfig,
}

/// A classifier artifact.
#[derive(Clone, Debug)]
pub struct ClassifierInput {
    /// Name of the stage that made it.
    pub stage: String,
    /// `metrics.json`.
    pub metrics: ClassifierMetrics,
    /// `predictions.csv`; may be empty.
    pub predictions: String,
}

/// A dataset artifact.
#[derive(Clone, Debug)]
pub struct DatasetInput {
    /// Name of the stage that made it.
    pub stage: String,
    /// `dataset.json`.
    pub card: DatasetCard,
    /// Images with the same pixels as one before them, where pixels were compared.
    pub num_duplicates: Option<u64>,
}

/// The view model of everything that was read.
///
/// # Errors
/// Where parameters cannot be written as JSON.
pub fn build_summary(inputs: &ReportInputs) -> Result<Summary, serde_json::Error> {
    let augmentation = inputs.augmentation.as_ref().map(augmentation).transpose()?;
    let classifiers: Vec<ClassifierSummary> = inputs.classifiers.iter().map(classifier).collect();
    let datasets: Vec<DatasetSummary> = inputs.datasets.iter().map(dataset).collect();
    let ops: Option<Vec<String>> =
        augmentation.as_ref().map(|policy| policy.ops.iter().map(|op| op.name.clone()).collect());
    let encoders: Vec<&EncoderInput> = inputs.encoder.iter().chain(&inputs.more_encoders).collect();
    let cells = (encoders.len() > 1)
        .then(|| PretrainingCells::of(encoders.iter().map(|encoder| pretraining(encoder)).collect(), &classifiers));
    // What is said of one run is said of the best, or else of the first.
    let best = cells.as_ref().and_then(|cells| cells.choice.as_ref()?.runs.first()).map_or(0, |best| best.run);
    let encoder = encoders.get(best).copied();
    let pretraining = encoder.map(pretraining);
    let config = encoder.and_then(|encoder| encoder.config.as_ref());
    let advice = AdviceInputs {
        ops: ops.as_deref(),
        predictor_lr_fixed: config.map(|config| config.predictor_lr == PredictorLr::Fixed),
        projector_output_bn: encoder.map(|encoder| encoder.card.projector.output_bn),
        num_skipped: datasets.iter().map(|dataset| dataset.num_skipped).sum(),
    };
    let collapsed_below = config.map_or(COLLAPSED_BELOW, |config| config.collapse.std_below);
    let verdict = judge(pretraining.as_ref(), &classifiers, collapsed_below, &advice);
    let title = if inputs.title.trim().is_empty() { &inputs.pipeline } else { &inputs.title };
    Ok(Summary {
        format: SUMMARY_FORMAT,
        title: title.clone(),
        pipeline: inputs.pipeline.clone(),
        verdict,
        pretraining,
        cells,
        augmentation,
        label_efficiency: label_efficiency(&classifiers),
        embedding_map: inputs.embeddings.as_ref().and_then(|embeddings| {
            let lead = lead_classifier(&classifiers);
            let answers = inputs.classifiers.iter().find(|input| lead.is_some_and(|lead| lead.stage == input.stage));
            embedding_map(embeddings, answers)
        }),
        classifiers,
        datasets,
        shared_images: inputs.shared_images.clone(),
        provenance: Provenance {
            version: inputs.version.clone(),
            artifacts: inputs.artifacts.clone(),
            pretraining: encoder.map(pretraining_parameters).transpose()?,
            augmentation: inputs.augmentation.as_ref().map(|a| serde_json::to_value(&a.policy)).transpose()?,
        },
    })
}

/// The stored parameters, or what `encoder.json` says of them.
fn pretraining_parameters(encoder: &EncoderInput) -> Result<Value, serde_json::Error> {
    if let Some(config) = &encoder.config {
        let mut value = serde_json::to_value(config)?;
        // How often state is saved changes nothing in the result, so it must not change the page either.
        if let Value::Object(map) = &mut value {
            map.remove("checkpoint");
        }
        return Ok(value);
    }
    let card = &encoder.card;
    Ok(serde_json::json!({
        "backbone": card.backbone,
        "projector": card.projector,
        "predictor": card.predictor,
        "epochs": card.epochs,
        "seed": card.seed,
        "preprocessing": card.preprocessing,
    }))
}

fn pretraining(encoder: &EncoderInput) -> PretrainingSummary {
    let card = &encoder.card;
    let dims = std::iter::once(card.feature_dim)
        .chain((1..card.projector.num_layers).map(|_| card.projector.hidden_dim))
        .chain([card.projector.output_dim]);
    let base_lr = encoder.config.as_ref().map(|config| match config.optimizer {
        PretrainOptimizerConfig::Sgd(sgd) => sgd.base_lr,
    });
    PretrainingSummary {
        stage: encoder.stage.clone(),
        backbone: backbone_words(card.backbone),
        feature_dim: card.feature_dim,
        projector: arrows(dims),
        predictor: arrows(
            [card.projector.output_dim, card.predictor.hidden_dim, card.projector.output_dim].into_iter(),
        ),
        image_size: card.preprocessing.image_size,
        seed: card.seed,
        epochs: card.epochs,
        steps: card.steps,
        batch_size: encoder.config.as_ref().map(|config| config.batch_size),
        base_lr,
        stopped_early: card.stopped_early,
        final_loss: card.final_loss,
        final_embedding_std_ratio: card.final_embedding_std_ratio,
        final_knn_top1: encoder.history.iter().rev().find_map(|record| record.knn_top1),
        warnings: card.warnings.clone(),
        curve: encoder
            .history
            .iter()
            .map(|record| CurvePoint {
                epoch: record.epoch,
                step: record.step,
                loss: record.loss,
                embedding_std_ratio: record.embedding_std_ratio,
                lr: record.lr,
                predictor_lr: record.predictor_lr,
                knn_top1: record.knn_top1,
            })
            .collect(),
    }
}

fn arrows(dims: impl Iterator<Item = u32>) -> String {
    dims.map(|dim| dim.to_string()).collect::<Vec<_>>().join(" → ")
}

fn backbone_words(backbone: BackboneConfig) -> String {
    let resnet = |name: &str, config: ResnetConfig| {
        let stem = match config.stem {
            Stem::Imagenet => "ImageNet stem",
            Stem::Cifar => "CIFAR stem",
        };
        format!("{name}, {stem}")
    };
    match backbone {
        BackboneConfig::Resnet18(config) => resnet("ResNet-18", config),
        BackboneConfig::Resnet34(config) => resnet("ResNet-34", config),
        BackboneConfig::Resnet50(config) => resnet("ResNet-50", config),
        BackboneConfig::DarknetTiny(_) => "Darknet tiny".to_owned(),
    }
}

fn augmentation(input: &AugmentationInput) -> Result<AugmentationSummary, serde_json::Error> {
    let mut ops = vec![];
    let lists = input.policy.op_lists();
    for (view, (_, list)) in lists.iter().enumerate() {
        for op in *list {
            // An operation is written as a map of one key.
            let Value::Object(map) = serde_json::to_value(op)? else { continue };
            ops.extend(map.into_iter().map(|(name, params)| {
                let params = params_words(&params);
                let of_view = if lists.len() > 1 { format!("view {}: ", view + 1) } else { String::new() };
                OpSummary { name, params: format!("{of_view}{params}") }
            }));
        }
    }
    Ok(AugmentationSummary { stage: input.stage.clone(), image_size: input.policy.image_size, ops })
}

fn params_words(params: &Value) -> String {
    let Value::Object(map) = params else { return value_words(params) };
    map.iter()
        .map(|(key, value)| format!("{} {}", key.replace('_', " "), value_words(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn value_words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), significant),
        Value::Array(items) => items.iter().map(value_words).collect::<Vec<_>>().join(" to "),
        other => other.to_string(),
    }
}

fn classifier(input: &ClassifierInput) -> ClassifierSummary {
    let metrics = &input.metrics;
    let rank = |name: &str| match name {
        "pretrained" => 0,
        "untrained" => 1,
        "raw_pixels" => 2,
        _ => 3,
    };
    let mut names: Vec<&String> = metrics.scores.keys().collect();
    names.sort_by_key(|name| (rank(name), name.as_str()));
    let main = names.first().and_then(|name| metrics.scores.get(*name));
    let scores: Vec<RepresentationScores> = names
        .iter()
        .filter_map(|name| {
            let scores = metrics.scores.get(*name)?;
            Some(RepresentationScores {
                representation: (*name).clone(),
                top1: scores.top1,
                top1_interval: scores.top1_interval,
                top5: scores.top5,
                balanced_accuracy: scores.balanced_accuracy,
                log_loss: scores.log_loss,
                expected_calibration_error: scores.expected_calibration_error,
            })
        })
        .collect();
    let comparisons =
        if scores.first().is_some_and(|s| s.representation == "pretrained") { compare(&scores) } else { vec![] };
    let supports = || main.into_iter().flat_map(|scores| scores.per_class.iter().map(|class| class.support));
    let total: u64 = supports().sum();
    ClassifierSummary {
        stage: input.stage.clone(),
        protocol: metrics.protocol.clone(),
        num_train: metrics.num_train,
        num_test: metrics.num_test,
        label_fraction: metrics.label_fraction,
        largest_class_share: supports().max().unwrap_or(0) as f64 / total.max(1) as f64,
        scores,
        comparisons,
        per_class: main.map_or_else(Vec::new, |scores| class_rows(scores, &metrics.class_names)),
        confusion: main
            .filter(|scores| scores.confusion.len() <= CONFUSION_CLASSES)
            .map(|scores| scores.confusion.clone()),
        confused_pairs: main.map_or_else(Vec::new, |scores| confused_pairs(scores, &metrics.class_names)),
        mistakes: confident_mistakes(&input.predictions, LISTED),
        curve: metrics
            .history
            .iter()
            .map(|epoch| ClassifierPoint {
                epoch: epoch.epoch,
                train_loss: epoch.train_loss,
                validation_loss: epoch.validation_loss,
                validation_top1: epoch.validation_top1,
            })
            .collect(),
    }
}

fn class_name(names: &[String], idx: usize) -> String {
    names.get(idx).cloned().unwrap_or_else(|| format!("class {idx}"))
}

fn class_rows(scores: &Scores, names: &[String]) -> Vec<ClassRow> {
    scores
        .per_class
        .iter()
        .enumerate()
        .map(|(idx, class)| ClassRow {
            name: class_name(names, idx),
            precision: class.precision,
            recall: class.recall,
            f1: class.f1,
            support: class.support,
        })
        .collect()
}

fn confused_pairs(scores: &Scores, names: &[String]) -> Vec<ConfusedPair> {
    let mut pairs: Vec<(u64, usize, usize, u64)> = vec![];
    for (actual, row) in scores.confusion.iter().enumerate() {
        let of = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            if actual != predicted && count > 0 {
                pairs.push((count, actual, predicted, of));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    pairs.truncate(LISTED);
    pairs
        .into_iter()
        .map(|(count, actual, predicted, of)| ConfusedPair {
            actual: class_name(names, actual),
            predicted: class_name(names, predicted),
            count,
            of,
        })
        .collect()
}

fn dataset(input: &DatasetInput) -> DatasetSummary {
    let card = &input.card;
    DatasetSummary {
        stage: input.stage.clone(),
        num_images: card.num_images,
        classes: card
            .class_names
            .iter()
            .enumerate()
            .map(|(idx, name)| ClassCount {
                name: name.clone(),
                count: card.class_counts.get(idx).copied().unwrap_or(0),
            })
            .collect(),
        min_size: card.min_size,
        max_size: card.max_size,
        num_duplicates: input.num_duplicates,
        num_skipped: card.skipped.len() as u64,
        skipped: card
            .skipped
            .iter()
            .take(LISTED)
            .map(|skipped| Skipped { file: skipped.file.clone(), reason: skipped.reason.clone() })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::{Learned, summary_schema};

    #[test]
    fn no_inputs_give_an_empty_report() {
        let inputs = ReportInputs { pipeline: "intel".into(), ..ReportInputs::default() };
        let summary = build_summary(&inputs).unwrap();
        assert_eq!(summary.title, "intel");
        assert_eq!(summary.verdict.learned, Learned::Unknown);
        assert!(summary.pretraining.is_none() && summary.embedding_map.is_none());
    }

    #[test]
    fn schema_file_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/summary.schema.json");
        let schema = summary_schema().unwrap();
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")).unwrap();
            std::fs::write(path, &schema).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == schema, "run `UPDATE_SCHEMAS=1 cargo test schema` and commit {path}");
    }
}
