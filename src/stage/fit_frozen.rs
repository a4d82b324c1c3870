//! `fit` with `linear_probe` or `knn`: classifiers on frozen embeddings, for every representation they hold.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{
    StageContext, StageError, StageOutcome,
    fit::{METRICS_FORMAT, check_test_labels, copy_file, quoted, usable_train_labels},
};
use crate::eval::{
    ClassifierMetrics, Scores,
    classifier_artifact::{
        CLASSIFIER_FORMAT, ClassifierCard, Head, SolverCard, headline, save_classifier, save_metrics, save_predictions,
    },
    cross_validation::{CandidateScore, choose_l2},
    embeddings::{BACKBONE_FILE, Embeddings, PRETRAINED, Representation},
    eval_config::{KnnConfig, LinearProbeConfig},
    knn::KnnClassifier,
    label_subset::stratified_subset,
    linear_probe::{ProbeFit, Progress, Stop, fit_linear_probe},
    metrics::score,
};

/// Query rows between two looks at whether to stop.
const QUERY_ROWS: usize = 4096;

/// A protocol that leaves the backbone as it is.
#[derive(Clone, Copy)]
pub(super) enum Frozen<'a> {
    LinearProbe(&'a LinearProbeConfig),
    Knn(&'a KnnConfig),
}

impl Frozen<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::LinearProbe(_) => "linear_probe",
            Self::Knn(_) => "knn",
        }
    }

    fn label_fraction(self) -> f64 {
        match self {
            Self::LinearProbe(config) => config.label_fraction,
            Self::Knn(config) => config.label_fraction,
        }
    }
}

/// Fits and judges the protocol on every representation; the pretrained one is the classifier that is left.
pub(super) fn execute_frozen(protocol: Frozen<'_>, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let input = ctx.input("embeddings").ok_or_else(|| StageError::Config {
        message: "input `embeddings` is missing".into(),
        help: Some("name the `extract` stage under `inputs`".into()),
    })?;
    let embeddings = Embeddings::open(&input.dir)?;
    let card = embeddings.card();
    let class_names = &card.class_names[..card.num_train_classes as usize];
    let Labels { train, test, test_file_names } = usable_labels(&embeddings, ctx)?;
    let rows = stratified_subset(&train, protocol.label_fraction(), ctx.seed);
    let train: Vec<u32> = rows.iter().map(|&row| train[row]).collect();

    let names = std::iter::once(PRETRAINED).chain(card.representations.keys().map(String::as_str));
    let mut scores = BTreeMap::new();
    for name in names {
        if scores.contains_key(name) {
            continue;
        }
        let Some(representation) = embeddings.representation(name)? else { continue };
        let task = Task { train_labels: &train, rows: &rows, num_classes: class_names.len(), representation };
        let (head, solver) = task.fit(protocol, ctx)?;
        let probabilities = task.probabilities(&head, ctx)?;
        let scored = score(&probabilities, &test, class_names.len(), ctx.seed)?;
        ctx.reporter.info(&line_of(name, &scored));
        if name == PRETRAINED {
            save_predictions(ctx.out_dir, test_file_names, &test, &probabilities, class_names)?;
            let classifier = ClassifierCard {
                format: CLASSIFIER_FORMAT,
                protocol: protocol.name().into(),
                class_names: class_names.to_vec(),
                feature_dim: card.feature_dim,
                head: head.card(),
                backbone: card.encoder.backbone,
                preprocessing: card.preprocessing(),
                solver,
            };
            save_classifier(ctx.out_dir, &classifier, &head)?;
        }
        scores.insert(name.to_owned(), scored);
    }
    copy_file(&embeddings.dir().join(BACKBONE_FILE), &ctx.out_dir.join(BACKBONE_FILE))?;
    let metrics = ClassifierMetrics {
        format: METRICS_FORMAT,
        protocol: protocol.name().into(),
        class_names: class_names.to_vec(),
        num_train: train.len() as u64,
        num_test: test.len() as u64,
        label_fraction: protocol.label_fraction(),
        scores,
        history: vec![],
    };
    save_metrics(ctx.out_dir, &metrics)?;
    Ok(StageOutcome { metrics: headline(&metrics) })
}

/// Whether a better penalty may lie beyond those that were tried.
fn is_at_the_end(scores: &[CandidateScore], l2: f64) -> bool {
    scores.first().is_some_and(|first| first.l2 == l2) || scores.last().is_some_and(|last| last.l2 == l2)
}

fn line_of(name: &str, scores: &Scores) -> String {
    let percent = |share: f64| 100.0 * share;
    let [low, high] = scores.top1_interval.map(percent);
    format!("{name}: {:.1} % top-1 ({low:.1} to {high:.1})", percent(scores.top1))
}

/// Labels that fitting and judging can use.
struct Labels<'a> {
    train: Vec<u32>,
    test: Vec<u32>,
    test_file_names: &'a [String],
}

fn usable_labels<'a>(embeddings: &'a Embeddings, ctx: &StageContext<'_>) -> Result<Labels<'a>, StageError> {
    let card = embeddings.card();
    let labels = embeddings.labels()?;
    let data = |message: &str, help: &str| StageError::Data { message: message.into(), help: Some(help.into()) };
    let train = usable_train_labels(labels.train, &card.class_names, "`extract`")?;
    let test_file_names = card
        .test_file_names
        .as_deref()
        .filter(|files| !files.is_empty())
        .ok_or_else(|| data("the embeddings hold no test images", "give the `extract` stage the input `test`"))?;
    let test = labels.test.ok_or_else(|| {
        data("the test images have no labels", "give the `test` input of `extract` a folder of class folders")
    })?;
    let num_train_classes = card.num_train_classes as usize;
    check_test_labels(&test, &card.class_names, num_train_classes)?;
    let untested: Vec<&str> = (0..)
        .zip(&card.class_names[..num_train_classes])
        .filter(|(class, _)| train.contains(class) && !test.contains(class))
        .map(|(_, name)| name.as_str())
        .collect();
    if !untested.is_empty() {
        ctx.reporter.warn(&format!("no test images of {}", quoted(&untested)));
    }
    Ok(Labels { train, test, test_file_names })
}

/// One representation to fit and judge.
struct Task<'a> {
    train_labels: &'a [u32],
    /// Training rows whose labels may be used.
    rows: &'a [usize],
    num_classes: usize,
    representation: Representation,
}

impl Task<'_> {
    fn fit(&self, protocol: Frozen<'_>, ctx: &StageContext<'_>) -> Result<(Head, Option<SolverCard>), StageError> {
        let Representation { name, dim, train, .. } = &self.representation;
        let gathered: Vec<f32>;
        let features = if self.rows.len() * dim == train.len() {
            train
        } else {
            gathered = self.rows.iter().flat_map(|row| &train[row * dim..(row + 1) * dim]).copied().collect();
            &gathered
        };
        match protocol {
            Frozen::Knn(config) => {
                let knn = KnnClassifier::new(features, self.train_labels, *dim, self.num_classes, config)?;
                if knn.is_clamped() && name == PRETRAINED {
                    let (asked, found) = (config.k, knn.k());
                    ctx.reporter
                        .warn(&format!("`k` is {asked} but there are {found} training images: all of them vote"));
                }
                Ok((Head::Knn(knn), None))
            }
            Frozen::LinearProbe(config) => {
                let observe = &mut |progress: &Progress| {
                    let message = format!("{name}: loss {:.4}", progress.loss);
                    ctx.reporter.progress(
                        u64::from(progress.iterations),
                        u64::from(config.max_iter),
                        "iterations",
                        &message,
                    );
                    if ctx.reporter.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                let (labels, num_classes) = (self.train_labels, self.num_classes);
                let mut config = config.clone();
                let mut candidates = vec![];
                if let Some(validation) = config.cross_validation.take() {
                    let chosen =
                        choose_l2(features, labels, *dim, num_classes, &config, &validation, ctx.seed, observe)?;
                    let Some((l2, scores)) = chosen else { return Err(StageError::Cancelled) };
                    let held_out = scores.iter().find(|score| score.l2 == l2).map_or(0.0, |score| score.accuracy);
                    ctx.reporter.info(&format!(
                        "{name}: l2 = {l2:e}, with which {:.1} % of held-out training images are right",
                        100.0 * held_out
                    ));
                    if name == PRETRAINED && scores.len() > 1 && is_at_the_end(&scores, l2) {
                        ctx.reporter.warn(&format!(
                            "cross-validation chose the {} of the penalties, {l2:e}: add {} ones to \
                             `cross_validation.l2`",
                            if l2 == scores[0].l2 { "weakest" } else { "strongest" },
                            if l2 == scores[0].l2 { "weaker" } else { "stronger" },
                        ));
                    }
                    (config.l2, candidates) = (l2, scores);
                }
                let config = &config;
                let fit = fit_linear_probe(features, labels, *dim, num_classes, config, observe)?;
                let ProbeFit { classifier, progress, stop } = fit;
                match stop {
                    Stop::Cancelled => return Err(StageError::Cancelled),
                    Stop::MaxIter if name == PRETRAINED => ctx.reporter.warn(&format!(
                        "the linear probe used all {} iterations; its largest gradient is {:.1e} where `tolerance` is \
                         {:.1e}: raise `max_iter` or `l2`",
                        progress.iterations, progress.gradient_max, config.tolerance
                    )),
                    Stop::MaxIter | Stop::Converged | Stop::Stalled => {}
                }
                let solver = SolverCard {
                    l2: config.l2,
                    candidates,
                    iterations: progress.iterations,
                    loss: progress.loss,
                    gradient_max: progress.gradient_max,
                    converged: stop == Stop::Converged,
                };
                Ok((Head::Linear(classifier), Some(solver)))
            }
        }
    }

    /// Class probabilities of the test images.
    fn probabilities(&self, head: &Head, ctx: &StageContext<'_>) -> Result<Vec<f64>, StageError> {
        let Representation { name, dim, test, .. } = &self.representation;
        let test = test.as_deref().unwrap_or_default();
        let mut probabilities = vec![];
        for block in test.chunks(QUERY_ROWS * dim) {
            if ctx.reporter.is_cancelled() {
                return Err(StageError::Cancelled);
            }
            probabilities.extend(head.probabilities(block)?);
            let done = probabilities.len() / self.num_classes;
            ctx.reporter.progress(done as u64, (test.len() / dim) as u64, "test images", name);
        }
        Ok(probabilities)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Mutex};

    use super::*;
    use crate::{
        eval::{
            FitConfig,
            classifier_artifact::load_classifier,
            embeddings::{EMBEDDINGS_FORMAT, EmbeddingsCard, SplitLabels, save_embeddings, tests::save_sample},
        },
        stage::{
            StageReporter,
            extract_tests::{Inputs, SEED},
            fit::execute,
        },
    };

    #[derive(Default)]
    struct Recorder {
        warnings: Mutex<Vec<String>>,
        cancelled: bool,
    }

    impl StageReporter for Recorder {
        fn progress(&self, _: u64, _: u64, _: &str, _: &str) {}
        fn warn(&self, message: &str) {
            self.warnings.lock().unwrap().push(message.to_owned());
        }
        fn info(&self, _: &str) {}
        fn metric(&self, _: &str, _: u64, _: f64) {}
        fn is_cancelled(&self) -> bool {
            self.cancelled
        }
    }

    struct Ran {
        out: tempfile::TempDir,
        result: Result<StageOutcome, StageError>,
        warnings: Vec<String>,
    }

    impl Ran {
        fn metrics(&self) -> ClassifierMetrics {
            serde_json::from_str(&std::fs::read_to_string(self.out.path().join("metrics.json")).unwrap()).unwrap()
        }

        fn message(&self) -> String {
            self.result.as_ref().unwrap_err().to_string()
        }
    }

    fn run(embeddings: &Path, config: &FitConfig, cancelled: bool) -> Ran {
        let (out, reporter) = (tempfile::tempdir().unwrap(), Recorder { cancelled, ..Recorder::default() });
        let inputs = Inputs::new(&[("embeddings", embeddings)]);
        let result = execute(config, &inputs.context(out.path(), &reporter));
        Ran { out, result, warnings: reporter.warnings.into_inner().unwrap() }
    }

    fn sample() -> (tempfile::TempDir, EmbeddingsCard) {
        let dir = tempfile::tempdir().unwrap();
        let card = save_sample(dir.path(), &["forest", "sea", "street"], 120, 60);
        (dir, card)
    }

    fn rewrite(dir: &Path, card: &EmbeddingsCard) {
        std::fs::write(dir.join("embeddings.json"), serde_json::to_string(card).unwrap()).unwrap();
    }

    fn probe() -> FitConfig {
        FitConfig::LinearProbe(LinearProbeConfig::default())
    }

    fn knn(k: u32, label_fraction: f64) -> FitConfig {
        FitConfig::Knn(KnnConfig { k, label_fraction, ..KnnConfig::default() })
    }

    #[test]
    fn both_protocols_leave_a_classifier_that_repeats_its_predictions() {
        let (dir, card) = sample();
        for (config, protocol) in [(probe(), "linear_probe"), (knn(5, 1.0), "knn")] {
            let ran = run(dir.path(), &config, false);
            let outcome = ran.result.as_ref().unwrap();
            let keys: Vec<String> =
                ["raw_pixels_top1", "top1", "top5", "untrained_top1"].map(|key| format!("{protocol}/{key}")).into();
            assert_eq!(outcome.metrics.keys().cloned().collect::<Vec<_>>(), keys);
            let metrics = ran.metrics();
            assert_eq!((metrics.num_train, metrics.num_test, metrics.protocol.as_str()), (120, 60, protocol));
            assert!(metrics.scores["pretrained"].top1 > 0.9, "{:?}", metrics.scores["pretrained"]);
            assert_eq!(outcome.metrics[&format!("{protocol}/top1")], metrics.scores["pretrained"].top1);
            assert!(metrics.scores["pretrained"].top1 > metrics.scores["raw_pixels"].top1);

            let (classifier, head) = load_classifier(ran.out.path()).unwrap();
            assert_eq!(classifier.class_names, card.class_names);
            let representation = Embeddings::open(dir.path()).unwrap().representation(PRETRAINED).unwrap().unwrap();
            let probabilities = head.probabilities(&representation.test.unwrap()).unwrap();
            let labels = Embeddings::open(dir.path()).unwrap().labels().unwrap().test.unwrap();
            assert_eq!(score(&probabilities, &labels, 3, SEED).unwrap(), metrics.scores["pretrained"]);
            assert_eq!(std::fs::read(ran.out.path().join(BACKBONE_FILE)).unwrap(), b"weights");
            let csv = std::fs::read_to_string(ran.out.path().join("predictions.csv")).unwrap();
            assert_eq!(csv.lines().count(), 61);
            assert!(csv.contains("\"test/0, \"\"a\"\".jpg\",forest,forest,"), "{csv}");
        }
    }

    #[test]
    fn same_inputs_give_the_same_bytes() {
        let (dir, _) = sample();
        let (a, b) = (run(dir.path(), &probe(), false), run(dir.path(), &probe(), false));
        let mut files: Vec<_> =
            std::fs::read_dir(a.out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files.len(), 5, "{files:?}");
        for file in files {
            let read = |ran: &Ran| std::fs::read(ran.out.path().join(&file)).unwrap();
            assert_eq!(read(&a), read(&b), "{file:?}");
        }
    }

    #[test]
    fn label_fraction_limits_what_is_learned_from() {
        let (dir, _) = sample();
        let ran = run(dir.path(), &knn(20, 0.1), false);
        assert_eq!(ran.metrics().num_train, 12);
        assert_eq!(ran.warnings, ["`k` is 20 but there are 12 training images: all of them vote"]);
    }

    #[test]
    fn classes_that_training_never_saw_are_named() {
        let (dir, mut card) = sample();
        card.class_names[2] = "ocean".into();
        card.num_train_classes = 2;
        // The last class is now one of the test images only, so the training labels must go without it.
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let mut labels = embeddings.labels().unwrap();
        labels.train.as_mut().unwrap().iter_mut().for_each(|label| *label %= 2);
        let pretrained = embeddings.representation(PRETRAINED).unwrap().unwrap();
        drop(embeddings);
        save_embeddings(dir.path(), &card, &labels, &[pretrained]).unwrap();
        let ran = run(dir.path(), &probe(), false);
        assert_eq!(ran.message(), "there are test images of `ocean`, which no training image shows");
        assert!(ran.result.unwrap_err().help().unwrap().contains("`forest`, `sea`;"));
    }

    #[test]
    fn a_class_without_test_images_is_mentioned() {
        let (dir, card) = sample();
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let mut labels = embeddings.labels().unwrap();
        labels.test.as_mut().unwrap().fill(1);
        let representations: Vec<Representation> = ["pretrained", "raw_pixels", "untrained"]
            .iter()
            .map(|name| embeddings.representation(name).unwrap().unwrap())
            .collect();
        drop(embeddings);
        save_embeddings(dir.path(), &card, &labels, &representations).unwrap();
        let ran = run(dir.path(), &knn(5, 1.0), false);
        assert!(ran.result.is_ok());
        assert_eq!(ran.warnings, ["no test images of `forest`, `street`"]);
    }

    #[test]
    fn missing_labels_and_test_images_are_explained() {
        let (dir, card) = sample();
        let with = |change: &dyn Fn(&mut EmbeddingsCard)| {
            let mut card = card.clone();
            change(&mut card);
            rewrite(dir.path(), &card);
            run(dir.path(), &knn(3, 1.0), false)
        };
        assert_eq!(with(&|card| card.train_labelled = false).message(), "the training images have no labels");
        assert_eq!(with(&|card| card.test_labelled = false).message(), "the test images have no labels");
        let ran = with(&|card| (card.test_file_names, card.test_labelled) = (None, false));
        assert_eq!(ran.message(), "the embeddings hold no test images");
        assert!(ran.result.unwrap_err().help().unwrap().contains("input `test`"));
    }

    #[test]
    fn one_class_is_not_a_task() {
        let dir = tempfile::tempdir().unwrap();
        let card = save_sample(dir.path(), &["forest"], 10, 4);
        assert_eq!(card.format, EMBEDDINGS_FORMAT);
        for config in [probe(), knn(3, 1.0)] {
            let ran = run(dir.path(), &config, false);
            assert_eq!(ran.message(), "all training images are of one class, `forest`: there is nothing to tell apart");
        }
    }

    #[test]
    fn embeddings_that_are_not_finite_are_refused() {
        let (dir, card) = sample();
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let mut pretrained = embeddings.representation(PRETRAINED).unwrap().unwrap();
        let labels: SplitLabels = embeddings.labels().unwrap();
        drop(embeddings);
        pretrained.train[25] = f32::INFINITY;
        save_embeddings(dir.path(), &card, &labels, &[pretrained]).unwrap();
        let ran = run(dir.path(), &probe(), false);
        assert!(ran.message().ends_with("row 2, column 1"), "{}", ran.message());
        assert!(ran.result.unwrap_err().help().unwrap().contains("diverged"));
    }

    #[test]
    fn stops_on_request() {
        let (dir, _) = sample();
        for config in [probe(), knn(3, 1.0)] {
            assert!(matches!(run(dir.path(), &config, true).result, Err(StageError::Cancelled)));
        }
    }

    #[test]
    fn a_short_fit_says_so() {
        let (dir, _) = sample();
        let config = FitConfig::LinearProbe(LinearProbeConfig { max_iter: 2, ..LinearProbeConfig::default() });
        let ran = run(dir.path(), &config, false);
        assert_eq!(ran.warnings.len(), 1);
        assert!(ran.warnings[0].contains("used all 2 iterations"), "{:?}", ran.warnings);
    }
}
