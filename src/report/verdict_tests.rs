use super::*;
use crate::report::summary::CurvePoint;

pub(in super::super) fn scores(representation: &str, top1: f64, half: f64) -> RepresentationScores {
    RepresentationScores {
        representation: representation.into(),
        top1,
        top1_interval: [top1 - half, top1 + half],
        top5: 1.0,
        balanced_accuracy: top1,
        log_loss: 0.5,
        expected_calibration_error: 0.03,
    }
}

pub(in super::super) fn classifier(protocol: &str, scores: Vec<RepresentationScores>) -> ClassifierSummary {
    ClassifierSummary {
        stage: protocol.into(),
        protocol: protocol.into(),
        num_train: 1_800,
        num_test: 600,
        label_fraction: 1.0,
        largest_class_share: 0.2,
        comparisons: if protocol == "supervised" || protocol == "fine_tune" { vec![] } else { compare(&scores) },
        scores,
        per_class: vec![],
        confusion: None,
        confused_pairs: vec![],
        mistakes: vec![],
        curve: vec![],
    }
}

fn probe(pretrained: f64, untrained: f64, raw: f64) -> ClassifierSummary {
    let half = 0.03;
    classifier(
        "linear_probe",
        vec![
            scores("pretrained", pretrained, half),
            scores("untrained", untrained, half),
            scores("raw_pixels", raw, half),
        ],
    )
}

fn run(steps: u64, ratio: f64, losses: &[f64]) -> PretrainingSummary {
    let curve = losses
        .iter()
        .enumerate()
        .map(|(idx, &loss)| CurvePoint {
            epoch: idx as u32 + 1,
            step: (idx as u64 + 1) * 10,
            loss,
            embedding_std_ratio: ratio,
            lr: 0.05,
            predictor_lr: 0.05,
            knn_top1: None,
        })
        .collect();
    PretrainingSummary {
        stage: "pretrain".into(),
        backbone: "ResNet-18".into(),
        feature_dim: 512,
        projector: String::new(),
        predictor: String::new(),
        image_size: 64,
        seed: 0,
        epochs: losses.len() as u32,
        steps,
        batch_size: Some(256),
        base_lr: Some(0.05),
        stopped_early: false,
        final_loss: losses.last().copied().unwrap_or(0.0),
        final_embedding_std_ratio: ratio,
        final_knn_top1: None,
        warnings: vec![],
        curve,
    }
}

fn judged(run: Option<&PretrainingSummary>, classifiers: &[ClassifierSummary]) -> Verdict {
    judge(run, classifiers, COLLAPSED_BELOW, &AdviceInputs::default())
}

fn says(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

#[test]
fn far_above_both_baselines_is_clear() {
    let verdict = judged(Some(&run(100_000, 0.9, &[-0.3, -0.8])), &[probe(0.80, 0.60, 0.50)]);
    assert_eq!(verdict.learned, Learned::Clearly);
    assert_eq!(verdict.collapse, CollapseState::Healthy);
    assert!(verdict.headline.starts_with("It learned: 80.0"), "{}", verdict.headline);
    assert!(says(&verdict.findings, "clearly better than the same network untrained (+20.0"));
    assert!(says(&verdict.findings, "600 test images"));
}

#[test]
fn within_the_interval_is_only_perhaps() {
    let verdict = judged(None, &[probe(0.63, 0.60, 0.40)]);
    assert_eq!(verdict.learned, Learned::Perhaps);
    assert!(verdict.headline.starts_with("Perhaps it learned"));
    assert!(says(&verdict.advice, "Judge on more test images: with 600"));
}

#[test]
fn below_the_untrained_network_is_no() {
    let verdict = judged(Some(&run(500, 0.9, &[-0.3, -0.8])), &[probe(0.58, 0.60, 0.40)]);
    assert_eq!(verdict.learned, Learned::No);
    assert!(verdict.headline.starts_with("Not yet"));
    assert!(says(&verdict.findings, "not better than the same network untrained"));
    assert!(says(&verdict.advice, "500 steps were run"));
    assert!(says(&verdict.advice, "78,000"));
}

#[test]
fn clearly_below_says_so() {
    let verdict = judged(None, &[probe(0.30, 0.60, 0.40)]);
    assert!(says(&verdict.findings, "clearly worse than the same network untrained"));
}

#[test]
fn better_than_untrained_but_not_than_pixels_is_something() {
    let verdict = judged(None, &[probe(0.60, 0.40, 0.62)]);
    assert_eq!(verdict.learned, Learned::Perhaps);
    assert!(verdict.headline.contains("raw pixels still do as well"), "{}", verdict.headline);
}

#[test]
fn equal_scores_are_no_evidence() {
    assert_eq!(judged(None, &[probe(0.5, 0.5, 0.5)]).learned, Learned::No);
}

#[test]
fn contradicting_protocols_leave_a_doubt() {
    let knn = classifier("knn", vec![scores("pretrained", 0.4, 0.03), scores("untrained", 0.5, 0.03)]);
    assert_eq!(judged(None, &[probe(0.8, 0.6, 0.5), knn]).learned, Learned::Perhaps);
}

#[test]
fn without_baselines_nothing_is_claimed() {
    let alone = classifier("linear_probe", vec![scores("pretrained", 0.8, 0.03)]);
    let verdict = judged(None, &[alone]);
    assert_eq!(verdict.learned, Learned::Unknown);
    assert!(verdict.headline.contains("nothing to compare"));
    assert!(says(&verdict.advice, "baselines"));
}

#[test]
fn nothing_at_all_is_said_plainly() {
    let verdict = judged(None, &[]);
    assert_eq!((verdict.learned, verdict.collapse), (Learned::Unknown, CollapseState::Unknown));
    assert!(verdict.headline.contains("no pretraining"));
    assert!(verdict.advice.is_empty());
}

#[test]
fn pretraining_alone_asks_for_a_probe() {
    let verdict = judged(Some(&run(100, 0.9, &[-0.3])), &[]);
    assert!(verdict.headline.contains("100 steps"));
    assert!(says(&verdict.advice, "linear_probe"));
}

#[test]
fn collapse_comes_first() {
    let verdict = judged(Some(&run(5_000, 0.02, &[-0.9, -1.0])), &[probe(0.2, 0.5, 0.4)]);
    assert_eq!(verdict.collapse, CollapseState::Collapsed);
    assert!(verdict.headline.contains("collapsed"));
    assert!(verdict.advice[0].contains("Lower the learning rate"));
    assert!(verdict.advice[0].contains("0.0167"));
}

#[test]
fn collapse_names_its_likely_causes() {
    let inputs =
        AdviceInputs { predictor_lr_fixed: Some(false), projector_output_bn: Some(false), ..AdviceInputs::default() };
    let verdict = judge(Some(&run(5_000, 0.02, &[-1.0])), &[], COLLAPSED_BELOW, &inputs);
    assert!(says(&verdict.advice, "predictor_lr to fixed"));
    assert!(says(&verdict.advice, "output_bn to true"));
}

#[test]
fn states_follow_the_ratio() {
    assert_eq!(collapse_state(0.0, 0.1), CollapseState::Collapsed);
    assert_eq!(collapse_state(f64::NAN, 0.1), CollapseState::Collapsed);
    assert_eq!(collapse_state(0.1, 0.1), CollapseState::Partial);
    assert_eq!(collapse_state(0.3, 0.1), CollapseState::Healthy);
    assert_eq!(collapse_state(0.4, 0.5), CollapseState::Collapsed);
    assert_eq!(collapse_state(1.0, 0.0), CollapseState::Healthy);
}

#[test]
fn idle_epochs_are_named() {
    let mut idle = run(900, 0.9, &[-0.3, -0.6, -0.7, -0.7]);
    for point in &mut idle.curve[2..] {
        (point.lr, point.predictor_lr) = (0.0, 0.0);
    }
    assert!(says(&judged(Some(&idle), &[]).advice, "was 0 in the last 2 of 4 epochs, which changed nothing"));
    for point in &mut idle.curve[2..] {
        point.predictor_lr = 0.05;
    }
    assert!(says(&judged(Some(&idle), &[]).advice, "only the predictor learned"));
}

#[test]
fn a_cosine_that_ends_at_zero_is_no_waste() {
    let mut cosine = run(100_000, 0.9, &[-0.3, -0.6, -0.7]);
    cosine.curve[2].lr = 0.0;
    assert!(!says(&judged(Some(&cosine), &[]).advice, "learning rate"));
}

#[test]
fn a_rising_loss_asks_for_a_lower_rate() {
    assert!(says(&judged(Some(&run(9_000, 0.9, &[-0.3, -0.8, -0.5])), &[]).advice, "The loss rose again"));
}

#[test]
fn a_flat_loss_asks_for_a_higher_rate() {
    let flat = run(9_000, 0.9, &[-0.10, -0.11, -0.11, -0.12, -0.12]);
    assert!(says(&judged(Some(&flat), &[]).advice, "hardly fell"));
}

#[test]
fn rising_knn_asks_for_more_epochs() {
    let mut rising = run(100_000, 0.9, &[-0.3, -0.6, -0.7, -0.75, -0.8, -0.82]);
    for (idx, point) in rising.curve.iter_mut().enumerate() {
        point.knn_top1 = Some(0.4 + 0.03 * idx as f64);
    }
    let verdict = judged(Some(&rising), &[probe(0.8, 0.6, 0.5)]);
    assert!(says(&verdict.advice, "still rose by 6.0 points"), "{:?}", verdict.advice);
    assert!(says(&verdict.findings, "from 40.0"));
}

#[test]
fn large_images_are_measured_by_imagenet() {
    let mut large = run(1_000, 0.9, &[-0.5]);
    large.image_size = 224;
    assert!(says(&judged(Some(&large), &[]).advice, "250,000"));
}

#[test]
fn odd_batches_are_named() {
    let mut small = run(100_000, 0.9, &[-0.5]);
    small.batch_size = Some(8);
    assert!(says(&judged(Some(&small), &[]).advice, "8 images make batch norm"));
    small.batch_size = Some(4096);
    assert!(says(&judged(Some(&small), &[]).advice, "4,096"));
    small.batch_size = None;
    assert!(!says(&judged(Some(&small), &[]).advice, "batch"));
}

#[test]
fn weak_augmentation_is_named() {
    let ops = ["horizontal_flip".to_owned()];
    let inputs = AdviceInputs { ops: Some(&ops), ..AdviceInputs::default() };
    let verdict = judge(Some(&run(100_000, 0.9, &[-0.99])), &[], COLLAPSED_BELOW, &inputs);
    assert!(says(&verdict.advice, "random_resized_crop"));
    assert!(says(&verdict.advice, "color_jitter"));
}

#[test]
fn views_that_are_too_alike_are_named() {
    assert!(says(&judged(Some(&run(100_000, 0.9, &[-0.99])), &[]).advice, "too alike"));
}

#[test]
fn skipped_files_are_mentioned() {
    let inputs = AdviceInputs { num_skipped: 3, ..AdviceInputs::default() };
    assert!(says(&judge(None, &[], COLLAPSED_BELOW, &inputs).advice, "3 files could not be read"));
}

#[test]
fn fine_tuning_is_compared_with_scratch() {
    let tuned = classifier("fine_tune", vec![scores("fine_tune", 0.85, 0.02)]);
    let scratch = classifier("supervised", vec![scores("supervised", 0.70, 0.02)]);
    assert!(says(&judged(None, &[tuned.clone(), scratch.clone()]).findings, "clearly helps"));
    let mut fewer = scratch;
    fewer.label_fraction = 0.05;
    assert!(judged(None, &[tuned, fewer]).findings.is_empty());
}

#[test]
fn the_probe_with_the_most_labels_leads() {
    let knn = classifier("knn", vec![scores("pretrained", 0.9, 0.03)]);
    let mut few = probe(0.5, 0.4, 0.3);
    few.num_train = 90;
    let all = [knn, few, probe(0.8, 0.6, 0.5)];
    assert_eq!(lead_classifier(&all).and_then(ClassifierSummary::main).map(|s| s.top1), Some(0.8));
    assert!(lead_classifier(&[]).is_none());
}

#[test]
fn the_interval_of_a_difference_adds_in_squares() {
    let both = compare(&[scores("pretrained", 0.8, 0.03), scores("untrained", 0.7, 0.04)]);
    assert!((both[0].interval[0] - 0.05).abs() < 1e-12 && (both[0].interval[1] - 0.15).abs() < 1e-12);
}

#[test]
fn of_a_matrix_the_best_run_speaks_and_the_others_are_counted() {
    let cell = |lr: &str, top1: f64| ClassifierSummary { stage: format!("probe@lr={lr}"), ..probe(top1, 0.6, 0.5) };
    let verdict = judged(None, &[cell("0.1", 0.4), cell("0.2", 0.8), cell("0.3", 0.61)]);
    // The bad rate leaves no doubt about the good one.
    assert_eq!(verdict.learned, Learned::Clearly);
    assert!(verdict.headline.contains("80.0") && verdict.headline.contains("best of 3 runs: lr=0.2"), "{verdict:?}");
    assert!(says(&verdict.findings, "The 3 runs reach 40.0"));
    assert!(says(&verdict.findings, "one is clearly above every baseline"));
    assert_eq!(verdict.findings.iter().filter(|line| line.contains("600 test images")).count(), 1, "{verdict:?}");
}
