//! The map of embeddings as inline SVG: a shape and a colour for each class.

use std::fmt::Write as _;

use super::{
    summary::EmbeddingMap,
    svg::coordinate,
    text::{escape, percent},
};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 10.0;
/// Colours that the page defines.
const NUM_COLOURS: usize = 8;
/// Shapes about 9 units wide around the origin, easy to tell apart without colour.
const SHAPES: [&str; 7] = [
    "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1 -4 0Z",
    "M-3.6 -3.6H3.6V3.6H-3.6Z",
    "M0 -4.8L4.6 3.4H-4.6Z",
    "M0 -5L5 0L0 5L-5 0Z",
    "M0 4.8L4.6 -3.4H-4.6Z",
    "M-1.5 -4.6H1.5V-1.5H4.6V1.5H1.5V4.6H-1.5V1.5H-4.6V-1.5H-1.5Z",
    "M-4.6 -2.5L-2.5 -4.6L0 -2.1L2.5 -4.6L4.6 -2.5L2.1 0L4.6 2.5L2.5 4.6L0 2.1L-2.5 4.6L-4.6 2.5L-2.1 0Z",
];

/// A class as the legend shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LegendEntry {
    /// The class.
    pub name: String,
    /// Number of the colour.
    pub colour: usize,
    /// Path of the shape.
    pub shape: &'static str,
    /// Number of points.
    pub count: u64,
    /// Value of `data-class` on its points.
    pub class: String,
}

fn colour_of(class: usize) -> usize {
    class % NUM_COLOURS
}

/// Seven shapes against eight colours: 56 classes before a pair comes again.
fn shape_of(class: usize) -> &'static str {
    SHAPES[class % SHAPES.len()]
}

/// The map's `<svg>` element.
pub fn render_map(id: &str, map: &EmbeddingMap) -> String {
    let range = |pick: fn(&super::summary::MapPoint) -> f64| {
        let values = map.points.iter().map(pick).filter(|value| value.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    };
    let ((x_low, x_high), (y_low, y_high)) = (range(|point| point.x), range(|point| point.y));
    // The same scale both ways: distances on a map of principal components mean something.
    let scale =
        ((WIDTH - 2.0 * MARGIN) / (x_high - x_low).max(1e-9)).min((HEIGHT - 2.0 * MARGIN) / (y_high - y_low).max(1e-9));
    let x = |value: f64| WIDTH / 2.0 + (value - f64::midpoint(x_low, x_high)) * scale;
    let y = |value: f64| HEIGHT / 2.0 - (value - f64::midpoint(y_low, y_high)) * scale;

    let id = escape(id);
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">Map of the embeddings</title><desc id=\"{id}-desc\">{} images of {} classes along the two \
         directions in which their embeddings differ most, {} and {} of the variance.</desc>",
        map.points.len(),
        map.class_names.len(),
        percent(map.explained[0]),
        percent(map.explained[1])
    );
    // Writing to a String cannot fail, here and below.
    for point in &map.points {
        let class = point.class.map(|class| class as usize);
        let name = class.and_then(|class| map.class_names.get(class));
        let title = match (name, point.file.as_str()) {
            (Some(name), "") => name.clone(),
            (Some(name), file) => format!("{name} · {file}"),
            (None, file) => file.to_owned(),
        };
        let (colour, shape) = class.map_or(("none".to_owned(), SHAPES[0]), |c| (colour_of(c).to_string(), shape_of(c)));
        let _ = write!(
            svg,
            "<path class=\"point c{colour}\" data-class=\"{}\" transform=\"translate({} {})\" d=\"{shape}\">",
            class.map_or(String::new(), |class| class.to_string()),
            coordinate(x(point.x)),
            coordinate(y(point.y)),
        );
        if !title.is_empty() {
            let _ = write!(svg, "<title>{}</title>", escape(&title));
        }
        svg.push_str("</path>");
    }
    svg.push_str("</svg>");
    svg
}

/// The classes that have points, in their own order, then the points without a class.
pub fn legend(map: &EmbeddingMap) -> Vec<LegendEntry> {
    let mut counts = vec![0_u64; map.class_names.len()];
    for class in map.points.iter().filter_map(|point| point.class) {
        if let Some(count) = counts.get_mut(class as usize) {
            *count += 1;
        }
    }
    map.class_names
        .iter()
        .zip(counts)
        .enumerate()
        .filter(|(_, (_, count))| *count > 0)
        .map(|(class, (name, count))| LegendEntry {
            name: name.clone(),
            colour: colour_of(class),
            shape: shape_of(class),
            count,
            class: class.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::MapPoint;

    fn map(points: Vec<MapPoint>) -> EmbeddingMap {
        EmbeddingMap {
            stage: "embeddings".into(),
            split: "test".into(),
            num_images: points.len() as u64,
            dim: 8,
            explained: [0.4, 0.2],
            health: vec![],
            class_names: vec!["sea".into(), "</svg><script>".into(), "empty".into()],
            points,
        }
    }

    fn point(x: f64, class: Option<u32>) -> MapPoint {
        MapPoint { x, y: -x, class, file: "a\"b.jpg".into() }
    }

    #[test]
    fn points_lie_inside_and_names_cannot_break_out() {
        let svg = render_map("map", &map(vec![point(-3.0, Some(0)), point(9.0, Some(1)), point(1.0, None)]));
        assert_eq!(svg.matches("<path").count(), 3);
        assert!(svg.contains("translate(90 10)") && svg.contains("translate(470 390)"), "{svg}");
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt; · a&quot;b.jpg"));
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn equal_points_lie_in_the_middle() {
        let svg = render_map("map", &map(vec![point(2.0, Some(0)), point(2.0, Some(0))]));
        assert!(svg.contains("translate(280 200)"));
        assert!(render_map("map", &map(vec![])).ends_with("</svg>"));
    }

    #[test]
    fn the_legend_leaves_out_empty_classes() {
        let legend = legend(&map(vec![point(0.0, Some(1)), point(1.0, Some(1)), point(1.0, Some(0))]));
        assert_eq!(legend.iter().map(|entry| entry.count).collect::<Vec<_>>(), [1, 2]);
    }
}
