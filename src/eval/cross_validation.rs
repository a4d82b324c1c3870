//! Choosing the probe's penalty from the training embeddings alone, by stratified k-fold cross-validation.

use std::ops::ControlFlow;

use super::{
    eval_config::{CrossValidationConfig, LinearProbeConfig},
    eval_error::EvalError,
    label_subset::rows_by_class,
    linear_probe::{Progress, fit_linear_probes},
    metrics::{predicted_classes, total_log_loss},
};
use crate::seed::{below, seeded_rng};

/// How one penalty did on rows that its fits had not seen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateScore {
    /// The penalty.
    pub l2: f64,
    /// Share of held-out rows whose class was found.
    pub accuracy: f64,
    /// Mean cross-entropy of held-out rows.
    pub log_loss: f64,
}

/// The penalty with the highest accuracy on held-out rows, of equals the one with the lower log-loss, and the scores of
/// all candidates in ascending order. Nothing but training rows is seen. `None` where `observe` ended it.
///
/// # Errors
/// As [`super::linear_probe::fit_linear_probe`], for the rows of any fold.
#[allow(clippy::too_many_arguments, reason = "a table, its labels, and how to choose")]
pub fn choose_l2(
    features: &[f32],
    labels: &[u32],
    dim: usize,
    num_classes: usize,
    config: &LinearProbeConfig,
    validation: &CrossValidationConfig,
    seed: u64,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<(f64, Vec<CandidateScore>)>, EvalError> {
    let mut candidates = validation.l2.clone();
    // From strong to weak: each fit begins where the one before it ended.
    candidates.sort_by(|a, b| b.total_cmp(a));
    candidates.dedup();
    let fold_of = stratified_folds(labels, validation.folds as usize, seed);
    let folds = fold_of.iter().max().map_or(0, |fold| fold + 1);
    let mut hits = vec![0_usize; candidates.len()];
    let mut losses = vec![0.0; candidates.len()];
    for fold in 0..folds {
        let rows = |held_out: bool| -> (Vec<f32>, Vec<u32>) {
            let rows = (0..labels.len()).filter(|&row| (fold_of[row] == fold) == held_out);
            let rows: Vec<usize> = rows.collect();
            let features = rows.iter().flat_map(|&row| &features[row * dim..(row + 1) * dim]).copied().collect();
            (features, rows.iter().map(|&row| labels[row]).collect())
        };
        let ((train, train_labels), (test, test_labels)) = (rows(false), rows(true));
        let Some(fits) = fit_linear_probes(&train, &train_labels, dim, num_classes, config, &candidates, observe)?
        else {
            return Ok(None);
        };
        for ((fit, hits), loss) in fits.iter().zip(&mut hits).zip(&mut losses) {
            let probabilities = fit.classifier.probabilities(&test)?;
            let predicted = predicted_classes(&probabilities, num_classes);
            *hits += predicted.iter().zip(&test_labels).filter(|(predicted, label)| predicted == label).count();
            *loss += total_log_loss(&probabilities, &test_labels, num_classes);
        }
    }
    let n = labels.len() as f64;
    let mut scores: Vec<CandidateScore> = candidates
        .iter()
        .zip(hits.iter().zip(&losses))
        .map(|(&l2, (&hits, &loss))| CandidateScore { l2, accuracy: hits as f64 / n, log_loss: loss / n })
        .collect();
    scores.reverse();
    let better = |a: &&CandidateScore, b: &&CandidateScore| {
        a.accuracy.total_cmp(&b.accuracy).then(b.log_loss.total_cmp(&a.log_loss))
    };
    let best = scores.iter().max_by(better).map_or(config.l2, |score| score.l2);
    Ok(Some((best, scores)))
}

/// The fold of each row: the rows of a class are shuffled and dealt out in turn, so folds differ by at most a row in
/// each class. There are never more folds than rows.
fn stratified_folds(labels: &[u32], folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.min(labels.len()).max(1);
    let mut fold_of = vec![0; labels.len()];
    let mut next = 0;
    for (class, mut rows) in rows_by_class(labels).into_iter().enumerate() {
        let mut rng = seeded_rng(seed, "cross-validation", &[class as u64]);
        for place in (1..rows.len()).rev() {
            rows.swap(place, below(&mut rng, place as u64 + 1) as usize);
        }
        for row in rows {
            fold_of[row] = next % folds;
            next += 1;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two informative dimensions among noise, few rows: a weak penalty learns the noise.
    fn noisy(n: usize, dim: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = seeded_rng(seed, "noise", &[]);
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
        let features = labels
            .iter()
            .flat_map(|&label| {
                (0..dim)
                    .map(|d| {
                        let noise: f64 = (0..6).map(|_| crate::seed::unit(&mut rng) - 0.5).sum();
                        (noise + if d == label as usize { 0.8 } else { 0.0 }) as f32
                    })
                    .collect::<Vec<f32>>()
            })
            .collect();
        (features, labels)
    }

    fn quiet() -> impl FnMut(&Progress) -> ControlFlow<()> {
        |_| ControlFlow::Continue(())
    }

    #[test]
    fn folds_hold_equal_shares_of_each_class() {
        let labels: Vec<u32> = (0..103).map(|i| u32::from(i % 4 == 0)).collect();
        let folds = stratified_folds(&labels, 5, 1);
        for class in 0..2 {
            let counts: Vec<usize> =
                (0..5).map(|fold| (0..103).filter(|&row| labels[row] == class && folds[row] == fold).count()).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        assert_eq!(folds, stratified_folds(&labels, 5, 1));
        assert_ne!(folds, stratified_folds(&labels, 5, 2));
        assert_eq!(stratified_folds(&[0, 1], 5, 1).iter().max(), Some(&1));
    }

    #[test]
    fn noise_wants_a_penalty_and_the_choice_holds_on_new_rows() {
        let (features, labels) = noisy(90, 60, 1);
        let (new_features, new_labels) = noisy(600, 60, 2);
        let config = LinearProbeConfig::default();
        let validation = CrossValidationConfig { folds: 5, l2: vec![1e-6, 1e-3, 1e-1, 1e-2] };
        let chosen = choose_l2(&features, &labels, 60, 3, &config, &validation, 7, &mut quiet()).unwrap().unwrap();
        let (l2, scores) = chosen;
        assert!(l2 > 1e-6, "{scores:?}");
        assert!(scores.windows(2).all(|pair| pair[0].l2 < pair[1].l2));
        let accuracy = |l2: f64| {
            let fits = fit_linear_probes(&features, &labels, 60, 3, &config, &[l2], &mut quiet()).unwrap().unwrap();
            let predicted = predicted_classes(&fits[0].classifier.probabilities(&new_features).unwrap(), 3);
            predicted.iter().zip(&new_labels).filter(|(p, l)| p == l).count()
        };
        assert!(accuracy(l2) > accuracy(1e-6));
    }

    #[test]
    fn it_can_be_ended() {
        let (features, labels) = noisy(30, 4, 1);
        let config = LinearProbeConfig::default();
        let mut stop = |_: &Progress| ControlFlow::Break(());
        let validation = CrossValidationConfig::default();
        assert_eq!(choose_l2(&features, &labels, 4, 3, &config, &validation, 7, &mut stop).unwrap(), None);
    }
}
