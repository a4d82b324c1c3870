//! The label-efficiency curve as inline SVG: accuracy over the share of the labels, a line for each protocol.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    summary::ClassifierSummary,
    svg::{Axis, coordinate, path},
    text::{count, escape, label_of, number, percent, short_percent},
};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 36.0;
/// Names at the ends of lines keep this distance.
const NAME_HEIGHT: f64 = 15.0;

/// Share of the labels, number of labels, mean accuracy, and of how many classifiers.
type Point = (f64, u64, f64, usize);

/// Share of the labels, number of labels, accuracy of each classifier.
type Accuracies = (f64, u64, Vec<f64>);

/// The chart, or nothing where no protocol was tried with more than one share of the labels.
pub fn render_label_chart(id: &str, classifiers: &[ClassifierSummary]) -> Option<String> {
    let lines = lines(classifiers);
    if lines.values().all(|points| points.len() < 2) {
        return None;
    }
    let all = || lines.values().flatten();
    let y_axis = Axis::over(all().map(|point| point.2 * 100.0), 4);
    let (low, high) = all().fold((f64::INFINITY, 0.0_f64), |(low, high), point| (low.min(point.0), high.max(point.0)));
    let x = |share: f64| {
        // Each further label is worth less: the axis is logarithmic.
        let at = (share / low).ln() / (high / low).ln().max(1e-9);
        LEFT + 8.0 + at * (WIDTH - LEFT - RIGHT - 16.0)
    };
    let y = |top1: f64| HEIGHT - BOTTOM - y_axis.share(top1 * 100.0) * (HEIGHT - TOP - BOTTOM);

    let id = escape(id);
    let mut svg = format!(
        "<svg class=\"labels\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title\">\
         <title id=\"{id}-title\">Top-1 accuracy by share of the labels</title>"
    );
    // Writing to a String cannot fail, here and below.
    for &tick in &y_axis.ticks {
        let at = y_axis.share(tick).mul_add(-(HEIGHT - TOP - BOTTOM), HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\"/>\
             <text class=\"tick end\" x=\"{}\" y=\"{}\">{}%</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            coordinate(at + 4.0),
            number(tick, y_axis.decimals),
            at = coordinate(at),
        );
    }
    let mut shares: Vec<f64> = all().map(|point| point.0).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    for share in shares {
        let _ = write!(
            svg,
            "<text class=\"tick middle\" x=\"{}\" y=\"{}\">{}</text>",
            coordinate(x(share)),
            HEIGHT - BOTTOM + 18.0,
            escape(&short_percent(share))
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick end\" x=\"{}\" y=\"{}\">share of the labels</text>",
        WIDTH - RIGHT,
        HEIGHT - 3.0
    );
    let mut names: Vec<(f64, usize, &str)> = vec![];
    for (idx, (protocol, points)) in lines.iter().enumerate() {
        let at = points.iter().map(|point| (x(point.0), y(point.2)));
        let _ = write!(svg, "<path class=\"line s{}\" d=\"{}\"/>", idx % 8, path(at));
        for (share, labels, top1, runs) in points {
            let of = if *runs > 1 { format!(", mean of {runs}") } else { String::new() };
            let words = format!(
                "{}: {} with {} of the labels ({} images){of}",
                label_of(protocol),
                percent(*top1),
                short_percent(*share),
                count(*labels)
            );
            let _ = write!(
                svg,
                "<circle class=\"mark s{}\" cx=\"{}\" cy=\"{}\" r=\"4\"><title>{}</title></circle>",
                idx % 8,
                coordinate(x(*share)),
                coordinate(y(*top1)),
                escape(&words)
            );
        }
        if let Some(last) = points.last() {
            names.push((y(last.2), idx, protocol));
        }
    }
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = f64::NEG_INFINITY;
    for (at, idx, protocol) in names {
        below = at.max(below + NAME_HEIGHT);
        let _ = write!(
            svg,
            "<text class=\"name s{}\" x=\"{}\" y=\"{}\">{}</text>",
            idx % 8,
            WIDTH - RIGHT + 8.0,
            coordinate(below + 4.0),
            escape(&label_of(protocol))
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// The mean of each protocol at each share of the labels, ascending. Only what was judged by as many images as most is
/// compared.
fn lines(classifiers: &[ClassifierSummary]) -> BTreeMap<&str, Vec<Point>> {
    let most = classifiers.iter().map(|classifier| classifier.num_test).max().unwrap_or(0);
    let mut values: BTreeMap<&str, Vec<Accuracies>> = BTreeMap::new();
    for classifier in classifiers.iter().filter(|classifier| classifier.num_test == most) {
        let Some(scores) = classifier.main().filter(|_| classifier.label_fraction > 0.0) else { continue };
        let points = values.entry(&classifier.protocol).or_default();
        match points.iter_mut().find(|point| (point.0 - classifier.label_fraction).abs() < 1e-9) {
            Some(point) => point.2.push(scores.top1),
            None => points.push((classifier.label_fraction, classifier.num_train, vec![scores.top1])),
        }
    }
    values
        .into_iter()
        .map(|(protocol, mut points)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            (protocol, points.iter().map(|(share, labels, of)| (*share, *labels, mean(of), of.len())).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::label_efficiency::tests::classifier;

    #[test]
    fn one_share_of_the_labels_has_no_curve() {
        assert_eq!(render_label_chart("c", &[]), None);
        assert_eq!(render_label_chart("c", &[classifier("knn", 1.0, 0.5), classifier("supervised", 1.0, 0.4)]), None);
    }

    #[test]
    fn each_protocol_has_a_line_over_its_shares() {
        let svg = render_label_chart(
            "c",
            &[
                classifier("fine_tune", 1.0, 0.9),
                classifier("fine_tune", 0.01, 0.5),
                classifier("fine_tune", 0.01, 0.7),
                classifier("supervised", 0.01, 0.3),
                classifier("supervised", 1.0, 0.88),
            ],
        )
        .unwrap();
        assert_eq!(svg.matches("<path class=\"line").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(
            svg.contains(&escape(&format!(
                "{} with {} of the labels (10 images), mean of 2",
                percent(0.6),
                short_percent(0.01)
            ))),
            "{svg}"
        );
    }
}
