//! A line chart over epochs as inline SVG. Colours come from the page's classes, values under the pointer from
//! strips that carry them as titles and as data for the page's script.

use std::fmt::Write as _;

use super::{
    svg::{Axis, coordinate, path},
    text::{escape, number},
};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 34.0;
/// Strips under the pointer, at most: the page stays light however long the training was.
const STRIPS: usize = 120;

/// One line.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// Its name in what the pointer shows.
    pub name: &'a str,
    /// Epoch and value, ascending by epoch.
    pub points: Vec<(u32, f64)>,
}

/// A line chart over epochs.
#[derive(Clone, Debug)]
pub struct LineChart<'a> {
    /// Unique on the page; letters, digits and hyphens.
    pub id: &'a str,
    /// What the chart shows.
    pub title: &'a str,
    /// One or two lines.
    pub series: Vec<Series<'a>>,
    /// A value that is drawn as a line across, with its name.
    pub reference: Option<(f64, &'a str)>,
    /// Values that the axis must cover.
    pub covers: &'a [f64],
    /// Written after the numbers of the vertical axis, such as `%`.
    pub suffix: &'a str,
    /// How values are written under the pointer.
    pub format: fn(f64) -> String,
}

/// A chart and what it says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedChart {
    /// The `<svg>` element.
    pub svg: String,
    /// The last values in words.
    pub last: String,
}

impl LineChart<'_> {
    /// The chart, or nothing where no series has a point.
    pub fn render(&self) -> Option<RenderedChart> {
        let epochs = || self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let (first, last) = (epochs().min()?, epochs().max()?);
        let values = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let y_axis = Axis::over(values.chain(self.covers.iter().copied()).chain(self.reference.map(|r| r.0)), 4);
        let x_axis = Axis::over_counts(first, last, 5);
        let x = |epoch: f64| LEFT + x_axis.share(epoch) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM);

        let (id, title) = (escape(self.id), escape(self.title));
        let last_words = self.words(last);
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" tabindex=\"0\" \
             aria-labelledby=\"{id}-title {id}-desc\"><title id=\"{id}-title\">{title}</title>\
             <desc id=\"{id}-desc\">{}</desc>",
            escape(&self.description(first, last))
        );
        // Writing to a String cannot fail, here and below.
        for &tick in &y_axis.ticks {
            let at = coordinate(y(tick));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\"/>\
                 <text class=\"tick end\" x=\"{}\" y=\"{}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                coordinate(y(tick) + 4.0),
                escape(&format!("{}{}", number(tick, y_axis.decimals), self.suffix))
            );
        }
        for &tick in &x_axis.ticks {
            let _ = write!(
                svg,
                "<text class=\"tick middle\" x=\"{}\" y=\"{}\">{}</text>",
                coordinate(x(tick)),
                HEIGHT - BOTTOM + 17.0,
                number(tick, 0)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"tick end\" x=\"{}\" y=\"{}\">epoch</text>",
            WIDTH - RIGHT,
            coordinate(HEIGHT - 3.0)
        );
        if let Some((value, name)) = self.reference {
            let at = coordinate(y(value));
            let _ = write!(
                svg,
                "<line class=\"reference\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\"/>\
                 <text class=\"tick end\" x=\"{}\" y=\"{}\">{}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT,
                coordinate(y(value) - 5.0),
                escape(name)
            );
        }
        for (idx, series) in self.series.iter().enumerate().rev() {
            let points = series.points.iter().filter(|point| point.1.is_finite());
            let at: Vec<(f64, f64)> = points.map(|&(epoch, value)| (x(f64::from(epoch)), y(value))).collect();
            let _ = write!(svg, "<path class=\"line s{idx}\" d=\"{}\"/>", path(at.iter().copied()));
            // Few points are drawn one by one: a single one would have no line at all.
            if at.len() <= 30 {
                for (px, py) in at {
                    let _ = write!(
                        svg,
                        "<circle class=\"mark s{idx}\" cx=\"{}\" cy=\"{}\" r=\"2.5\"/>",
                        coordinate(px),
                        coordinate(py)
                    );
                }
            }
        }
        self.strips(&mut svg, &x, &y);
        svg.push_str("</svg>");
        Some(RenderedChart { svg, last: last_words })
    }

    /// Invisible columns, one for each epoch or every few epochs.
    fn strips(&self, svg: &mut String, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
        let mut epochs: Vec<u32> =
            self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let shown: Vec<u32> = if epochs.len() <= STRIPS {
            epochs
        } else {
            // The first and the last are always among them.
            (0..STRIPS).map(|idx| epochs[idx * (epochs.len() - 1) / (STRIPS - 1)]).collect()
        };
        svg.push_str("<g class=\"strips\">");
        for (idx, &epoch) in shown.iter().enumerate() {
            let at = x(f64::from(epoch));
            let from = if idx == 0 { LEFT } else { f64::midpoint(x(f64::from(shown[idx - 1])), at) };
            let to = shown.get(idx + 1).map_or(WIDTH - RIGHT, |&next| f64::midpoint(x(f64::from(next)), at));
            let dots: Vec<String> = self
                .series
                .iter()
                .map(|series| {
                    value_at(series, epoch)
                        .map_or(String::new(), |value| format!("{} {}", coordinate(at), coordinate(y(value))))
                })
                .collect();
            let words = escape(&self.words(epoch));
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" data-value=\"{words}\" data-dots=\"{}\">\
                 <title>{words}</title></rect>",
                coordinate(from),
                coordinate((to - from).max(0.5)),
                HEIGHT - TOP - BOTTOM,
                dots.join(";")
            );
        }
        svg.push_str("</g>");
    }

    fn words(&self, epoch: u32) -> String {
        let mut words = format!("epoch {epoch}");
        for series in &self.series {
            if let Some(value) = value_at(series, epoch) {
                let _ = write!(words, " · {} {}", series.name, (self.format)(value));
            }
        }
        words
    }

    fn description(&self, first: u32, last: u32) -> String {
        let mut words = format!("Epochs {first} to {last}.");
        for series in &self.series {
            if let (Some(begin), Some(end)) = (series.points.first(), series.points.last()) {
                let _ = write!(words, " {}: from {} to {}.", series.name, (self.format)(begin.1), (self.format)(end.1));
            }
        }
        words
    }
}

fn value_at(series: &Series<'_>, epoch: u32) -> Option<f64> {
    series.points.binary_search_by_key(&epoch, |point| point.0).ok().map(|idx| series.points[idx].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(name: &str, points: Vec<(u32, f64)>) -> LineChart<'_> {
        LineChart {
            id: "loss",
            title: "Loss",
            series: vec![Series { name, points }],
            reference: None,
            covers: &[],
            suffix: "",
            format: |value| number(value, 3),
        }
    }

    #[test]
    fn no_points_give_no_chart() {
        assert_eq!(chart("loss", vec![]).render(), None);
    }

    #[test]
    fn one_point_is_a_mark() {
        let rendered = chart("loss", vec![(1, -0.5)]).render().unwrap();
        assert!(rendered.svg.contains("<circle"));
        assert_eq!(rendered.last, "epoch 1 · loss −0.500");
        assert!(!rendered.svg.contains("NaN") && !rendered.svg.contains("inf"));
    }

    #[test]
    fn long_trainings_have_few_strips_but_every_point_in_the_line() {
        let rendered =
            chart("loss", (1..=2_000).map(|epoch| (epoch, -1.0 / f64::from(epoch))).collect()).render().unwrap();
        assert_eq!(rendered.svg.matches("<rect").count(), STRIPS);
        assert_eq!(rendered.svg.matches('L').count(), 1_999 + usize::from(rendered.svg.contains("Loss")));
        assert!(rendered.svg.contains("epoch 2000"));
    }

    #[test]
    fn names_cannot_break_out() {
        let rendered = chart("<script>\"'", vec![(1, 0.0), (2, 1.0)]).render().unwrap();
        assert!(!rendered.svg.contains("<script"));
        assert!(rendered.svg.contains("&lt;script&gt;&quot;&#39;"));
    }

    #[test]
    fn values_that_are_not_finite_leave_no_trace_in_the_line() {
        let rendered = chart("loss", vec![(1, 0.5), (2, f64::NAN), (3, 0.7)]).render().unwrap();
        assert!(!rendered.svg.contains("d=\"MNaN") && !rendered.svg.contains("LNaN"));
    }
}
