//! The graph as a picture: rounded boxes, arrows from top to bottom, light or dark as the viewer prefers.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    export::{Tone, tone},
    layout::{BoxPlace, EdgePath, layout},
    stage_graph::StageGraph,
};

const MARGIN: f64 = 20.0;
const BOX_HEIGHT: f64 = 54.0;
const MIN_WIDTH: f64 = 112.0;
/// Widths of a character at the sizes of the name and of the line below it.
const NAME_CHAR: f64 = 8.4;
const SMALL_CHAR: f64 = 6.9;
/// Longer names are cut; the whole name stands in the tooltip.
const MAX_CHARS: usize = 32;

const STYLE: &str = "
    svg { font-family: ui-sans-serif, system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; }
    .back { fill: #ffffff; }
    .box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.25; }
    .good .box { fill: #e6f6ea; stroke: #2f8f4e; }
    .busy .box { fill: #fff5dc; stroke: #b7821b; }
    .bad .box { fill: #fdecea; stroke: #c0463b; }
    .name { fill: #1f2328; font-size: 14px; font-weight: 600; }
    .kind { fill: #59636e; font-size: 12px; }
    .status { font-weight: 600; }
    .good .status { fill: #1f7a3d; } .busy .status { fill: #8a5d00; } .bad .status { fill: #b02a20; }
    .edge { fill: none; stroke: #8c959f; stroke-width: 1.5; }
    .tip { fill: #8c959f; }
    @media (prefers-color-scheme: dark) {
      .back { fill: #0d1117; }
      .box { fill: #161b22; stroke: #6e7681; }
      .good .box { fill: #10281a; stroke: #3fb950; }
      .busy .box { fill: #2b2210; stroke: #d29922; }
      .bad .box { fill: #301515; stroke: #f85149; }
      .name { fill: #e6edf3; } .kind { fill: #9198a1; }
      .good .status { fill: #56d364; } .busy .status { fill: #e3b341; } .bad .status { fill: #ff7b72; }
      .edge { stroke: #6e7681; } .tip { fill: #6e7681; }
    }
";

/// The graph as an SVG picture that stands alone.
///
/// `status` holds a word for some of the stages. Words like `hit` and `done` are green, `miss` and `ran`
/// amber, `failed` red; others are written without a colour. Only the first word counts and is shown; all of
/// it stands in the tooltip.
pub fn svg(graph: &StageGraph, status: &BTreeMap<String, String>) -> String {
    let labels: Vec<Label> = graph
        .nodes()
        .map(|(_, node)| {
            let status = status.get(&node.name).map(String::as_str);
            let title = match status {
                Some(status) => format!("{} ({}): {status}", node.name, node.kind.name()),
                None => format!("{} ({})", node.name, node.kind.name()),
            };
            Label {
                name: &node.name,
                kind: node.kind.name(),
                word: status.and_then(|status| status.split([' ', ':', ',']).next()).unwrap_or_default(),
                tone: tone(status),
                title,
            }
        })
        .collect();
    let drawing = draw(graph, &labels);
    let (width, height) = (drawing.width, drawing.height);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"pipeline\">\n<style>{STYLE}</style>\n<defs>{}</defs>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
        tip("tip"),
        drawing.body,
    )
}

/// What a box of [`inline_svg`] says beside its name and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoxWords {
    /// A word that decides the colour, as in [`svg`].
    pub tone: String,
    /// What stands behind the kind.
    pub status: String,
    /// What the pointer shows, of several lines.
    pub title: String,
}

/// The graph as a part of a page whose style sheet knows the classes `pipeline`, `stage`, `box`, `name`, `kind`, `status`,
/// `edge` and `tip`, and `good`, `busy` and `bad`. `label` is what it says to those who cannot see it.
pub fn inline_svg(graph: &StageGraph, words: &BTreeMap<String, BoxWords>, label: &str) -> String {
    let none = BoxWords::default();
    let labels: Vec<Label> = graph
        .nodes()
        .map(|(_, node)| {
            let words = words.get(&node.name).unwrap_or(&none);
            Label {
                name: &node.name,
                kind: node.kind.name(),
                word: &words.status,
                tone: tone(Some(words.tone.as_str())),
                title: words.title.clone(),
            }
        })
        .collect();
    let drawing = draw(graph, &labels);
    let (width, height) = (drawing.width, drawing.height);
    format!(
        "<svg class=\"pipeline\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\"><defs>{}</defs>\n{}</svg>",
        escape(label),
        tip("tip"),
        drawing.body,
    )
}

fn tip(id: &str) -> String {
    format!(
        "<marker id=\"{id}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\" markerUnits=\"userSpaceOnUse\"><path class=\"tip\" d=\"M0,0.5 L8,4 L0,7.5 z\"/></marker>"
    )
}

/// Edges and boxes, and the room that they take.
struct Drawing {
    width: f64,
    height: f64,
    body: String,
}

fn draw(graph: &StageGraph, labels: &[Label<'_>]) -> Drawing {
    let widths: Vec<f64> = labels.iter().map(Label::width).collect();
    let layout = layout(graph, &widths, BOX_HEIGHT);
    let (width, height) = ((layout.width + 2.0 * MARGIN).ceil(), (layout.height + 2.0 * MARGIN).ceil());
    let mut out = format!("<g transform=\"translate({MARGIN},{MARGIN})\">\n");
    let ports = Ports::new(&layout.boxes, &layout.edges);
    for (idx, (from, to, points)) in layout.edges.iter().enumerate() {
        let title = format!("{} → {}", labels[*from].name, labels[*to].name);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<path class=\"edge\" marker-end=\"url(#tip)\" d=\"{}\"><title>{}</title></path>",
            curve(ports.start(idx, &layout.boxes[*from]), points, ports.end(idx, &layout.boxes[*to])),
            escape(&title)
        );
    }
    for (label, place) in labels.iter().zip(&layout.boxes) {
        label.draw(*place, &mut out);
    }
    out.push_str("</g>\n");
    Drawing { width, height, body: out }
}

struct Label<'a> {
    name: &'a str,
    kind: &'a str,
    word: &'a str,
    tone: Tone,
    title: String,
}

impl Label<'_> {
    fn width(&self) -> f64 {
        let name = shorten(self.name).chars().count() as f64 * NAME_CHAR;
        let mut small = self.kind.len();
        if !self.word.is_empty() {
            small += 3 + shorten(self.word).chars().count();
        }
        (name.max(small as f64 * SMALL_CHAR) + 30.0).max(MIN_WIDTH).round()
    }

    fn draw(&self, place: BoxPlace, out: &mut String) {
        let class = match self.tone {
            Tone::Good => "stage good",
            Tone::Busy => "stage busy",
            Tone::Bad => "stage bad",
            Tone::Plain => "stage",
        };
        let word = match self.word {
            "" => String::new(),
            word => format!(" · <tspan class=\"status\">{}</tspan>", escape(&shorten(word))),
        };
        let _ = writeln!(
            out,
            "<g class=\"{class}\"><title>{title}</title><rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"9\"/><text class=\"name\" text-anchor=\"middle\" x=\"{cx:.1}\" y=\"{name_y:.1}\">{name}</text><text class=\"kind\" text-anchor=\"middle\" x=\"{cx:.1}\" y=\"{kind_y:.1}\">{kind}{word}</text></g>",
            title = escape(&self.title),
            x = place.x - place.width / 2.0,
            y = place.y - place.height / 2.0,
            width = place.width,
            height = place.height,
            cx = place.x,
            name_y = place.y - 4.0,
            kind_y = place.y + 15.0,
            name = escape(&shorten(self.name)),
            kind = self.kind
        );
    }
}

/// Where edges leave and enter boxes: side by side in the order of their other ends, so that they do not cross
/// at once.
struct Ports {
    starts: Vec<f64>,
    ends: Vec<f64>,
}

impl Ports {
    fn new(boxes: &[BoxPlace], edges: &[EdgePath]) -> Self {
        let mut ports = Self { starts: vec![0.0; edges.len()], ends: vec![0.0; edges.len()] };
        for (idx, place) in boxes.iter().enumerate() {
            let spread = |mut keyed: Vec<(f64, usize)>, out: &mut Vec<f64>| {
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let step = (place.width * 0.6 / keyed.len().max(1) as f64).min(18.0);
                let first = -(keyed.len().saturating_sub(1) as f64) * step / 2.0;
                for (at, (_, edge)) in keyed.iter().enumerate() {
                    out[*edge] = first + at as f64 * step;
                }
            };
            let toward = |(from, to, points): &EdgePath, out: bool| {
                let next = if out { points.first() } else { points.last() };
                next.map_or(boxes[if out { *to } else { *from }].x, |(x, _)| *x)
            };
            let numbered = || edges.iter().enumerate();
            spread(
                numbered().filter(|(_, edge)| edge.0 == idx).map(|(at, edge)| (toward(edge, true), at)).collect(),
                &mut ports.starts,
            );
            spread(
                numbered().filter(|(_, edge)| edge.1 == idx).map(|(at, edge)| (toward(edge, false), at)).collect(),
                &mut ports.ends,
            );
        }
        ports
    }

    fn start(&self, edge: usize, place: &BoxPlace) -> (f64, f64) {
        (place.x + self.starts[edge], place.y + place.height / 2.0)
    }

    fn end(&self, edge: usize, place: &BoxPlace) -> (f64, f64) {
        (place.x + self.ends[edge], place.y - place.height / 2.0 - 1.0)
    }
}

/// Upright at every point, bending between.
fn curve(start: (f64, f64), points: &[(f64, f64)], end: (f64, f64)) -> String {
    let mut path = format!("M{:.1},{:.1}", start.0, start.1);
    let mut at = start;
    let half = BOX_HEIGHT / 2.0;
    let mut bend = |to: (f64, f64)| {
        let middle = f64::midpoint(at.1, to.1);
        let _ = write!(path, " C{:.1},{middle:.1} {:.1},{middle:.1} {:.1},{:.1}", at.0, to.0, to.0, to.1);
        at = to;
    };
    let mut straights = vec![];
    for (x, y) in points {
        // Straight past the boxes of the layer, so that the edge keeps to its lane.
        straights.push((*x, y - half));
        straights.push((*x, y + half));
    }
    for to in straights {
        bend(to);
    }
    bend(end);
    path
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::stage_graph::tests::pipeline;

    #[test]
    fn a_small_picture_is_as_it_was() {
        let pipeline = pipeline(&[("train", &[]), ("views", &["train"]), ("pretrain", &["train", "views"])]);
        let status =
            BTreeMap::from([("train".into(), "hit".into()), ("pretrain".into(), "miss: epochs 1 -> 2".into())]);
        insta::assert_snapshot!(svg(&StageGraph::build(&pipeline).unwrap(), &status));
    }

    #[test]
    fn what_looks_like_markup_is_text() {
        let pipeline = pipeline(&[("a", &[])]);
        let status = BTreeMap::from([("a".into(), "<script>&\"".into())]);
        let picture = svg(&StageGraph::build(&pipeline).unwrap(), &status);
        assert!(!picture.contains("<script>"));
        assert!(picture.contains("&lt;script&gt;&amp;&quot;"));
    }

    #[test]
    fn boxes_of_a_layer_never_overlap() {
        let stages: [(&str, &[&str]); 9] = [
            ("a", &[]),
            ("b", &["a"]),
            ("a_stage_with_a_long_name", &["a"]),
            ("c", &["a"]),
            ("d", &["b", "c"]),
            ("e", &["a", "d"]),
            ("f", &["a_stage_with_a_long_name"]),
            ("g", &["e", "f", "a"]),
            ("h", &[]),
        ];
        let graph = StageGraph::build(&pipeline(&stages)).unwrap();
        let widths: Vec<f64> = stages.iter().map(|(name, _)| 60.0 + name.len() as f64 * 9.0).collect();
        let places = layout(&graph, &widths, 50.0).boxes;
        for (idx, one) in places.iter().enumerate() {
            for other in places[idx + 1..].iter().filter(|other| other.y == one.y) {
                assert!((one.x - other.x).abs() >= f64::midpoint(one.width, other.width) + 10.0);
            }
        }
    }

    #[test]
    fn an_empty_graph_is_an_empty_picture() {
        let picture = svg(&StageGraph::build(&pipeline(&[])).unwrap(), &BTreeMap::new());
        assert!(picture.contains("width=\"40\""));
    }
}
