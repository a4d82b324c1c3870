//! `report.html`: one self-contained page from the view model.

use std::collections::BTreeMap;

use minijinja::{
    AutoEscape, Environment, UndefinedBehavior, Value, context,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind},
};
use serde::Serialize;

use super::{
    bar_chart::{Bar, render_bars},
    cells::PretrainingCells,
    choice::cell_of,
    label_chart::render_label_chart,
    line_chart::{LineChart, RenderedChart, Series},
    map_chart::{LegendEntry, Projection, legend, render_map},
    parallel_chart::render_parallel,
    pictures::Sprite,
    report_error::ReportError,
    summary::{ClassifierPoint, ClassifierSummary, CurvePoint, PretrainingSummary, Summary},
    text::{self, count, label_of, number, percent, short_percent, shortened, significant},
    verdict::lead_classifier,
};

/// Classes up to which the confusion matrix is shown as a table.
const MATRIX_CLASSES: usize = 30;
/// Rows of the table of epochs, at most.
const EPOCH_ROWS: usize = 60;

/// Pictures that the page embeds.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// The contact sheet of the augmentation policy, a PNG file.
    pub preview: Option<Vec<u8>>,
    /// Small PNG or JPEG files of images by the file name under which the summary lists them.
    pub thumbnails: BTreeMap<String, Vec<u8>>,
    /// The images of the map's points, in their order.
    pub map: Option<Sprite>,
    /// For each row of neighbours the image itself and its neighbours, as JPEG files.
    pub neighbours: Vec<Vec<Vec<u8>>>,
}

/// A chart with its caption.
#[derive(Serialize)]
pub(super) struct Figure<'a> {
    title: &'static str,
    note: &'a str,
    last: String,
    svg: Value,
    legend: Vec<&'a str>,
}

impl<'a> Figure<'a> {
    /// Nothing where the chart has no points.
    pub(super) fn new(title: &'static str, note: &'a str, legend: Vec<&'a str>, chart: &LineChart<'_>) -> Option<Self> {
        let RenderedChart { svg, last } = chart.render()?;
        Some(Self { title, note, last, svg: Value::from_safe_string(svg), legend })
    }
}

/// A classifier as the page shows it.
#[derive(Serialize)]
struct ClassifierView<'a> {
    #[serde(flatten)]
    summary: &'a ClassifierSummary,
    id: String,
    label: String,
    bars: Value,
    matrix: Option<Vec<MatrixRow<'a>>>,
    figures: Vec<Figure<'static>>,
}

/// One row of the confusion matrix.
#[derive(Serialize)]
struct MatrixRow<'a> {
    name: &'a str,
    total: u64,
    cells: Vec<MatrixCell<'a>>,
}

/// One cell of the confusion matrix.
#[derive(Serialize)]
struct MatrixCell<'a> {
    count: u64,
    /// Whole percents of the row.
    shade: u64,
    right: bool,
    predicted: &'a str,
}

/// The page.
///
/// # Errors
/// Where the template fails, which would be a defect.
pub fn render_html(summary: &Summary, pictures: &Pictures) -> Result<String, ReportError> {
    let environment = environment()?;
    let lead = lead_classifier(&summary.classifiers);
    let lead_idx = summary.classifiers.iter().position(|classifier| lead.is_some_and(|l| std::ptr::eq(l, classifier)));
    let mut classifiers: Vec<ClassifierView<'_>> =
        summary.classifiers.iter().enumerate().map(|(idx, _)| classifier_view(idx, &summary.classifiers)).collect();
    // The one that speaks for the features stands first, the others keep their order.
    if let Some(idx) = lead_idx {
        let first = classifiers.remove(idx);
        classifiers.insert(0, first);
    }
    let figures = summary.pretraining.as_ref().map_or_else(Vec::new, figures);
    let epochs: Vec<&CurvePoint> = summary.pretraining.as_ref().map_or_else(Vec::new, |run| spread_epochs(&run.curve));
    let cell_figures = summary.cells.as_ref().map_or_else(Vec::new, PretrainingCells::figures);
    let thumbnails: BTreeMap<&str, Value> =
        pictures.thumbnails.iter().map(|(file, png)| (file.as_str(), data_uri(png))).collect();
    let map = summary.embedding_map.as_ref();
    let picture = |projection: Projection| {
        let svg = render_map(&format!("map-{}", projection.name()), map?, projection)?;
        Some(Value::from_safe_string(svg))
    };
    let map_legend: Vec<LegendEntry> = map.map_or_else(Vec::new, legend);
    let sprite = pictures.map.as_ref().map(|sprite| {
        context! {
            uri => data_uri(&sprite.jpeg), tile => sprite.tile, columns => sprite.columns
        }
    });
    let neighbours: Vec<Vec<Value>> =
        pictures.neighbours.iter().map(|row| row.iter().map(|jpeg| data_uri(jpeg)).collect()).collect();
    let parallel =
        summary.cells.as_ref().and_then(|cells| render_parallel("chart-parallel", &cells.runs, cells.choice.as_ref()));
    let page = environment.get_template("report.html")?.render(context! {
        summary => plain(summary),
        classifiers => plain(&classifiers),
        figures => plain(&figures),
        cell_figures => plain(&cell_figures),
        epochs => plain(&epochs),
        map_svg => picture(Projection::Pca),
        tsne_svg => picture(Projection::Tsne),
        sprite,
        neighbour_pictures => neighbours,
        parallel_svg => parallel.map(Value::from_safe_string),
        label_svg => render_label_chart("chart-labels", &summary.classifiers).map(Value::from_safe_string),
        map_legend => plain(&map_legend),
        thumbnails => plain(&thumbnails),
        preview => pictures.preview.as_deref().map(data_uri),
        style => Value::from_safe_string(include_str!("templates/style.css").to_owned()),
        script => Value::from_safe_string(include_str!("templates/script.js").to_owned()),
    })?;
    Ok(page)
}

pub(super) fn plain<T: Serialize>(value: T) -> Value {
    Value::from(Serde(value))
}

pub(super) fn environment() -> Result<Environment<'static>, ReportError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(whitespace);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // Every string that is not marked as safe also loses what could hide or reorder text.
    environment.set_formatter(|out, state, value| match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) if !value.is_safe() => {
            out.write_str(&text::escape(text)).map_err(minijinja::Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("percent", percent);
    environment.add_filter("number", |value: f64, decimals: usize| number(value, decimals));
    environment.add_filter("signed", text::signed);
    environment.add_filter("significant", significant);
    environment.add_filter("count", count);
    environment.add_filter("label", |word: &str| label_of(word));
    environment.add_filter("short", |word: &str, max: usize| shortened(word, max));
    environment.add_filter("pretty", |value: Value| {
        serde_json::to_string_pretty(&value)
            .map(|text| block(&text))
            .map_err(|error| minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string()))
    });
    environment.add_filter("block", |text: &str| block(text));
    // One file of macros in front of the page, since the library is built without includes.
    let page = concat!(include_str!("templates/classifier.html"), include_str!("templates/report.html"));
    environment.add_template("report.html", page)?;
    environment.add_template("run.html", include_str!("templates/run.html"))?;
    environment.add_template(
        "figure.html",
        concat!(include_str!("templates/classifier.html"), "{{ chart_figure(figure) }}"),
    )?;
    Ok(environment)
}

/// Text of several lines: their ends stay, all else that could hide is shown.
fn block(text: &str) -> Value {
    Value::from_safe_string(text.lines().map(text::escape).collect::<Vec<_>>().join("\n"))
}

fn figures(run: &PretrainingSummary) -> Vec<Figure<'static>> {
    let line = |pick: fn(&CurvePoint) -> Option<f64>| -> Vec<(u32, f64)> {
        run.curve.iter().filter_map(|point| Some((point.epoch, pick(point)?))).collect()
    };
    let mut figures = vec![];
    let mut add = |title, note, legend: Vec<&'static str>, chart: LineChart<'static>| {
        figures.extend(Figure::new(title, note, legend, &chart));
    };
    add(
        "Loss",
        "Negative cosine similarity of two views of an image; −1 is the least possible.",
        vec![],
        LineChart {
            id: "chart-loss",
            title: "Loss by epoch",
            series: vec![Series { name: "loss", points: line(|point| Some(point.loss)) }],
            reference: None,
            covers: &[],
            suffix: "",
            format: |value| number(value, 3),
        },
    );
    add(
        "Spread of the embeddings",
        "Their deviation as a share of its healthy value: 1 is healthy, 0 is collapse.",
        vec![],
        LineChart {
            id: "chart-spread",
            title: "Spread of the embeddings by epoch",
            series: vec![Series { name: "spread", points: line(|point| Some(point.embedding_std_ratio)) }],
            reference: Some((1.0, "healthy")),
            covers: &[0.0, 1.0],
            suffix: "",
            format: |value| number(value, 3),
        },
    );
    add(
        "Nearest-neighbour accuracy",
        "Share of the monitor images whose nearest neighbours name the right class.",
        vec![],
        LineChart {
            id: "chart-knn",
            title: "Nearest-neighbour accuracy by epoch",
            series: vec![Series { name: "top-1", points: line(|point| point.knn_top1.map(|top1| top1 * 100.0)) }],
            reference: None,
            covers: &[],
            suffix: "%",
            format: |value| percent(value / 100.0),
        },
    );
    add(
        "Learning rate",
        "At the end of each epoch.",
        vec!["backbone and projector", "predictor"],
        LineChart {
            id: "chart-lr",
            title: "Learning rates by epoch",
            series: vec![
                Series { name: "backbone", points: line(|point| Some(point.lr)) },
                Series { name: "predictor", points: line(|point| Some(point.predictor_lr)) },
            ],
            reference: None,
            covers: &[0.0],
            suffix: "",
            format: significant,
        },
    );
    figures
}

/// At most [`EPOCH_ROWS`] epochs, the first and the last among them.
fn spread_epochs(curve: &[CurvePoint]) -> Vec<&CurvePoint> {
    if curve.len() <= EPOCH_ROWS {
        return curve.iter().collect();
    }
    (0..EPOCH_ROWS).map(|idx| &curve[idx * (curve.len() - 1) / (EPOCH_ROWS - 1)]).collect()
}

fn classifier_view(idx: usize, classifiers: &[ClassifierSummary]) -> ClassifierView<'_> {
    let classifier = &classifiers[idx];
    let plain_label = |classifier: &ClassifierSummary| {
        if classifier.label_fraction < 1.0 {
            format!("{}, {} of the labels", label_of(&classifier.protocol), short_percent(classifier.label_fraction))
        } else {
            label_of(&classifier.protocol)
        }
    };
    let mut label = plain_label(classifier);
    // Where several would be called the same, such as the cells of a matrix, what tells them apart is said, too.
    if classifiers.iter().filter(|other| plain_label(other) == label).count() > 1 {
        label = format!("{label}, {}", cell_of(&classifier.stage).unwrap_or(&classifier.stage));
    }
    let bars: Vec<Bar> = classifier
        .scores
        .iter()
        .enumerate()
        .map(|(idx, scores)| Bar {
            name: label_of(&scores.representation),
            value: scores.top1,
            interval: scores.top1_interval,
            is_main: idx == 0,
        })
        .collect();
    let id = format!("classifier-{}", idx + 1);
    let bars =
        render_bars(&format!("{id}-bars"), &format!("Top-1 accuracy, {label}"), &bars, classifier.largest_class_share);
    ClassifierView {
        summary: classifier,
        label,
        bars: Value::from_safe_string(bars),
        matrix: matrix(classifier),
        figures: classifier_figures(&id, classifier),
        id,
    }
}

/// Curves of a classifier that was trained by gradient descent.
fn classifier_figures(id: &str, classifier: &ClassifierSummary) -> Vec<Figure<'static>> {
    let line = |pick: fn(&ClassifierPoint) -> Option<f64>| -> Vec<(u32, f64)> {
        classifier.curve.iter().filter_map(|point| Some((point.epoch, pick(point)?))).collect()
    };
    let loss = LineChart {
        id: &format!("{id}-loss"),
        title: "Loss of the classifier by epoch",
        series: vec![
            Series { name: "training", points: line(|point| Some(point.train_loss)) },
            Series { name: "validation", points: line(|point| point.validation_loss) },
        ],
        reference: None,
        covers: &[0.0],
        suffix: "",
        format: |value| number(value, 3),
    };
    let accuracy = LineChart {
        id: &format!("{id}-accuracy"),
        title: "Validation accuracy of the classifier by epoch",
        series: vec![Series { name: "top-1", points: line(|point| point.validation_top1.map(|top1| top1 * 100.0)) }],
        reference: None,
        covers: &[],
        suffix: "%",
        format: |value| percent(value / 100.0),
    };
    let figure = |title, note, legend, chart: LineChart<'_>| {
        let RenderedChart { svg, last } = chart.render()?;
        Some(Figure { title, note, last, svg: Value::from_safe_string(svg), legend })
    };
    let has_validation = classifier.curve.iter().any(|point| point.validation_loss.is_some());
    let legend = if has_validation { vec!["training", "validation"] } else { vec![] };
    [
        figure("Loss", "Cross-entropy; 0 is the least possible.", legend, loss),
        figure("Validation accuracy", "On training images that were kept apart.", vec![], accuracy),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn matrix(classifier: &ClassifierSummary) -> Option<Vec<MatrixRow<'_>>> {
    let confusion = classifier.confusion.as_ref()?;
    if confusion.is_empty() || confusion.len() > MATRIX_CLASSES {
        return None;
    }
    let name = |idx: usize| classifier.per_class.get(idx).map_or("", |class| class.name.as_str());
    let rows = confusion.iter().enumerate().map(|(actual, row)| {
        let total: u64 = row.iter().sum();
        let cells = row.iter().enumerate().map(|(predicted, &count)| MatrixCell {
            count,
            shade: (100 * count + total / 2) / total.max(1),
            right: actual == predicted,
            predicted: name(predicted),
        });
        MatrixRow { name: name(actual), total, cells: cells.collect() }
    });
    Some(rows.collect())
}

fn data_uri(picture: &[u8]) -> Value {
    // JPEG files begin with a start-of-image marker; everything else here is PNG.
    let kind = if picture.starts_with(&[0xff, 0xd8]) { "jpeg" } else { "png" };
    Value::from_safe_string(format!("data:image/{kind};base64,{}", base64(picture)))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |idx: usize| u32::from(chunk.get(idx).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for idx in 0..4 {
            if idx <= chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * idx)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
