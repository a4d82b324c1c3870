//! Which run of a matrix to choose: each by what its features are worth, the best first.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cells::Spread,
    summary::{ClassifierSummary, PretrainingSummary, RepresentationScores},
    verdict::{lead_classifier, top1_difference},
};

/// The axis over which settings are averaged.
const SEED: &str = "seed";

/// The runs of a matrix by what classifiers make of their features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixChoice {
    /// The classifiers that judge every run, by the name of their stage; the first decides.
    pub classifiers: Vec<String>,
    /// The runs, the best first.
    pub runs: Vec<JudgedRun>,
    /// How many runs, the best among them, cannot be told from the best: the 95 % interval of the difference holds 0.
    pub num_tied: usize,
    /// The same by setting, over the seeds, the best first; empty where there is no axis `seed` or nothing beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<JudgedSetting>,
}

/// A run of a matrix and what classifiers make of its features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgedRun {
    /// Name of the pretraining's stage.
    pub stage: String,
    /// Where it stands among the pretrainings that were given, from 0.
    pub run: usize,
    /// Top-1 accuracy by each classifier.
    pub top1: Vec<f64>,
    /// 95 % intervals of these.
    pub top1_interval: Vec<[f64; 2]>,
    /// Whether it cannot be told from the best by the first classifier.
    pub is_tied: bool,
}

/// A setting with several seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgedSetting {
    /// The values of the axes but the seed.
    pub setting: String,
    /// Number of seeds.
    pub num_runs: usize,
    /// Top-1 accuracy by each classifier, over the seeds.
    pub top1: Vec<Spread>,
}

/// The values in a name such as `pretrain@lr=0.03,seed=0`.
pub fn parameters(stage: &str) -> BTreeMap<&str, &str> {
    cell_of(stage).unwrap_or("").split(',').filter_map(|pair| pair.split_once('=')).collect()
}

/// What stands behind the `@` of a name.
pub fn cell_of(stage: &str) -> Option<&str> {
    stage.split_once('@').map(|(_, cell)| cell)
}

/// A stage's name without the values that a run has already said: `probe` of `probe@lr=0.1` for `pretrain@lr=0.1`.
fn column_of(classifier: &str, run: &BTreeMap<&str, &str>) -> Option<String> {
    let values = parameters(classifier);
    if run.iter().any(|(axis, value)| values.get(axis) != Some(value)) {
        return None;
    }
    let (base, cell) = classifier.split_once('@')?;
    let rest: Vec<&str> =
        cell.split(',').filter(|pair| pair.split_once('=').is_none_or(|(axis, _)| !run.contains_key(axis))).collect();
    Some(if rest.is_empty() { base.to_owned() } else { format!("{base}@{}", rest.join(",")) })
}

/// The choice between runs, or nothing where no classifier judges every one of them.
pub(super) fn matrix_choice(runs: &[PretrainingSummary], classifiers: &[ClassifierSummary]) -> Option<MatrixChoice> {
    let mut columns: BTreeMap<String, Vec<Option<&RepresentationScores>>> = BTreeMap::new();
    let mut order: Vec<String> = vec![];
    let lead = lead_classifier(classifiers)?;
    let lead_first = std::iter::once(lead).chain(classifiers.iter().filter(|other| !std::ptr::eq(*other, lead)));
    for classifier in lead_first {
        for (idx, run) in runs.iter().enumerate() {
            let values = parameters(&run.stage);
            let Some(column) = (!values.is_empty()).then(|| column_of(&classifier.stage, &values)).flatten() else {
                continue;
            };
            if !order.contains(&column) {
                order.push(column.clone());
            }
            columns.entry(column).or_insert_with(|| vec![None; runs.len()])[idx] = classifier.main();
        }
    }
    let complete: Vec<(String, Vec<&RepresentationScores>)> = order
        .into_iter()
        .filter_map(|name| {
            let scores: Option<Vec<&RepresentationScores>> = columns.get(&name)?.iter().copied().collect();
            Some((name, scores?))
        })
        .collect();
    let (_, deciding) = complete.first()?;
    let mut places: Vec<usize> = (0..runs.len()).collect();
    places.sort_by(|a, b| deciding[*b].top1.total_cmp(&deciding[*a].top1).then(a.cmp(b)));
    let best = deciding[*places.first()?];
    let is_tied = |run: usize| top1_difference(best, deciding[run]).1[0] <= 0.0;
    let judged: Vec<JudgedRun> = places
        .iter()
        .map(|&run| JudgedRun {
            stage: runs[run].stage.clone(),
            run,
            top1: complete.iter().map(|(_, scores)| scores[run].top1).collect(),
            top1_interval: complete.iter().map(|(_, scores)| scores[run].top1_interval).collect(),
            is_tied: is_tied(run),
        })
        .collect();
    Some(MatrixChoice {
        num_tied: judged.iter().filter(|run| run.is_tied).count(),
        settings: settings(&judged),
        classifiers: complete.into_iter().map(|(name, _)| name).collect(),
        runs: judged,
    })
}

fn settings(runs: &[JudgedRun]) -> Vec<JudgedSetting> {
    let mut by_setting: BTreeMap<String, Vec<&JudgedRun>> = BTreeMap::new();
    for run in runs {
        let Some(cell) = cell_of(&run.stage) else { return vec![] };
        let rest: Vec<&str> =
            cell.split(',').filter(|pair| pair.split_once('=').is_none_or(|(axis, _)| axis != SEED)).collect();
        by_setting.entry(rest.join(",")).or_default().push(run);
    }
    // One setting, or one seed, is what the table of runs says already.
    if by_setting.len() < 2 || by_setting.values().all(|runs| runs.len() < 2) {
        return vec![];
    }
    let columns = runs.first().map_or(0, |run| run.top1.len());
    let spread = |runs: &[&JudgedRun], column: usize| {
        Spread::of(&runs.iter().filter_map(|run| run.top1.get(column).copied()).collect::<Vec<_>>())
    };
    let mut settings: Vec<JudgedSetting> = by_setting
        .into_iter()
        .map(|(setting, runs)| JudgedSetting {
            setting,
            num_runs: runs.len(),
            top1: (0..columns).map(|column| spread(&runs, column)).collect(),
        })
        .collect();
    let mean = |setting: &JudgedSetting| setting.top1.first().map_or(0.0, |top1| top1.mean);
    settings.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then_with(|| a.setting.cmp(&b.setting)));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        parallel_chart::tests::run,
        verdict::tests::{classifier, scores},
    };

    fn judge(stage: &str, protocol: &str, top1: f64, half: f64) -> ClassifierSummary {
        ClassifierSummary { stage: stage.into(), ..classifier(protocol, vec![scores("pretrained", top1, half)]) }
    }

    #[test]
    fn the_best_comes_first_and_says_who_cannot_be_told_from_it() {
        let runs = [
            run("pretrain@lr=0.1,seed=0", 0.0),
            run("pretrain@lr=0.1,seed=1", 0.0),
            run("pretrain@lr=0.3,seed=0", 0.0),
            run("pretrain@lr=0.3,seed=1", 0.0),
        ];
        let classifiers = [
            judge("knn@lr=0.1,seed=0", "knn", 0.9, 0.02),
            judge("probe@lr=0.1,seed=0", "linear_probe", 0.50, 0.02),
            judge("probe@lr=0.1,seed=1", "linear_probe", 0.52, 0.02),
            judge("probe@lr=0.3,seed=0", "linear_probe", 0.70, 0.02),
            judge("probe@lr=0.3,seed=1", "linear_probe", 0.71, 0.02),
        ];
        let choice = matrix_choice(&runs, &classifiers).unwrap();
        assert_eq!(choice.classifiers, ["probe"], "knn judged one run only");
        let order: Vec<usize> = choice.runs.iter().map(|run| run.run).collect();
        assert_eq!((order, choice.num_tied), (vec![3, 2, 1, 0], 2));
        assert_eq!(choice.settings.iter().map(|s| s.setting.as_str()).collect::<Vec<_>>(), ["lr=0.3", "lr=0.1"]);
        let best = &choice.settings[0];
        assert!(best.num_runs == 2 && (best.top1[0].mean - 0.705).abs() < 1e-12, "{best:?}");
    }

    #[test]
    fn without_a_classifier_of_each_run_there_is_no_choice() {
        let runs = [run("pretrain@lr=0.1", 0.0), run("pretrain@lr=0.3", 0.0)];
        assert_eq!(matrix_choice(&runs, &[]), None);
        assert_eq!(matrix_choice(&runs, &[judge("probe", "linear_probe", 0.5, 0.1)]), None);
        assert_eq!(matrix_choice(&[run("a", 0.0)], &[judge("probe@lr=1", "linear_probe", 0.5, 0.1)]), None);
    }

    #[test]
    fn other_axes_of_a_classifier_are_columns() {
        let runs = [run("pretrain@lr=0.1", 0.0), run("pretrain@lr=0.3", 0.0)];
        let classifiers = [
            judge("probe@lr=0.1,share=0.5", "linear_probe", 0.5, 0.1),
            judge("probe@lr=0.1,share=1", "linear_probe", 0.6, 0.1),
            judge("probe@lr=0.3,share=0.5", "linear_probe", 0.55, 0.1),
            judge("probe@lr=0.3,share=1", "linear_probe", 0.4, 0.1),
        ];
        let choice = matrix_choice(&runs, &classifiers).unwrap();
        assert_eq!(choice.classifiers, ["probe@share=1", "probe@share=0.5"], "the lead's column decides");
        assert_eq!((choice.runs[0].run, choice.settings.len()), (0, 0));
    }
}
