//! `fit` with `fine_tune`, `supervised` or `linear_probe.sgd`: a softmax layer, and its backbone or none of it, trained on
//! labels.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    StageContext, StageError, StageOutcome,
    extract::{common_resize, input_dir},
    fit::{METRICS_FORMAT, check_test_labels, usable_train_labels},
    leak::warn_about_shared_images,
    pretrain::save_tensors,
};
use crate::{
    augment::{EvaluationView, Policy},
    data::{
        Dataset, LabelledLoader, ViewSource,
        ingest_config::{ResizeConfig, WHITE},
        load_evaluation_views,
    },
    eval::{
        ClassifierEpoch, ClassifierMetrics,
        classifier_artifact::{
            CLASSIFIER_FORMAT, ClassifierCard, Head, headline, save_classifier, save_metrics, save_predictions,
        },
        embed::batch_size,
        embeddings::{BACKBONE_FILE, PRETRAINED, merge_classes},
        eval_config::{FineTuneConfig, SupervisedConfig},
        frozen_network::read_backbone,
        label_subset::stratified_subset,
        linear_classifier::LinearClassifier,
        metrics::score,
        model_artifact::load_encoder_card,
    },
    model::{
        backbone::{Backbone, BackboneConfig},
        simsiam::SimSiamError,
        state::StateMap,
    },
    train::{
        Preprocessing, TrainError,
        classifier::{Classifier, ClassifierHost, LabelledBatch, LabelledSource},
        encoder_card::WEIGHTS_FILE,
        train_config::{ClassifierTrainConfig, TunedLayers},
    },
};

/// A protocol that trains the backbone, too.
#[derive(Clone, Copy)]
pub(super) enum Trained<'a> {
    FineTune(&'a FineTuneConfig),
    /// The softmax layer alone, on the frozen backbone.
    Probe(&'a ClassifierTrainConfig),
    Supervised(&'a SupervisedConfig),
}

/// What both protocols train.
struct Start {
    name: &'static str,
    train: ClassifierTrainConfig,
    layers: TunedLayers,
    backbone: Backbone,
    backbone_config: BackboneConfig,
    preprocessing: Preprocessing,
    views: ViewSource,
}

/// Trains and judges; the classifier that is left holds its own backbone.
pub(super) fn execute_trained(protocol: Trained<'_>, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let start = match protocol {
        Trained::FineTune(config) => start_pretrained("fine_tune", config.train, config.layers, ctx)?,
        Trained::Probe(train) => start_pretrained("linear_probe", *train, TunedLayers::Classifier, ctx)?,
        Trained::Supervised(config) => start_supervised(config, ctx)?,
    };
    let train = Arc::new(Dataset::open(input_dir(ctx, "train")?)?);
    let test = Dataset::open(input_dir(ctx, "test")?)?;
    warn_about_shared_images(&train, &test, ctx.reporter);
    let class_names = train.card().class_names.clone();
    let train_labels = usable_train_labels(train.labels(), &class_names, "`fit`")?;
    let test_labels = usable_test_labels(&class_names, &test)?;
    let Start { name, train: config, layers, backbone, backbone_config, preprocessing, views } = start;
    let preprocessing = Preprocessing {
        resize: common_resize(&train, Some(&test), ctx),
        background: test.card().background,
        ..preprocessing
    };
    let view = preprocessing.view();

    let mut source = Source::new(&train, &train_labels, views, view.clone(), &config, ctx.seed);
    let num_train = source.num_images() as u64;
    let mut classifier = Classifier::new(backbone, class_names.len(), ctx.seed);
    let batch_size = (config.batch_size as usize).min(source.num_images());
    warn_about_few_steps(&config, source.num_images() / batch_size.max(1), ctx);
    source.make_loader(batch_size)?;
    let curve = classifier.train(&config, layers, &source, &mut Host(ctx))?;

    let head = Head::Linear(linear_head(&classifier, class_names.len())?);
    let probabilities = test_probabilities(&classifier.backbone, &head, &test, &view, ctx)?;
    let scores = score(&probabilities, &test_labels, class_names.len(), ctx.seed)?;
    ctx.reporter.info(&format!("{name}: {:.1} % top-1 with {num_train} labels", 100.0 * scores.top1));
    let files: Vec<&str> = test.names().collect();
    save_predictions(ctx.out_dir, &files, &test_labels, &probabilities, &class_names)?;
    save_tensors(&ctx.out_dir.join(BACKBONE_FILE), &classifier.backbone.state_dict())?;
    let card = ClassifierCard {
        format: CLASSIFIER_FORMAT,
        protocol: name.into(),
        class_names: class_names.clone(),
        feature_dim: classifier.backbone.feature_dim() as u32,
        head: head.card(),
        backbone: backbone_config,
        preprocessing,
        solver: None,
    };
    save_classifier(ctx.out_dir, &card, &head)?;
    let history = curve.iter().map(|point| ClassifierEpoch {
        epoch: point.epoch,
        train_loss: point.train_loss,
        validation_loss: point.validation.map(|(loss, _)| loss),
        validation_top1: point.validation.map(|(_, top1)| top1),
    });
    // A probe judges the pretrained features, the others what they made of them.
    let representation = if name == "linear_probe" { PRETRAINED } else { name };
    let metrics = ClassifierMetrics {
        format: METRICS_FORMAT,
        protocol: name.into(),
        class_names,
        num_train,
        num_test: test_labels.len() as u64,
        label_fraction: config.label_fraction,
        scores: BTreeMap::from([(representation.to_owned(), scores)]),
        history: history.collect(),
    };
    save_metrics(ctx.out_dir, &metrics)?;
    Ok(StageOutcome { metrics: headline(&metrics) })
}

/// With a small share of the labels an epoch is a step or two: what then looks like the worth of pretraining is the want
/// of training.
fn warn_about_few_steps(config: &ClassifierTrainConfig, steps_per_epoch: usize, ctx: &StageContext<'_>) {
    const FEW: usize = 100;
    let steps = config.epochs as usize * steps_per_epoch;
    if steps < FEW {
        ctx.reporter.warn(&format!(
            "the training is {steps} steps long, in which little is learned: raise `epochs` to {} or so",
            FEW.div_ceil(steps_per_epoch.max(1))
        ));
    }
}

fn start_pretrained(
    name: &'static str,
    train: ClassifierTrainConfig,
    layers: TunedLayers,
    ctx: &StageContext<'_>,
) -> Result<Start, StageError> {
    let dir = input_dir(ctx, "encoder")?;
    let card = load_encoder_card(dir)?;
    let views = if let Some(input) = ctx.input("augmentation") {
        ViewSource::Random(Arc::new(policy_of_size(&input.dir, card.preprocessing.image_size)?))
    } else {
        ViewSource::Evaluation(Arc::new(card.preprocessing.view()))
    };
    let backbone = read_backbone(&dir.join(WEIGHTS_FILE), &card.backbone)?;
    if let TunedLayers::LastBlocks(blocks) = layers
        && blocks as usize > backbone.num_blocks()
    {
        let (network, found) = (card.backbone.name(), backbone.num_blocks());
        return Err(StageError::Config {
            message: format!("`layers.last_blocks` is {blocks}, but `{network}` has {found} blocks"),
            help: Some(format!("lower it, or write `layers: all` for all {found}")),
        });
    }
    Ok(Start {
        name,
        train,
        layers,
        backbone,
        backbone_config: card.backbone,
        preprocessing: card.preprocessing,
        views,
    })
}

fn start_supervised(config: &SupervisedConfig, ctx: &StageContext<'_>) -> Result<Start, StageError> {
    let policy = Policy::load(input_dir(ctx, "augmentation")?)?;
    let augmentation = policy.config();
    let preprocessing = Preprocessing {
        resize: ResizeConfig::None,
        background: WHITE,
        image_size: augmentation.image_size,
        evaluation: augmentation.evaluation,
        channel_stats: augmentation.normalize.channel_stats(),
    };
    Ok(Start {
        name: "supervised",
        train: config.train,
        layers: TunedLayers::All,
        backbone: Backbone::build(&config.backbone, ctx.seed)
            .map_err(|error| TrainError::from(SimSiamError::from(error)))?,
        backbone_config: config.backbone,
        preprocessing,
        views: ViewSource::Random(Arc::new(policy)),
    })
}

/// The policy, which must make views of the size that the encoder was trained on.
pub(super) fn policy_of_size(dir: &Path, image_size: u32) -> Result<Policy, StageError> {
    let policy = Policy::load(dir)?;
    if policy.image_size() != image_size as usize {
        return Err(StageError::Config {
            message: format!(
                "`augmentation` makes views of {} pixels but the encoder was pretrained on {image_size}",
                policy.image_size()
            ),
            help: Some("give an `augment` stage with the same `image_size`".into()),
        });
    }
    Ok(policy)
}

/// Test labels as indices into the training classes.
fn usable_test_labels(class_names: &[String], test: &Dataset) -> Result<Vec<u32>, StageError> {
    let labels = test.labels().ok_or_else(|| StageError::Data {
        message: "the test images have no labels".into(),
        help: Some("give the input `test` a folder of class folders".into()),
    })?;
    let (all_names, places) = merge_classes(class_names, &test.card().class_names);
    let labels: Vec<u32> = labels.iter().map(|&label| places[label as usize]).collect();
    check_test_labels(&labels, &all_names, class_names.len())?;
    Ok(labels)
}

fn linear_head(classifier: &Classifier, num_classes: usize) -> Result<LinearClassifier, StageError> {
    let state = classifier.head_state();
    let dim = classifier.backbone.feature_dim();
    let map = StateMap::new(&state);
    let floats = |name: &str, shape: &[usize]| {
        map.f32(name, shape).map(<[f32]>::to_vec).map_err(|error| TrainError::from(SimSiamError::from(error)))
    };
    Ok(LinearClassifier {
        weight: floats("classifier.0.weight", &[num_classes, dim])?,
        bias: floats("classifier.0.bias", &[num_classes])?,
        dim,
        l2_normalize: false,
    })
}

/// As `predict` computes them later: by what is written to the artifact.
fn test_probabilities(
    backbone: &Backbone,
    head: &Head,
    test: &Dataset,
    view: &EvaluationView,
    ctx: &StageContext<'_>,
) -> Result<Vec<f64>, StageError> {
    let size = view.image_size();
    let indices: Vec<usize> = (0..test.len()).collect();
    let mut probabilities = vec![];
    for (block_idx, block) in indices.chunks(batch_size(size)).enumerate() {
        if ctx.reporter.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        ctx.reporter.progress((block_idx * batch_size(size)) as u64, test.len() as u64, "test images", "");
        let mut images = vec![0.0; block.len() * 3 * size * size];
        load_evaluation_views(test, view, block, &mut images);
        let features = backbone
            .forward_eval(&images, block.len(), size)
            .map_err(|error| TrainError::from(SimSiamError::from(error)))?;
        probabilities.extend(head.probabilities(&features)?);
    }
    Ok(probabilities)
}

/// Labelled images: those to learn from, and those kept apart.
struct Source<'a> {
    dataset: &'a Arc<Dataset>,
    views: ViewSource,
    view: EvaluationView,
    learn: Vec<usize>,
    validation: Vec<usize>,
    seed: u64,
    loader: Option<LabelledLoader>,
}

impl<'a> Source<'a> {
    fn new(
        dataset: &'a Arc<Dataset>,
        labels: &[u32],
        views: ViewSource,
        view: EvaluationView,
        config: &ClassifierTrainConfig,
        seed: u64,
    ) -> Self {
        let labelled = stratified_subset(labels, config.label_fraction, seed);
        let (learn, validation) = split_validation(labels, labelled, config.validation_fraction, seed);
        Self { dataset, views, view, learn, validation, seed, loader: None }
    }

    fn make_loader(&mut self, batch_size: usize) -> Result<(), StageError> {
        let dataset = Arc::clone(self.dataset);
        self.loader = Some(LabelledLoader::new(dataset, self.views.clone(), &self.learn, self.seed, batch_size)?);
        Ok(())
    }
}

/// Takes a share of the images of each class apart; a class keeps at least one image to learn from.
fn split_validation(labels: &[u32], labelled: Vec<usize>, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    if fraction <= 0.0 {
        return (labelled, vec![]);
    }
    let subset_labels: Vec<u32> = labelled.iter().map(|&idx| labels[idx]).collect();
    let chosen = stratified_subset(&subset_labels, fraction, seed.wrapping_add(1));
    let mut left: BTreeMap<u32, usize> = BTreeMap::new();
    for label in &subset_labels {
        *left.entry(*label).or_default() += 1;
    }
    let mut is_validation = vec![false; labelled.len()];
    for at in chosen {
        let left = left.entry(subset_labels[at]).or_default();
        if *left > 1 {
            *left -= 1;
            is_validation[at] = true;
        }
    }
    let (validation, learn): (Vec<_>, Vec<_>) =
        labelled.into_iter().zip(is_validation).partition(|(_, is_validation)| *is_validation);
    let indices = |pairs: Vec<(usize, bool)>| pairs.into_iter().map(|(idx, _)| idx).collect();
    (indices(learn), indices(validation))
}

impl LabelledSource for Source<'_> {
    fn num_images(&self) -> usize {
        self.learn.len()
    }

    fn image_size(&self) -> usize {
        self.view.image_size()
    }

    fn epoch(&self, epoch: u32, _batch_size: usize) -> Box<dyn Iterator<Item = LabelledBatch> + '_> {
        match &self.loader {
            Some(loader) => {
                Box::new(loader.epoch(epoch).map(|batch| LabelledBatch { images: batch.x, labels: batch.labels }))
            }
            None => Box::new(std::iter::empty()),
        }
    }

    fn validation(&self) -> Box<dyn Iterator<Item = LabelledBatch> + '_> {
        let size = self.view.image_size();
        Box::new(self.validation.chunks(batch_size(size)).map(move |block| {
            let mut images = vec![0.0; block.len() * 3 * size * size];
            load_evaluation_views(self.dataset, &self.view, block, &mut images);
            LabelledBatch { images, labels: block.iter().filter_map(|&idx| self.dataset.label(idx)).collect() }
        }))
    }
}

struct Host<'a>(&'a StageContext<'a>);

impl ClassifierHost for Host<'_> {
    fn step(&mut self, steps: u64, total_steps: u64, loss: f64) {
        self.0.reporter.progress(steps, total_steps, "steps", &format!("loss {loss:.3}"));
    }

    fn info(&mut self, message: &str) {
        self.0.reporter.info(message);
    }

    fn is_cancelled(&self) -> bool {
        self.0.reporter.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_takes_from_every_class_but_not_its_last_image() {
        let labels = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2];
        let (learn, validation) = split_validation(&labels, (0..15).collect(), 0.3, 5);
        assert_eq!(learn.len() + validation.len(), 15);
        assert_eq!(validation.iter().filter(|&&idx| labels[idx] == 0).count(), 3);
        assert!(learn.contains(&14));
        assert_eq!(split_validation(&labels, vec![3, 14], 0.0, 5), (vec![3, 14], vec![]));
    }
}
