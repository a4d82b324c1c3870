//! The map of embeddings as inline SVG: a shape and a colour for each class.

use std::fmt::Write as _;

use super::{
    summary::{EmbeddingMap, MapPoint},
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

/// How the embeddings come to two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// The two directions in which they differ most.
    Pca,
    /// What is near stays near.
    Tsne,
}

impl Projection {
    /// The word in ids and for the page's script.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pca => "pca",
            Self::Tsne => "tsne",
        }
    }
}

/// The map's `<svg>` element; nothing where the map has no such projection.
pub fn render_map(id: &str, map: &EmbeddingMap, projection: Projection) -> Option<String> {
    let places: Vec<[f64; 2]> = match projection {
        Projection::Pca => map.points.iter().map(|point| [point.x, point.y]).collect(),
        Projection::Tsne => map.points.iter().map(|point| point.tsne).collect::<Option<_>>()?,
    };
    let range = |axis: usize| {
        let values = places.iter().map(|place| place[axis]).filter(|value| value.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    };
    let ((x_low, x_high), (y_low, y_high)) = (range(0), range(1));
    // The same scale both ways: distances on a map mean something.
    let scale =
        ((WIDTH - 2.0 * MARGIN) / (x_high - x_low).max(1e-9)).min((HEIGHT - 2.0 * MARGIN) / (y_high - y_low).max(1e-9));
    let x = |value: f64| WIDTH / 2.0 + (value - f64::midpoint(x_low, x_high)) * scale;
    let y = |value: f64| HEIGHT / 2.0 - (value - f64::midpoint(y_low, y_high)) * scale;

    let id = escape(id);
    let how = match projection {
        Projection::Pca => format!(
            "along the two directions in which their embeddings differ most, {} and {} of the variance",
            percent(map.explained[0]),
            percent(map.explained[1])
        ),
        Projection::Tsne => "by t-SNE: images with similar embeddings lie together".to_owned(),
    };
    let mut svg = format!(
        "<svg class=\"map\" data-projection=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-desc\"><title id=\"{id}-title\">Map of the embeddings</title>\
         <desc id=\"{id}-desc\">{} images of {} classes {how}.</desc>",
        projection.name(),
        map.points.len(),
        map.class_names.len(),
    );
    // Writing to a String cannot fail, here and below.
    for (idx, (point, [at_x, at_y])) in map.points.iter().zip(&places).enumerate() {
        let class = point.class.map(|class| class as usize);
        let (colour, shape) = class.map_or(("none".to_owned(), SHAPES[0]), |c| (colour_of(c).to_string(), shape_of(c)));
        let wrong = point.answer.is_some() && point.answer != point.class;
        let _ = write!(
            svg,
            "<path class=\"point c{colour}{}\" data-class=\"{}\" transform=\"translate({} {})\" d=\"{shape}\" data-point=\"{idx}\"",
            if wrong { " miss" } else { "" },
            class.map_or(String::new(), |class| class.to_string()),
            coordinate(x(*at_x)),
            coordinate(y(*at_y)),
        );
        let title = title(map, point);
        if title.is_empty() {
            svg.push_str("/>");
        } else {
            let _ = write!(svg, "><title>{}</title></path>", escape(&title));
        }
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn title(map: &EmbeddingMap, point: &MapPoint) -> String {
    let name = |class: Option<u32>| class.and_then(|class| map.class_names.get(class as usize));
    let mut words: Vec<String> = name(point.class).into_iter().cloned().collect();
    if let Some(answer) = name(point.answer).filter(|_| point.answer != point.class) {
        words.push(format!("taken for {answer}"));
    }
    if !point.file.is_empty() {
        words.push(point.file.clone());
    }
    words.join(" · ")
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

    fn map(points: Vec<MapPoint>) -> EmbeddingMap {
        EmbeddingMap {
            stage: "embeddings".into(),
            split: "test".into(),
            num_images: points.len() as u64,
            dim: 8,
            explained: [0.4, 0.2],
            perplexity: None,
            answers_of: None,
            health: vec![],
            class_distances: None,
            class_names: vec!["sea".into(), "</svg><script>".into(), "empty".into()],
            points,
            neighbours: vec![],
        }
    }

    fn point(x: f64, class: Option<u32>) -> MapPoint {
        MapPoint { x, y: -x, tsne: None, class, answer: None, file: "a\"b.jpg".into() }
    }

    fn pca(map: &EmbeddingMap) -> String {
        render_map("map", map, Projection::Pca).unwrap()
    }

    #[test]
    fn points_lie_inside_and_names_cannot_break_out() {
        let svg = pca(&map(vec![point(-3.0, Some(0)), point(9.0, Some(1)), point(1.0, None)]));
        assert_eq!(svg.matches("<path").count(), 3);
        assert!(svg.contains("translate(90 10)") && svg.contains("translate(470 390)"), "{svg}");
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt; · a&quot;b.jpg"));
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn equal_points_lie_in_the_middle() {
        let svg = pca(&map(vec![point(2.0, Some(0)), point(2.0, Some(0))]));
        assert!(svg.contains("translate(280 200)"));
        assert!(pca(&map(vec![])).ends_with("</svg>"));
    }

    #[test]
    fn wrong_answers_are_marked_and_named() {
        let answered = |answer| MapPoint { answer, ..point(1.0, Some(0)) };
        let svg = pca(&map(vec![answered(Some(0)), answered(Some(1)), answered(None)]));
        assert_eq!(svg.matches(" miss\"").count(), 1);
        assert!(svg.contains("<title>sea · taken for &lt;/svg&gt;&lt;script&gt; · a&quot;b.jpg</title>"), "{svg}");
    }

    #[test]
    fn a_map_without_t_sne_has_one_picture() {
        let mut all = map(vec![point(1.0, Some(0)), point(2.0, Some(1))]);
        assert_eq!(render_map("map", &all, Projection::Tsne), None);
        for (idx, point) in all.points.iter_mut().enumerate() {
            point.tsne = Some([idx as f64, 0.0]);
        }
        let svg = render_map("map", &all, Projection::Tsne).unwrap();
        assert!(svg.contains("data-projection=\"tsne\"") && svg.contains("translate(10 200)"), "{svg}");
    }

    #[test]
    fn the_legend_leaves_out_empty_classes() {
        let legend = legend(&map(vec![point(0.0, Some(1)), point(1.0, Some(1)), point(1.0, Some(0))]));
        assert_eq!(legend.iter().map(|entry| entry.count).collect::<Vec<_>>(), [1, 2]);
    }
}
