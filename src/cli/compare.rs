//! `metrics --compare A B`: what two reports say, side by side.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Session, table::Table};
use crate::{
    config::cell::glob,
    error::Error,
    fs::files,
    report::{
        Summary,
        summary::{RepresentationScores, SUMMARY_FORMAT},
        verdict::top1_difference,
    },
    runner::text,
};

/// A figure of both reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Difference {
    stage: String,
    metric: String,
    before: Option<f64>,
    now: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<f64>,
    /// 95 % interval of the change, where both reports have intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<[f64; 2]>,
    /// `better`, `worse`, `equal` or `unclear`.
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
}

/// Prints the differences.
///
/// # Errors
/// When one of them holds no report.
pub(super) fn run(before: &str, now: &str, only: Option<&str>, markdown: bool, session: &Session) -> Result<(), Error> {
    let rows: Vec<Difference> = differences(&read(before)?, &read(now)?)
        .into_iter()
        .filter(|row| only.is_none_or(|only| glob(only, &row.metric)))
        .collect();
    if session.json() {
        return session.print_json(&rows);
    }
    if rows.is_empty() {
        session.note("the two reports have no figures");
        return Ok(());
    }
    let mut table = Table::new(&["stage", "metric", "before", "now", "change", "", "95 % interval"]);
    for row in rows {
        let spell = |value: Option<f64>| value.map_or("-".to_owned(), text::figure);
        let arrow = match (row.meaning, row.change) {
            (Some("equal"), _) => "=",
            (Some("unclear"), _) => "≈",
            (Some(_), Some(change)) if change > 0.0 => "↑",
            (Some(_), Some(_)) => "↓",
            _ => "",
        };
        let word = row.meaning.filter(|meaning| matches!(*meaning, "better" | "worse")).unwrap_or_default();
        table.row([
            row.stage,
            row.metric,
            spell(row.before),
            spell(row.now),
            row.change.map_or(String::new(), |change| format!("{change:+.4}")),
            format!("{arrow} {word}").trim_end().to_owned(),
            row.interval.map_or(String::new(), |[low, high]| format!("{low:+.4} to {high:+.4}")),
        ]);
    }
    session.print(&table.render_as(markdown, session.paint()))
}

/// The summary in a file, or in a folder: of a report, of a pipeline's links, or of an export.
fn read(name: &str) -> Result<Summary, Error> {
    let given = PathBuf::from(name);
    let path = if given.is_dir() { find(&given) } else { given.is_file().then_some(given) };
    let Some(path) = path else {
        return Err(Error::usage(
            format!("`{name}` holds no report"),
            "name a `summary.json`, or a folder with one: of a report stage, of a pipeline under `runs/`, or of an export",
        ));
    };
    let unfit = |message: String| {
        Error::usage(
            format!("`{}` is no summary of a report: {message}", path.display()),
            "make the report again with `run`",
        )
    };
    let value: serde_json::Value =
        serde_json::from_slice(&files::read(&path)?).map_err(|error| unfit(error.to_string()))?;
    // Before its fields: those of a newer version are unknown.
    if value["format"] != SUMMARY_FORMAT {
        return Err(unfit(format!(
            "format {} is not {SUMMARY_FORMAT}, the one that this version reads",
            value["format"]
        )));
    }
    serde_json::from_value(value).map_err(|error| unfit(error.to_string()))
}

fn find(folder: &Path) -> Option<PathBuf> {
    let summary = |folder: &Path| Some(folder.join("summary.json")).filter(|path| path.is_file());
    summary(folder).or_else(|| {
        [folder.to_owned(), folder.join("artifacts")].iter().find_map(|folder| {
            // Of several reports that which is named so; otherwise the first by name.
            let names = files::list(folder).unwrap_or_default();
            summary(&folder.join("report")).or_else(|| names.iter().find_map(|name| summary(&folder.join(name))))
        })
    })
}

/// Figures whose least value is the best.
fn less_is_better(metric: &str) -> bool {
    matches!(metric, "loss") || metric.ends_with("log_loss") || metric.ends_with("calibration_error")
}

/// A figure of a report: stage, name, value, and for accuracies all scores.
type Figure<'a> = (String, String, f64, Option<&'a RepresentationScores>);

fn figures(summary: &Summary) -> Vec<Figure<'_>> {
    let mut figures = vec![];
    let runs = match &summary.cells {
        Some(cells) => cells.runs.iter().collect(),
        None => summary.pretraining.iter().collect::<Vec<_>>(),
    };
    for run in runs {
        let mut add = |metric: &str, value: f64| figures.push((run.stage.clone(), metric.to_owned(), value, None));
        add("loss", run.final_loss);
        add("embedding_std_ratio", run.final_embedding_std_ratio);
        if let Some(top1) = run.final_knn_top1 {
            add("knn/top1", top1);
        }
    }
    for classifier in &summary.classifiers {
        for scores in &classifier.scores {
            let mut add = |metric: &str, value: f64, all: Option<_>| {
                figures.push((classifier.stage.clone(), format!("{}/{metric}", scores.representation), value, all));
            };
            add("top1", scores.top1, Some(scores));
            add("top5", scores.top5, None);
            add("balanced_accuracy", scores.balanced_accuracy, None);
            add("log_loss", scores.log_loss, None);
            add("calibration_error", scores.expected_calibration_error, None);
        }
    }
    for health in summary.embedding_map.iter().flat_map(|map| &map.health) {
        let stage = summary.embedding_map.as_ref().map(|map| map.stage.clone()).unwrap_or_default();
        figures.push((stage, format!("{}/effective_rank", health.representation), health.effective_rank, None));
    }
    figures
}

fn differences(before: &Summary, now: &Summary) -> Vec<Difference> {
    let (before, now) = (figures(before), figures(now));
    let mut seen = BTreeSet::new();
    let keys = now.iter().chain(&before).filter(|figure| seen.insert((&figure.0, &figure.1)));
    let keys: Vec<(String, String)> = keys.map(|figure| (figure.0.clone(), figure.1.clone())).collect();
    let value = |figures: &[Figure<'_>], key: &(String, String)| {
        figures.iter().find(|figure| figure.0 == key.0 && figure.1 == key.1).map(|figure| figure.2)
    };
    let scores = |figures: &[Figure<'_>], key: &(String, String)| {
        figures.iter().find(|figure| figure.0 == key.0 && figure.1 == key.1).and_then(|figure| figure.3.cloned())
    };
    keys.into_iter()
        .map(|key| {
            let (old, new) = (value(&before, &key), value(&now, &key));
            let change = new.zip(old).map(|(new, old)| new - old);
            let both = scores(&now, &key).zip(scores(&before, &key));
            let interval = both.map(|(ours, other)| top1_difference(&ours, &other).1);
            // A spread between collapse and healthy is neither better nor worse.
            let judged = change.filter(|_| key.1 != "embedding_std_ratio");
            let meaning = judged.map(|change| meaning(change, interval, less_is_better(&key.1)));
            Difference { stage: key.0, metric: key.1, before: old, now: new, change, interval, meaning }
        })
        .collect()
}

fn meaning(change: f64, interval: Option<[f64; 2]>, less_is_better: bool) -> &'static str {
    if change == 0.0 {
        "equal"
    } else if interval.is_some_and(|[low, high]| low <= 0.0 && high >= 0.0) {
        "unclear"
    } else if (change > 0.0) != less_is_better {
        "better"
    } else {
        "worse"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        eval::{ClassifierMetrics, Scores},
        report::{ReportInputs, build::ClassifierInput, build_summary},
    };

    fn summary(stage: &str, top1: f64, log_loss: f64) -> Summary {
        let scores = Scores {
            top1,
            top1_interval: [top1 - 0.03, top1 + 0.03],
            top5: 0.9,
            balanced_accuracy: top1,
            log_loss,
            expected_calibration_error: 0.1,
            per_class: vec![],
            confusion: vec![],
        };
        let metrics = ClassifierMetrics {
            format: 1,
            protocol: "linear_probe".into(),
            class_names: vec![],
            num_train: 10,
            num_test: 10,
            label_fraction: 1.0,
            scores: BTreeMap::from([("pretrained".to_owned(), scores)]),
            history: vec![],
        };
        let classifiers = vec![ClassifierInput { stage: stage.into(), metrics, predictions: String::new() }];
        build_summary(&ReportInputs { classifiers, ..ReportInputs::default() }).unwrap()
    }

    #[test]
    fn figures_of_both_reports_are_paired_by_stage_and_name() {
        let rows = differences(&summary("probe", 0.70, 0.9), &summary("probe", 0.78, 0.7));
        assert_eq!(rows.len(), 5);
        assert_eq!((rows[0].metric.as_str(), rows[0].meaning), ("pretrained/top1", Some("better")));
        let [low, high] = rows[0].interval.unwrap();
        let width = 0.03_f64.hypot(0.03);
        assert!((low - (0.08 - width)).abs() < 1e-12 && (high - (0.08 + width)).abs() < 1e-12);
        let log_loss = rows.iter().find(|row| row.metric == "pretrained/log_loss").unwrap();
        assert_eq!((log_loss.meaning, log_loss.interval), (Some("better"), None));
        let rows = differences(&summary("probe", 0.70, 0.9), &summary("other", 0.72, 0.9));
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|row| row.change.is_none() && row.meaning.is_none()));
    }

    #[test]
    fn a_report_is_found_in_a_folder_of_links_and_in_an_export() {
        let dir = tempfile::tempdir().unwrap();
        let json = summary("probe", 0.7, 0.9).to_json().unwrap();
        for place in ["alone", "links/a_page", "export/artifacts/report"] {
            let folder = dir.path().join(place);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("summary.json"), &json).unwrap();
        }
        for place in ["alone", "alone/summary.json", "links", "export"] {
            assert!(read(dir.path().join(place).to_str().unwrap()).is_ok(), "{place}");
        }
        let empty = dir.path().join("links/empty");
        std::fs::create_dir_all(&empty).unwrap();
        let error = read(empty.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("holds no report"), "{error}");
        std::fs::write(dir.path().join("alone/summary.json"), "{\"format\": 9}").unwrap();
        let error = read(dir.path().join("alone").to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("format 9 is not 1"), "{error}");
    }

    #[test]
    fn what_a_change_means_depends_on_the_figure_and_its_interval() {
        assert_eq!(meaning(0.1, Some([0.02, 0.18]), false), "better");
        assert_eq!(meaning(0.1, Some([-0.02, 0.22]), false), "unclear");
        assert_eq!(meaning(-0.1, None, less_is_better("pretrained/log_loss")), "better");
        assert_eq!(meaning(0.1, None, less_is_better("loss")), "worse");
        assert_eq!(meaning(0.0, Some([-0.1, 0.1]), false), "equal");
    }
}
