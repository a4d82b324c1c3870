//! Accuracies as bars with their intervals, one beside the other, as inline SVG.

use std::fmt::Write as _;

use super::{
    svg::coordinate,
    text::{escape, percent, shortened},
};

const WIDTH: f64 = 420.0;
const LEFT: f64 = 1.0;
const RIGHT: f64 = 12.0;
const ROW: f64 = 46.0;
const BAR: f64 = 14.0;
const AXIS: f64 = 34.0;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// A share in [0, 1].
    pub value: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
    /// Whether it is the one that the chart is about.
    pub is_main: bool,
}

/// Bars from 0 to 100 %, with a dashed line at `guessing`, the score of always guessing the largest class.
pub fn render_bars(id: &str, title: &str, bars: &[Bar], guessing: f64) -> String {
    let height = ROW * bars.len() as f64 + AXIS;
    let x = |share: f64| LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let words = |bar: &Bar| {
        format!(
            "{}: {}, 95\u{202f}% interval {} to {}",
            bar.name,
            percent(bar.value),
            percent(bar.interval[0]),
            percent(bar.interval[1])
        )
    };
    let description: Vec<String> = bars.iter().map(words).collect();
    let (id, title) = (escape(id), escape(title));
    let mut svg = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">{title}</title><desc id=\"{id}-desc\">{}.</desc>",
        escape(&description.join("; "))
    );
    // Writing to a String cannot fail, here and below.
    let floor = ROW * bars.len() as f64;
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let anchor = match tick {
            0.0 => "start",
            1.0 => "end",
            _ => "middle",
        };
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"{floor}\"/>\
             <text class=\"tick {anchor}\" x=\"{0}\" y=\"{1}\">{2:.0}\u{202f}%</text>",
            coordinate(x(tick)),
            floor + 16.0,
            tick * 100.0
        );
    }
    for (idx, bar) in bars.iter().enumerate() {
        let top = ROW * idx as f64;
        let (text_at, bar_top, middle) = (top + 15.0, top + 21.0, top + 21.0 + BAR / 2.0);
        let [low, high] = bar.interval.map(|bound| coordinate(x(bound)));
        let (cap_top, cap_bottom) = (middle - 4.0, middle + 4.0);
        let _ = write!(
            svg,
            "<g class=\"bar{}\"><title>{}</title>\
             <text class=\"name\" x=\"{LEFT}\" y=\"{text_at}\">{}</text>\
             <text class=\"value end\" x=\"{}\" y=\"{text_at}\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{bar_top}\" width=\"{}\" height=\"{BAR}\" rx=\"2\"/>\
             <path class=\"whisker\" d=\"M{low} {middle}H{high}M{low} {cap_top}V{cap_bottom}M{high} {cap_top}V{cap_bottom}\"/></g>",
            if bar.is_main { " main" } else { "" },
            escape(&words(bar)),
            escape(&shortened(&bar.name, 40)),
            WIDTH - RIGHT,
            percent(bar.value),
            coordinate(x(bar.value) - LEFT),
        );
    }
    if guessing > 0.0 {
        let at = coordinate(x(guessing));
        let _ = write!(
            svg,
            "<g class=\"guessing\"><title>always guessing the largest class: {}</title>",
            percent(guessing)
        );
        // Beside the bars only, so that the names stay readable.
        for idx in 0..bars.len() {
            let bar_top = ROW * idx as f64 + 21.0;
            let _ = write!(
                svg,
                "<line class=\"reference\" x1=\"{at}\" x2=\"{at}\" y1=\"{}\" y2=\"{}\"/>",
                bar_top - 4.0,
                bar_top + BAR + 4.0
            );
        }
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_value() {
        let bars = [
            Bar { name: "Pretrained".into(), value: 0.5, interval: [0.4, 0.6], is_main: true },
            Bar { name: "<i>".into(), value: 0.25, interval: [0.2, 1.3], is_main: false },
        ];
        let svg = render_bars("probe", "Top-1", &bars, 0.2);
        assert!(svg.contains("width=\"203.5\"") && svg.contains("width=\"101.75\""), "{svg}");
        assert!(svg.contains("&lt;i&gt;") && !svg.contains("<i>"));
        assert!(svg.contains("H408"), "intervals end within the axis: {svg}");
    }

    #[test]
    fn no_bars_are_no_panic() {
        assert!(render_bars("a", "b", &[], 0.0).ends_with("</svg>"));
    }
}
