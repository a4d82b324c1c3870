//! From class probabilities to scores.
//!
//! Equal to scikit-learn's `accuracy_score`, `top_k_accuracy_score`, `balanced_accuracy_score`,
//! `precision_recall_fscore_support`, `confusion_matrix` and `log_loss`, except where classes are exactly as
//! probable as each other: there the lower index wins, as in `numpy.argmax`.

use rayon::prelude::*;

use super::{
    classifier_metrics::{ClassScores, Scores},
    eval_error::{EvalError, check_labels, check_length},
};
use crate::seed::{below, seeded_rng};

const NUM_CALIBRATION_BINS: usize = 15;
const NUM_RESAMPLES: u64 = 1_000;

/// Scores of `probabilities` [n, num_classes] against `labels` `[n]`; `seed` decides the bootstrap.
///
/// # Errors
/// Where there are no rows, lengths do not fit, a label names no class, or a probability is not finite.
pub fn score(probabilities: &[f64], labels: &[u32], num_classes: usize, seed: u64) -> Result<Scores, EvalError> {
    if labels.is_empty() || num_classes == 0 {
        return Err(EvalError::Empty { what: "the set of test images" });
    }
    check_length("the table of probabilities", labels.len() * num_classes, probabilities.len())?;
    check_labels(labels, num_classes)?;
    if let Some(idx) = probabilities.iter().position(|p| !p.is_finite()) {
        return Err(EvalError::NotFinite {
            what: "the table of probabilities".into(),
            row: idx / num_classes,
            column: idx % num_classes,
        });
    }

    let rows = || probabilities.chunks_exact(num_classes).zip(labels);
    let predicted = predicted_classes(probabilities, num_classes);
    let correct: Vec<bool> = predicted.iter().zip(labels).map(|(predicted, label)| predicted == label).collect();
    let mut confusion = vec![vec![0_u64; num_classes]; num_classes];
    for (&label, &predicted) in labels.iter().zip(&predicted) {
        confusion[label as usize][predicted as usize] += 1;
    }
    let per_class = per_class(&confusion);
    let occurring: Vec<f64> = per_class.iter().filter(|class| class.support > 0).map(|class| class.recall).collect();
    let in_top5 = rows().filter(|(row, label)| rank(row, **label as usize) < 5).count();

    Ok(Scores {
        top1: share(&correct),
        top1_interval: bootstrap_interval(&correct, seed),
        top5: in_top5 as f64 / labels.len() as f64,
        balanced_accuracy: occurring.iter().sum::<f64>() / occurring.len() as f64,
        log_loss: total_log_loss(probabilities, labels, num_classes) / labels.len() as f64,
        expected_calibration_error: calibration_error(
            probabilities.chunks_exact(num_classes).map(|row| row.iter().copied().fold(f64::MIN, f64::max)),
            &correct,
        ),
        per_class,
        confusion,
    })
}

/// The most probable class of each row of `probabilities` [n, num_classes]; of equals the lowest index.
pub fn predicted_classes(probabilities: &[f64], num_classes: usize) -> Vec<u32> {
    probabilities
        .chunks_exact(num_classes)
        .map(|row| {
            let mut best = 0;
            for (class, &p) in row.iter().enumerate() {
                if p > row[best] {
                    best = class;
                }
            }
            best as u32
        })
        .collect()
}

/// Σ −log p(true class) over the rows of `probabilities` [n, num_classes], probabilities clipped as scikit-learn clips them.
pub fn total_log_loss(probabilities: &[f64], labels: &[u32], num_classes: usize) -> f64 {
    probabilities.chunks_exact(num_classes).zip(labels).map(|(row, &label)| -clip(row[label as usize]).ln()).sum()
}

/// Number of classes before `class`: more probable, or as probable and of lower index.
fn rank(row: &[f64], class: usize) -> usize {
    row.iter().enumerate().filter(|&(other, &p)| p > row[class] || (p == row[class] && other < class)).count()
}

/// As scikit-learn clips f64 probabilities before the logarithm.
fn clip(p: f64) -> f64 {
    p.clamp(f64::EPSILON, 1.0 - f64::EPSILON)
}

fn share(correct: &[bool]) -> f64 {
    correct.iter().filter(|&&correct| correct).count() as f64 / correct.len() as f64
}

fn per_class(confusion: &[Vec<u64>]) -> Vec<ClassScores> {
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    confusion
        .iter()
        .enumerate()
        .map(|(class, row)| {
            let support: u64 = row.iter().sum();
            let taken: u64 = confusion.iter().map(|row| row[class]).sum();
            ClassScores {
                precision: ratio(row[class], taken),
                recall: ratio(row[class], support),
                f1: ratio(2 * row[class], taken + support),
                support,
            }
        })
        .collect()
}

/// Guo et al. 2017, equation 3: bins (0, 1/15], (1/15, 2/15], …; the weighted mean distance between how
/// often a bin is right and how sure it is.
fn calibration_error(confidences: impl Iterator<Item = f64>, correct: &[bool]) -> f64 {
    let mut bins = [(0.0, 0.0); NUM_CALIBRATION_BINS];
    for (confidence, &correct) in confidences.zip(correct) {
        let upper_edge = |bin: usize| (bin + 1) as f64 / NUM_CALIBRATION_BINS as f64;
        let bin = (0..NUM_CALIBRATION_BINS - 1).find(|&bin| confidence <= upper_edge(bin));
        let bin = &mut bins[bin.unwrap_or(NUM_CALIBRATION_BINS - 1)];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(correct));
    }
    bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum::<f64>() / correct.len() as f64
}

/// 2.5 % and 97.5 % quantiles (numpy's linear interpolation) of the accuracy over resamples with replacement.
fn bootstrap_interval(correct: &[bool], seed: u64) -> [f64; 2] {
    let mut accuracies: Vec<f64> = (0..NUM_RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut rng = seeded_rng(seed, "bootstrap", &[resample]);
            let right = (0..correct.len()).filter(|_| correct[below(&mut rng, correct.len() as u64) as usize]).count();
            right as f64 / correct.len() as f64
        })
        .collect();
    accuracies.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| {
        let place = q * (accuracies.len() - 1) as f64;
        let (low, high) = (accuracies[place.floor() as usize], accuracies[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    [quantile(0.025), quantile(0.975)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        num_classes: usize,
        labels: Vec<u32>,
        probabilities: Vec<f64>,
        top1: f64,
        top5: f64,
        balanced_accuracy: f64,
        log_loss: f64,
        expected_calibration_error: f64,
        precision: Vec<f64>,
        recall: Vec<f64>,
        f1: Vec<f64>,
        support: Vec<u64>,
        confusion: Vec<Vec<u64>>,
    }

    #[track_caller]
    fn close(ours: f64, theirs: f64) {
        assert!((ours - theirs).abs() < 1e-9, "{ours} is not {theirs}");
    }

    #[test]
    fn scores_equal_scikit_learn() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("../../tests/golden/eval/metrics.json")).unwrap();
        assert!(cases.len() >= 7);
        for golden in cases {
            let ours = score(&golden.probabilities, &golden.labels, golden.num_classes, 0).unwrap();
            close(ours.top1, golden.top1);
            close(ours.top5, golden.top5);
            close(ours.balanced_accuracy, golden.balanced_accuracy);
            close(ours.log_loss, golden.log_loss);
            close(ours.expected_calibration_error, golden.expected_calibration_error);
            assert_eq!(ours.confusion, golden.confusion);
            for (class, scores) in ours.per_class.iter().enumerate() {
                close(scores.precision, golden.precision[class]);
                close(scores.recall, golden.recall[class]);
                close(scores.f1, golden.f1[class]);
                assert_eq!(scores.support, golden.support[class]);
            }
        }
    }

    #[test]
    fn a_confidence_on_an_edge_belongs_to_the_bin_below() {
        // 0.6 is 9/15: alone in its bin, and 0.61 in the next. Were they in one bin, right and wrong would cancel.
        let error = calibration_error([0.6, 0.61].into_iter(), &[true, false]);
        close(error, f64::midpoint(0.4, 0.61));
        let error = calibration_error([0.59, 0.6].into_iter(), &[true, false]);
        close(error, (1.0_f64 - 0.59 - 0.6).abs() / 2.0);
        close(calibration_error([1.0, 0.0].into_iter(), &[true, false]), 0.0);
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        // 300 test sets of 120 images by a classifier that is right seven times in ten.
        let covers = |set: u64| {
            let mut rng = seeded_rng(set, "coverage", &[]);
            let correct: Vec<bool> = (0..120).map(|_| below(&mut rng, 10) < 7).collect();
            let [low, high] = bootstrap_interval(&correct, set);
            low <= 0.7 && 0.7 <= high
        };
        let covered = (0..300).filter(|&set| covers(set)).count();
        // 95 %, give or take three deviations.
        assert!((273..=296).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn of_equal_classes_the_lowest_index_wins() {
        assert_eq!(predicted_classes(&[0.25, 0.375, 0.375, 0.0, 0.0, 0.0], 3), [1, 0]);
        assert_eq!((rank(&[0.2; 6], 0), rank(&[0.2; 6], 5)), (0, 5));
    }

    #[test]
    fn fewer_than_five_classes_are_always_in_the_top_five() {
        assert_eq!(score(&[0.9, 0.1, 0.9, 0.1], &[1, 1], 2, 0).unwrap().top5, 1.0);
    }

    #[test]
    fn the_interval_is_about_that_of_the_normal_approximation() {
        let correct: Vec<bool> = (0..1_000).map(|row| row % 4 != 0).collect();
        let [low, high] = bootstrap_interval(&correct, 5);
        // 0.75 ± 1.96 · √(0.75 · 0.25 / 1000)
        assert!((low - 0.7232).abs() < 0.004 && (high - 0.7768).abs() < 0.004, "{low} {high}");
        assert_eq!(bootstrap_interval(&[true; 9], 1), [1.0, 1.0]);
    }

    #[test]
    fn impossible_tables_are_refused() {
        assert!(matches!(score(&[], &[], 3, 0), Err(EvalError::Empty { .. })));
        assert!(matches!(score(&[0.5], &[0], 2, 0), Err(EvalError::Length { expected: 2, found: 1, .. })));
        assert!(matches!(score(&[0.5, 0.5], &[2], 2, 0), Err(EvalError::Label { label: 2, .. })));
        assert!(matches!(score(&[0.5, f64::NAN], &[1], 2, 0), Err(EvalError::NotFinite { row: 0, column: 1, .. })));
    }

    proptest! {
        #[test]
        fn scores_agree_with_each_other(
            num_classes in 1..9_usize,
            raw in prop::collection::vec((prop::collection::vec(0.0..1.0_f64, 9), any::<u32>()), 1..60),
        ) {
            let mut probabilities = vec![];
            for (row, _) in &raw {
                let total: f64 = row[..num_classes].iter().sum::<f64>().max(1e-9);
                probabilities.extend(row[..num_classes].iter().map(|p| p / total));
            }
            let labels: Vec<u32> = raw.iter().map(|(_, label)| label % num_classes as u32).collect();
            let scores = score(&probabilities, &labels, num_classes, 1).unwrap();
            let trace: u64 = (0..num_classes).map(|class| scores.confusion[class][class]).sum();
            prop_assert!((scores.top1 - trace as f64 / labels.len() as f64).abs() < 1e-12);
            prop_assert_eq!(scores.confusion.iter().flatten().sum::<u64>(), labels.len() as u64);
            prop_assert!(scores.top5 >= scores.top1 && scores.top5 <= 1.0);
            prop_assert!(scores.top1_interval[0] <= scores.top1 && scores.top1 <= scores.top1_interval[1]
                || labels.len() < 8);
            prop_assert!((0.0..=1.0).contains(&scores.expected_calibration_error));
            // Weighted by support, recall is accuracy.
            let recalled: f64 = scores.per_class.iter().map(|class| class.recall * class.support as f64).sum();
            prop_assert!((recalled / labels.len() as f64 - scores.top1).abs() < 1e-9);
        }
    }
}
