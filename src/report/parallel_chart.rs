//! Runs of a matrix as parallel coordinates: an upright axis for each parameter and each figure, a line for each run.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    choice::{MatrixChoice, parameters},
    summary::PretrainingSummary,
    svg::{coordinate, path},
    text::{escape, number, percent, shortened},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const SIDE: f64 = 70.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 26.0;
/// Axes for classifiers, at most.
const MAX_JUDGES: usize = 3;

/// An axis: its name, where each run meets it from 0 (below) to 1, and what stands at which height.
struct ParallelAxis {
    name: String,
    places: Vec<f64>,
    labels: Vec<(f64, String)>,
}

/// The chart, or nothing where the names of the runs hold no parameters.
pub fn render_parallel(id: &str, runs: &[PretrainingSummary], choice: Option<&MatrixChoice>) -> Option<String> {
    let mut axes = parameter_axes(runs);
    if axes.is_empty() || runs.len() < 2 {
        return None;
    }
    let of = |pick: fn(&PretrainingSummary) -> Option<f64>| -> Vec<Option<f64>> { runs.iter().map(pick).collect() };
    axes.extend(figure_axis("loss", &of(|run| Some(run.final_loss)), number));
    let spread = of(|run| Some(run.final_embedding_std_ratio));
    axes.extend(figure_axis("spread", &spread, number));
    axes.extend(figure_axis("kNN in training", &of(|run| run.final_knn_top1), |value, _| percent(value)));
    // What is chosen by stands at the end, where the eye arrives.
    let judged = choice.map_or(&[][..], |choice| &choice.classifiers[..choice.classifiers.len().min(MAX_JUDGES)]);
    for (column, name) in judged.iter().enumerate().rev() {
        let mut values = vec![None; runs.len()];
        for run in choice.iter().flat_map(|choice| &choice.runs) {
            values[run.run] = run.top1.get(column).copied();
        }
        axes.extend(figure_axis(&format!("{name} top-1"), &values, |value, _| percent(value)));
    }
    let x = |idx: usize| SIDE + (WIDTH - 2.0 * SIDE) * idx as f64 / (axes.len() - 1).max(1) as f64;
    let y = |place: f64| HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM);

    let id = escape(id);
    let names: Vec<&str> = axes.iter().map(|axis| axis.name.as_str()).collect();
    let mut svg = format!(
        "<svg class=\"parallel\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">Parameters and figures of all runs</title><desc id=\"{id}-desc\">{} runs over {}.</desc>",
        runs.len(),
        escape(&names.join(", "))
    );
    // Writing to a String cannot fail, here and below.
    for (idx, run) in runs.iter().enumerate() {
        let line = path(axes.iter().enumerate().map(|(axis_idx, axis)| (x(axis_idx), y(axis.places[idx]))));
        let knn = run.final_knn_top1.map_or(String::new(), |top1| format!(" · kNN top-1 {}", percent(top1)));
        let judged = choice.and_then(|choice| {
            let run = choice.runs.iter().find(|judged| judged.run == idx)?;
            Some(format!(" · {} top-1 {}", choice.classifiers.first()?, percent(*run.top1.first()?)))
        });
        let words = format!(
            "{} · loss {} · spread {}{knn}{}",
            run.stage,
            number(run.final_loss, 3),
            number(run.final_embedding_std_ratio, 2),
            judged.unwrap_or_default()
        );
        let _ = write!(
            svg,
            "<g class=\"run s{}\"><title>{}</title><path class=\"hit\" d=\"{line}\"/><path class=\"line\" d=\"{line}\"/></g>",
            idx % 8,
            escape(&words)
        );
    }
    for (idx, axis) in axes.iter().enumerate() {
        let at = coordinate(x(idx));
        let _ = write!(
            svg,
            "<line class=\"upright\" x1=\"{at}\" x2=\"{at}\" y1=\"{}\" y2=\"{}\"/>\
             <text class=\"name\" x=\"{at}\" y=\"{}\">{}</text>",
            coordinate(y(1.0)),
            coordinate(y(0.0)),
            TOP - 22.0,
            escape(&shortened(&axis.name, 18))
        );
        for (place, label) in &axis.labels {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{}\" y=\"{}\">{}</text>",
                coordinate(x(idx) + 6.0),
                coordinate(y(*place) + 4.0),
                escape(&shortened(label, 12))
            );
        }
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// The values in names such as `pretrain@lr=0.03,seed=0`; axes that have one value only are left out.
fn parameter_axes(runs: &[PretrainingSummary]) -> Vec<ParallelAxis> {
    let values: Vec<BTreeMap<&str, &str>> = runs.iter().map(|run| parameters(&run.stage)).collect();
    let Some(first) = runs.first() else { return vec![] };
    // In the order of the first run's name.
    let order = first.stage.split_once('@').map_or("", |(_, cell)| cell).split(',');
    order
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .filter_map(|axis| {
            let of_runs: Vec<&str> = values.iter().map(|values| values.get(axis).copied()).collect::<Option<_>>()?;
            let mut distinct = of_runs.clone();
            let number_of = |text: &str| text.parse::<f64>().unwrap_or(f64::INFINITY);
            distinct.sort_by(|a, b| number_of(a).total_cmp(&number_of(b)).then_with(|| a.cmp(b)));
            distinct.dedup();
            if distinct.len() < 2 {
                return None;
            }
            let place = |idx: usize| idx as f64 / (distinct.len() - 1) as f64;
            let places = of_runs
                .iter()
                .map(|value| distinct.iter().position(|other| other == value).map_or(0.0, place))
                .collect();
            // Many values would stand one upon the other: then only the ends are named.
            let named = |idx: usize| distinct.len() <= 12 || idx == 0 || idx + 1 == distinct.len();
            let labels = distinct.iter().enumerate().filter(|(idx, _)| named(*idx));
            let labels = labels.map(|(idx, value)| (place(idx), (*value).to_owned())).collect();
            Some(ParallelAxis { name: axis.to_owned(), places, labels })
        })
        .collect()
}

/// Nothing where a run lacks the figure.
fn figure_axis(name: &str, values: &[Option<f64>], spell: fn(f64, usize) -> String) -> Option<ParallelAxis> {
    let values: Vec<f64> = values.iter().map(|value| value.filter(|value| value.is_finite())).collect::<Option<_>>()?;
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let width = high - low;
    let place = |value: f64| if width > 0.0 { (value - low) / width } else { 0.5 };
    // As many decimals as tell the ends apart.
    let decimals = if width > 0.0 { (1.0 - width.log10().floor()).clamp(2.0, 6.0) as usize } else { 2 };
    let spell = |value| spell(value, decimals);
    let labels = if width > 0.0 { vec![(0.0, spell(low)), (1.0, spell(high))] } else { vec![(0.5, spell(low))] };
    Some(ParallelAxis { name: name.to_owned(), places: values.into_iter().map(place).collect(), labels })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn run(stage: &str, final_loss: f64) -> PretrainingSummary {
        PretrainingSummary {
            stage: stage.into(),
            backbone: String::new(),
            feature_dim: 8,
            projector: String::new(),
            predictor: String::new(),
            image_size: 32,
            seed: 0,
            epochs: 1,
            steps: 1,
            batch_size: None,
            base_lr: None,
            stopped_early: false,
            final_loss,
            final_embedding_std_ratio: 0.9,
            final_knn_top1: None,
            warnings: vec![],
            curve: vec![],
        }
    }

    #[test]
    fn axes_come_from_the_names_and_what_was_measured() {
        let runs = [run("pretrain@lr=0.1,seed=0,size=32", -0.5), run("pretrain@lr=0.03,seed=1,size=32", -0.9)];
        let axes = parameter_axes(&runs);
        assert_eq!(axes.iter().map(|axis| axis.name.as_str()).collect::<Vec<_>>(), ["lr", "seed"], "size is the same");
        assert_eq!(axes[0].places, [1.0, 0.0], "by value, not by spelling");
        let svg = render_parallel("p", &runs, None).unwrap();
        assert_eq!(svg.matches("<g class=\"run").count(), 2);
        assert_eq!(svg.matches("class=\"upright\"").count(), 4);
        assert!(!svg.contains("kNN in training"), "no run has it");
    }

    #[test]
    fn runs_without_parameters_have_no_chart() {
        assert_eq!(render_parallel("p", &[run("a", 0.0), run("b", 0.0)], None), None);
        assert_eq!(render_parallel("p", &[run("a@lr=1", 0.0)], None), None);
        let odd = [run("a@<x>=\"1\"", f64::NAN), run("a@<x>=2", 0.0)];
        let svg = render_parallel("p", &odd, None).unwrap();
        assert!(svg.contains("&lt;x&gt;") && !svg.contains("<x>"));
    }
}
