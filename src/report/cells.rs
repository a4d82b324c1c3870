//! Several pretrainings side by side, such as the cells of a matrix: their curves, and what they have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    choice::{MatrixChoice, matrix_choice},
    html::Figure,
    line_chart::{LineChart, Series},
    summary::{ClassifierSummary, CurvePoint, PretrainingSummary},
    text::{number, percent},
};

/// Several pretrainings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainingCells {
    /// Each, in the order in which they were given.
    pub runs: Vec<PretrainingSummary>,
    /// Loss of the last epoch.
    pub final_loss: Spread,
    /// `embedding_std` · √d of the last epoch.
    pub final_embedding_std_ratio: Spread,
    /// Last kNN accuracy, if all have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_knn_top1: Option<Spread>,
    /// Which to choose, if classifiers judged each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<MatrixChoice>,
}

/// A figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of a sample.
    pub sd: f64,
}

impl Spread {
    /// Of two or more values.
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, sd: (squares / (n - 1.0).max(1.0)).sqrt() }
    }
}

impl PretrainingCells {
    /// Of two or more runs, and what classifiers make of them.
    pub(super) fn of(runs: Vec<PretrainingSummary>, classifiers: &[ClassifierSummary]) -> Self {
        let spread = |pick: fn(&PretrainingSummary) -> f64| Spread::of(&runs.iter().map(pick).collect::<Vec<_>>());
        let knn: Option<Vec<f64>> = runs.iter().map(|run| run.final_knn_top1).collect();
        Self {
            final_loss: spread(|run| run.final_loss),
            final_embedding_std_ratio: spread(|run| run.final_embedding_std_ratio),
            final_knn_top1: knn.map(|values| Spread::of(&values)),
            choice: matrix_choice(&runs, classifiers),
            runs,
        }
    }

    /// What tells the runs apart: the cells of one stage need not name it.
    fn names(&self) -> Vec<&str> {
        let parts = || self.runs.iter().map(|run| run.stage.split_once('@'));
        let stage = parts().next().flatten().map(|(stage, _)| stage);
        let alike = stage.is_some() && parts().all(|part| part.map(|(stage, _)| stage) == stage);
        self.runs
            .iter()
            .map(|run| match run.stage.split_once('@') {
                Some((_, cell)) if alike => cell,
                _ => run.stage.as_str(),
            })
            .collect()
    }

    /// A chart of all curves for each figure that is measured.
    pub(super) fn figures(&self) -> Vec<Figure<'_>> {
        let series = |pick: fn(&CurvePoint) -> Option<f64>| -> Vec<Series<'_>> {
            let points = |run: &PretrainingSummary| {
                run.curve.iter().filter_map(|point| Some((point.epoch, pick(point)?))).collect()
            };
            self.runs.iter().zip(self.names()).map(|(run, name)| Series { name, points: points(run) }).collect()
        };
        let chart = |id, title, series, reference, covers, suffix, format| LineChart {
            id,
            title,
            series,
            reference,
            covers,
            suffix,
            format,
        };
        let loss = chart(
            "chart-cells-loss",
            "Loss by epoch, all runs",
            series(|point| Some(point.loss)),
            None,
            &[],
            "",
            |value| number(value, 3),
        );
        let spread = chart(
            "chart-cells-spread",
            "Spread of the embeddings by epoch, all runs",
            series(|point| Some(point.embedding_std_ratio)),
            Some((1.0, "healthy")),
            &[0.0, 1.0],
            "",
            |value| number(value, 3),
        );
        let knn = chart(
            "chart-cells-knn",
            "Nearest-neighbour accuracy by epoch, all runs",
            series(|point| point.knn_top1.map(|top1| top1 * 100.0)),
            None,
            &[],
            "%",
            |value| percent(value / 100.0),
        );
        [
            Figure::new("Loss of all runs", "−1 is the least possible.", self.names(), &loss),
            Figure::new("Spread of all runs", "1 is healthy, 0 is collapse.", self.names(), &spread),
            Figure::new("Nearest-neighbour accuracy of all runs", "On the monitor images.", self.names(), &knn),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let spread = Spread::of(&[1.0, 2.0, 6.0]);
        assert!((spread.mean - 3.0).abs() < 1e-12 && (spread.sd - 7.0_f64.sqrt()).abs() < 1e-12, "{spread:?}");
        assert_eq!(Spread::of(&[2.0, 2.0]), Spread { mean: 2.0, sd: 0.0 });
    }
}
