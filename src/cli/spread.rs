//! `metrics --over`: what the cells of a matrix have in common, as mean and standard deviation over an axis.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;

use super::{Session, metrics::Figures, table::Table};
use crate::{config::CellName, error::Error, runner::text};

/// One figure of the cells that differ only in the given axes.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    stage: String,
    /// The other axes with their values.
    axes: BTreeMap<String, String>,
    metric: String,
    mean: f64,
    /// Standard deviation of a sample, which one value alone does not have.
    sd: Option<f64>,
    min: f64,
    max: f64,
    /// Number of cells.
    n: usize,
    /// The value of each cell, by the values of the given axes.
    values: BTreeMap<String, f64>,
}

/// Prints the figures over some axes.
///
/// # Errors
/// When no stage has one of the axes.
pub(super) fn run(
    figures: &Figures,
    over: &[String],
    lockfile: &Path,
    markdown: bool,
    session: &Session,
) -> Result<(), Error> {
    let known: BTreeSet<&str> =
        figures.keys().flat_map(|(stage, _)| CellName::parse(stage).axes).map(|(axis, _)| axis).collect();
    if let Some(unknown) = over.iter().find(|axis| !known.contains(axis.as_str())) {
        let names: Vec<&str> = known.into_iter().collect();
        let help = if names.is_empty() {
            "give a stage a `matrix` and run it".to_owned()
        } else {
            format!("the axes are {}", text::names(&names))
        };
        let message = format!("no stage with figures in `{}` has an axis `{unknown}`", lockfile.display());
        return Err(Error::usage(message, help));
    }
    let rows = spread(figures, over);
    if session.json() {
        return session.print_json(&rows);
    }
    let axes: BTreeSet<&str> = rows.iter().flat_map(|row| row.axes.keys().map(String::as_str)).collect();
    let heading: Vec<&str> =
        ["stage"].into_iter().chain(axes.iter().copied()).chain(["metric", "mean ± sd", "n", "min", "max"]).collect();
    let mut table = Table::new(&heading);
    for row in &rows {
        let sd = row.sd.map(|sd| format!(" ± {}", text::figure(sd))).unwrap_or_default();
        let values = axes.iter().map(|axis| row.axes.get(*axis).cloned().unwrap_or_default());
        let figures = [
            row.metric.clone(),
            format!("{}{sd}", text::figure(row.mean)),
            row.n.to_string(),
            text::figure(row.min),
            text::figure(row.max),
        ];
        table.row([row.stage.clone()].into_iter().chain(values).chain(figures));
    }
    session.print(&table.render_as(markdown, session.paint()))
}

/// One row for each stage, figure and combination of the other axes, in the order of the names. Stages that do
/// not have all of the axes are left out.
fn spread(figures: &Figures, over: &[String]) -> Vec<Spread> {
    type Key<'a> = (&'a str, Vec<(&'a str, &'a str)>, String);
    let mut groups: BTreeMap<Key<'_>, BTreeMap<String, f64>> = BTreeMap::new();
    for ((name, metric), value) in figures {
        let cell = CellName::parse(name);
        let taken: Option<Vec<&str>> = over.iter().map(|axis| cell.value(axis)).collect();
        let Some(taken) = taken else { continue };
        let rest = cell.axes.iter().copied().filter(|(axis, _)| !over.iter().any(|over| over == axis)).collect();
        groups.entry((cell.stage, rest, without_cell(metric, &cell))).or_default().insert(taken.join(","), *value);
    }
    groups
        .into_iter()
        .map(|((stage, axes, metric), values)| {
            let n = values.len();
            let mean = values.values().sum::<f64>() / n as f64;
            let squares: f64 = values.values().map(|value| (value - mean).powi(2)).sum();
            Spread {
                stage: stage.to_owned(),
                axes: axes.into_iter().map(|(axis, value)| (axis.to_owned(), value.to_owned())).collect(),
                metric,
                mean,
                sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()),
                min: values.values().copied().fold(f64::INFINITY, f64::min),
                max: values.values().copied().fold(f64::NEG_INFINITY, f64::max),
                n,
                values,
            }
        })
        .collect()
}

/// The name of a figure. A report names the classifier that a figure is of: where that is the cell of the same values,
/// the name is the same in all of them.
fn without_cell(metric: &str, cell: &CellName<'_>) -> String {
    match metric.rsplit_once('/') {
        Some((area, name)) => {
            let of = CellName::parse(area);
            let is_same = of.axes.iter().all(|choice| cell.axes.contains(choice));
            if is_same { format!("{}/{name}", of.stage) } else { metric.to_owned() }
        }
        None => metric.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(list: &[(&str, &str, f64)]) -> Figures {
        list.iter().map(|(stage, metric, value)| ((stage.to_string(), metric.to_string()), *value)).collect()
    }

    #[test]
    fn cells_that_differ_in_the_axis_only_are_one_row() {
        let figures = self::figures(&[
            ("knn@lr=0.03,seed=0", "knn/top1", 0.5),
            ("knn@lr=0.03,seed=1", "knn/top1", 0.7),
            ("knn@lr=0.03,seed=2", "knn/top1", 0.9),
            ("knn@lr=0.1,seed=0", "knn/top1", 0.25),
            ("train", "dataset/images", 100.0),
        ]);
        let rows = spread(&figures, &["seed".into()]);
        assert_eq!(rows.len(), 2);
        let (first, second) = (&rows[0], &rows[1]);
        assert_eq!((first.stage.as_str(), first.axes["lr"].as_str(), first.n), ("knn", "0.03", 3));
        assert!((first.mean - 0.7).abs() < 1e-12 && (first.sd.unwrap() - 0.2).abs() < 1e-12, "{first:?}");
        assert_eq!((first.min, first.max, first.values["1"]), (0.5, 0.9, 0.7));
        assert_eq!((second.n, second.sd, second.mean), (1, None, 0.25));
        let reports = self::figures(&[
            ("report@seed=0", "knn@seed=0/gain_over_untrained", 0.5),
            ("report@seed=1", "knn@seed=1/gain_over_untrained", 0.25),
            ("all@seed=0", "knn@seed=7/gain_over_untrained", 0.5),
        ]);
        let rows = spread(&reports, &["seed".into()]);
        let found: Vec<_> = rows.iter().map(|row| (row.metric.as_str(), row.n)).collect();
        assert_eq!(found, [("knn@seed=7/gain_over_untrained", 1), ("knn/gain_over_untrained", 2)]);
        let all = spread(&figures, &["seed".into(), "lr".into()]);
        assert_eq!((all.len(), all[0].n, all[0].values.contains_key("0,0.1")), (1, 4, true));
    }
}
