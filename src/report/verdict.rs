//! The answer in plain words: did it learn, did it collapse.
//!
//! A difference counts as clear when its 95 % interval lies above 0. The interval comes from the two
//! bootstrap intervals by square-and-add (MOVER; Newcombe 1998, Statistics in Medicine 17, method 10), which
//! ignores that both were judged on the same images and is therefore on the careful side.

use super::{
    advice::{AdviceInputs, advise},
    choice::cell_of,
    summary::{
        ClassifierSummary, CollapseState, Comparison, Learned, PretrainingSummary, RepresentationScores, Verdict,
    },
    text::{count, label_of, number, percent, points, short_percent},
};

/// Below this share of 1/√d the representation counts as collapsed (the default of `collapse.std_below`).
pub const COLLAPSED_BELOW: f64 = 0.1;
/// Below this share it uses few of its dimensions.
pub const PARTIAL_BELOW: f64 = 0.3;

/// The pretrained representation (first in `scores`) against each other one.
pub fn compare(scores: &[RepresentationScores]) -> Vec<Comparison> {
    let Some((ours, baselines)) = scores.split_first() else { return vec![] };
    baselines
        .iter()
        .map(|baseline| {
            let (difference, interval) = top1_difference(ours, baseline);
            let learned = if interval[0] > 0.0 {
                Learned::Clearly
            } else if difference > 0.0 {
                Learned::Perhaps
            } else {
                Learned::No
            };
            Comparison { baseline: baseline.representation.clone(), difference, interval, learned }
        })
        .collect()
}

/// How much better `ours` is than `other`, with a 95 % interval from both bootstrap intervals.
pub fn top1_difference(ours: &RepresentationScores, other: &RepresentationScores) -> (f64, [f64; 2]) {
    let difference = ours.top1 - other.top1;
    let below = (ours.top1 - ours.top1_interval[0]).hypot(other.top1_interval[1] - other.top1);
    let above = (ours.top1_interval[1] - ours.top1).hypot(other.top1 - other.top1_interval[0]);
    (difference, [difference - below, difference + above])
}

/// The state that a ratio of `embedding_std` to 1/√d means; `collapsed_below` is the pipeline's threshold.
pub fn collapse_state(ratio: f64, collapsed_below: f64) -> CollapseState {
    // Not a number counts as collapse: the loss of such a training means nothing.
    if ratio.is_nan() || ratio < collapsed_below {
        CollapseState::Collapsed
    } else if ratio < PARTIAL_BELOW.max(collapsed_below) {
        CollapseState::Partial
    } else {
        CollapseState::Healthy
    }
}

/// Whether one frozen protocol says that pretraining gave something: it must beat every baseline, and where it
/// beats the untrained network clearly but not the pixels, there is something.
fn learned_by(classifier: &ClassifierSummary) -> Learned {
    let worst = classifier.comparisons.iter().map(|comparison| comparison.learned).min().unwrap_or(Learned::Unknown);
    let beats_untrained =
        classifier.comparisons.iter().any(|c| c.baseline == "untrained" && c.learned == Learned::Clearly);
    if worst == Learned::No && beats_untrained { Learned::Perhaps } else { worst }
}

/// Whether the frozen protocols together say that pretraining gave something.
pub fn learned(classifiers: &[ClassifierSummary]) -> Learned {
    let answers: Vec<Learned> = of_lead_cell(classifiers)
        .into_iter()
        .filter(|classifier| classifier.is_frozen())
        .map(learned_by)
        .filter(|answer| *answer != Learned::Unknown)
        .collect();
    let Some(best) = answers.iter().copied().max() else { return Learned::Unknown };
    // Protocols that contradict each other leave a doubt.
    if best == Learned::Clearly && answers.contains(&Learned::No) { Learned::Perhaps } else { best }
}

/// A stage's name without its cell.
fn base_of(stage: &str) -> &str {
    stage.split('@').next().unwrap_or(stage)
}

/// The classifiers that the verdict is about: of a matrix those of the lead's cell, and those of no cell.
pub(super) fn of_lead_cell(classifiers: &[ClassifierSummary]) -> Vec<&ClassifierSummary> {
    let cell = lead_classifier(classifiers).and_then(|lead| cell_of(&lead.stage));
    let is_meant = |classifier: &&ClassifierSummary| match (cell, cell_of(&classifier.stage)) {
        (Some(cell), Some(other)) => cell == other,
        _ => true,
    };
    classifiers.iter().filter(is_meant).collect()
}

/// The cells of the lead's stage, the lead among them.
fn cells_of<'a>(lead: &ClassifierSummary, classifiers: &'a [ClassifierSummary]) -> Vec<&'a ClassifierSummary> {
    let base = base_of(&lead.stage);
    classifiers.iter().filter(|other| cell_of(&other.stage).is_some() && base_of(&other.stage) == base).collect()
}

/// The frozen protocol that speaks for the features: the linear probe with the most labels, else the first; of the
/// cells of a matrix the best.
pub fn lead_classifier(classifiers: &[ClassifierSummary]) -> Option<&ClassifierSummary> {
    let mut lead: Option<&ClassifierSummary> = None;
    let is_better_cell = |one: &ClassifierSummary, other: &ClassifierSummary| {
        let top1 = |classifier: &ClassifierSummary| classifier.main().map_or(0.0, |scores| scores.top1);
        let is_cell = cell_of(&one.stage).is_some() && base_of(&one.stage) == base_of(&other.stage);
        is_cell && top1(one) > top1(other)
    };
    for classifier in classifiers {
        let rank = |c: &ClassifierSummary| (c.is_frozen(), c.protocol == "linear_probe", c.num_train);
        let is_above = |lead: &ClassifierSummary| {
            rank(classifier) > rank(lead) || (rank(classifier) == rank(lead) && is_better_cell(classifier, lead))
        };
        if lead.is_none_or(is_above) {
            lead = Some(classifier);
        }
    }
    lead
}

/// The whole verdict.
pub fn judge(
    pretraining: Option<&PretrainingSummary>,
    classifiers: &[ClassifierSummary],
    collapsed_below: f64,
    advice: &AdviceInputs<'_>,
) -> Verdict {
    let collapse = pretraining
        .map_or(CollapseState::Unknown, |run| collapse_state(run.final_embedding_std_ratio, collapsed_below));
    let learned = learned(classifiers);
    let lead = lead_classifier(classifiers).filter(|classifier| classifier.is_frozen());
    let num_cells = lead.map_or(0, |lead| cells_of(lead, classifiers).len());
    Verdict {
        learned,
        collapse,
        headline: headline(learned, collapse, lead, num_cells, pretraining),
        findings: findings(pretraining, classifiers, collapse),
        advice: advise(learned, collapse, pretraining, classifiers, advice),
    }
}

fn comparison<'a>(classifier: &'a ClassifierSummary, baseline: &str) -> Option<&'a Comparison> {
    classifier.comparisons.iter().find(|comparison| comparison.baseline == baseline)
}

fn headline(
    learned: Learned,
    collapse: CollapseState,
    lead: Option<&ClassifierSummary>,
    num_cells: usize,
    pretraining: Option<&PretrainingSummary>,
) -> String {
    let protocol_words = |lead: &ClassifierSummary| match cell_of(&lead.stage) {
        Some(cell) if num_cells > 1 => format!("{}, best of {num_cells} runs: {cell}", protocol_words(lead)),
        _ => protocol_words(lead),
    };
    let score = lead.and_then(|lead| Some((lead, lead.main()?)));
    if collapse == CollapseState::Collapsed {
        return match learned {
            Learned::Clearly => "The representation collapsed, although its features still beat the baselines.".into(),
            _ => "The representation collapsed: nearly every image gets the same embedding.".into(),
        };
    }
    match (learned, score) {
        (Learned::Clearly, Some((lead, main))) => {
            format!(
                "It learned: {} top-1 ({}), clearly above every baseline.",
                percent(main.top1),
                protocol_words(lead)
            )
        }
        (Learned::Perhaps, Some((lead, main))) => {
            let beats = |name| comparison(lead, name).is_some_and(|c| c.learned == Learned::Clearly);
            let loses = |name| comparison(lead, name).is_some_and(|c| c.learned == Learned::No);
            if beats("untrained") && loses("raw_pixels") {
                format!(
                    "It learned something, but raw pixels still do as well: {} top-1 ({}).",
                    percent(main.top1),
                    protocol_words(lead)
                )
            } else {
                format!(
                    "Perhaps it learned: {} top-1 ({}), too close to the baselines to be sure.",
                    percent(main.top1),
                    protocol_words(lead)
                )
            }
        }
        (Learned::No, Some((lead, main))) => format!(
            "Not yet: {} top-1 ({}) is no better than without pretraining.",
            percent(main.top1),
            protocol_words(lead)
        ),
        (_, Some((lead, main))) => {
            format!("{} top-1 ({}), with nothing to compare against.", percent(main.top1), protocol_words(lead))
        }
        (_, None) => match pretraining {
            Some(run) => format!(
                "Pretraining ran for {} steps; no classifier on frozen features says yet what they are worth.",
                count(run.steps)
            ),
            None => "There is no pretraining and no classifier on frozen features to judge.".into(),
        },
    }
}

fn protocol_words(classifier: &ClassifierSummary) -> String {
    let name = match classifier.protocol.as_str() {
        "linear_probe" => "linear probe".to_owned(),
        "knn" => "nearest neighbours".to_owned(),
        other => label_of(other).to_lowercase(),
    };
    if classifier.label_fraction < 1.0 {
        format!("{name}, {} of the labels", short_percent(classifier.label_fraction))
    } else {
        name
    }
}

fn findings(
    pretraining: Option<&PretrainingSummary>,
    classifiers: &[ClassifierSummary],
    collapse: CollapseState,
) -> Vec<String> {
    let mut findings = vec![];
    // The one that the headline speaks of comes first.
    let lead = lead_classifier(classifiers);
    let is_lead = |classifier: &ClassifierSummary| lead.is_some_and(|lead| std::ptr::eq(lead, classifier));
    let (first, others): (Vec<_>, Vec<_>) =
        of_lead_cell(classifiers).into_iter().partition(|classifier| is_lead(classifier));
    for classifier in first.into_iter().chain(others).filter(|classifier| classifier.is_frozen()) {
        if !classifier.comparisons.is_empty() {
            findings.push(compare_words(classifier));
        } else if let Some(main) = classifier.main() {
            findings.push(format!(
                "{}: {} of {} test images are right; no baseline was computed.",
                label_of(&classifier.protocol),
                percent(main.top1),
                count(classifier.num_test)
            ));
        }
    }
    findings.extend(lead.and_then(|lead| cells_words(&cells_of(lead, classifiers))));
    findings.extend(transfer_words(&of_lead_cell(classifiers)));
    let Some(run) = pretraining else { return findings };
    let ratio = number(run.final_embedding_std_ratio, 2);
    findings.push(match collapse {
        CollapseState::Collapsed => format!(
            "The spread of the embeddings ended at {ratio} of its healthy value (1), with a loss of {}: collapse.",
            number(run.final_loss, 3)
        ),
        CollapseState::Partial => {
            format!("The spread of the embeddings ended at {ratio} of its healthy value (1): few dimensions are used.")
        }
        _ => format!("No collapse: the spread of the embeddings ended at {ratio} of its healthy value (1)."),
    });
    if let (Some(first), Some(last)) = (run.curve.first(), run.curve.last())
        && run.curve.len() > 1
    {
        findings.push(format!(
            "The loss went from {} to {} in {} epochs ({} steps); −1 is the least possible.",
            number(first.loss, 3),
            number(last.loss, 3),
            count(u64::from(run.epochs)),
            count(run.steps)
        ));
    }
    let mut measured = run.curve.iter().filter_map(|point| Some((point.epoch, point.knn_top1?)));
    if let (Some((first_epoch, first)), Some((last_epoch, last))) = (measured.next(), measured.next_back()) {
        findings.push(format!(
            "While training, nearest-neighbour accuracy went from {} (epoch {first_epoch}) to {} (epoch {last_epoch}).",
            percent(first),
            percent(last)
        ));
    }
    findings
}

fn compare_words(classifier: &ClassifierSummary) -> String {
    let parts: Vec<String> = classifier
        .comparisons
        .iter()
        .map(|comparison| {
            let verdict = match comparison.learned {
                Learned::Clearly => "clearly better",
                Learned::Perhaps => "perhaps better",
                _ if comparison.interval[1] < 0.0 => "clearly worse",
                _ => "not better",
            };
            let baseline = match comparison.baseline.as_str() {
                "untrained" => "the same network untrained".to_owned(),
                other => label_of(other).to_lowercase(),
            };
            format!(
                "{verdict} than {baseline} ({}, 95\u{202f}% interval {} to {})",
                points(comparison.difference),
                number(comparison.interval[0] * 100.0, 1),
                number(comparison.interval[1] * 100.0, 1)
            )
        })
        .collect();
    let share = if classifier.label_fraction < 1.0 {
        format!(" with {} of the labels", short_percent(classifier.label_fraction))
    } else {
        String::new()
    };
    format!(
        "{}{share}, on {} test images: {}.",
        label_of(&classifier.protocol),
        count(classifier.num_test),
        parts.join(" and ")
    )
}

/// What all cells of a matrix reach, and what the choice of the best is worth.
fn cells_words(cells: &[&ClassifierSummary]) -> Option<String> {
    let top1: Vec<f64> = cells.iter().filter_map(|cell| Some(cell.main()?.top1)).collect();
    if top1.len() < 2 {
        return None;
    }
    let (low, high) = top1.iter().fold((1.0_f64, 0.0_f64), |(low, high), &value| (low.min(value), high.max(value)));
    let judged: Vec<Learned> =
        cells.iter().map(|cell| learned_by(cell)).filter(|answer| *answer != Learned::Unknown).collect();
    let clear = judged.iter().filter(|answer| **answer == Learned::Clearly).count();
    let of_baselines = if judged.is_empty() {
        String::new()
    } else {
        let those = match clear {
            0 => "none is".to_owned(),
            1 => "one is".to_owned(),
            clear => format!("{clear} are"),
        };
        format!("; {those} clearly above every baseline")
    };
    Some(format!(
        "The {} runs reach {} to {}{of_baselines}. The best was chosen on the images that judge it, which flatters it.",
        top1.len(),
        percent(low),
        percent(high)
    ))
}

/// Fine-tuning against training from scratch, where both used the same share of the labels.
fn transfer_words(classifiers: &[&ClassifierSummary]) -> Vec<String> {
    let of = |protocol: &'static str| classifiers.iter().filter(move |c| c.protocol == protocol);
    let mut words = vec![];
    for tuned in of("fine_tune") {
        for scratch in of("supervised") {
            let (Some(a), Some(b)) = (tuned.main(), scratch.main()) else { continue };
            let same_images = tuned.num_test == scratch.num_test;
            if !same_images || (tuned.label_fraction - scratch.label_fraction).abs() > 1e-9 {
                continue;
            }
            let Some(comparison) = compare(&[a.clone(), b.clone()]).pop() else { continue };
            let verdict = match comparison.learned {
                Learned::Clearly => "clearly helps",
                Learned::Perhaps => "perhaps helps",
                _ => "does not help",
            };
            words.push(format!(
                "Starting from the pretrained weights {verdict}: {} fine-tuned, {} from scratch, both with {} labels.",
                percent(a.top1),
                percent(b.top1),
                count(tuned.num_train)
            ));
        }
    }
    words
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
pub(super) mod tests;
