//! The `matrix` of a stage: its axes and their values.

use super::{
    findings::{Finding, Findings},
    node::{Entry, Node, NodeValue, shorten},
    scalar::{Scalar, ScalarKind},
    source::Span,
};

/// The most cells that one stage may become.
pub(crate) const MAX_CELLS: usize = 500;
/// The most characters of an axis's name, and of a value in the name of a cell.
const MAX_LABEL: usize = 40;

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Its key.
    pub name: String,
    /// Where that stands.
    pub name_span: Span,
    /// Its values in the order of the file; never empty.
    pub values: Vec<AxisValue>,
}

/// One value of an axis.
#[derive(Clone, Debug)]
pub(crate) struct AxisValue {
    /// How names of cells spell it.
    pub label: String,
    /// The same before it was made fit for names: equal where the values mean the same.
    text: String,
    /// What `${matrix.…}` stands for.
    pub node: Node,
}

/// The axes of a stage, whose `matrix` holds no references any more.
pub(crate) fn check(stage: &str, matrix: &Entry, findings: &mut Findings) -> Vec<Axis> {
    let span = matrix.value.span.or(matrix.key_span);
    const HELP: &str = "write `matrix: { AXIS: [VALUE, …] }`, and `${matrix.AXIS}` where the value belongs";
    let entries = match &matrix.value.value {
        NodeValue::Invalid => return vec![],
        NodeValue::Map(entries) if !entries.is_empty() => entries,
        NodeValue::Map(_) => {
            let finding = Finding::new("config::matrix", span, format!("the matrix of `{stage}` has no axis"));
            findings.error(finding.label("empty").help(HELP));
            return vec![];
        }
        _ => {
            let message = format!("`matrix` must be a mapping, but is {}", matrix.value.describe());
            findings.error(Finding::new("config::type", span, message).label("not a mapping").help(HELP));
            return vec![];
        }
    };
    let axes: Vec<Axis> = entries.iter().map(|entry| axis(entry, findings)).collect();
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    if count.is_none_or(|count| count > MAX_CELLS) {
        let counts: Vec<String> = axes.iter().map(|axis| axis.values.len().to_string()).collect();
        let message = format!("the matrix of `{stage}` has {} cells; at most {MAX_CELLS} can be", counts.join(" × "));
        findings.error(
            Finding::new("config::matrix_size", matrix.key_span, message)
                .label("too many")
                .help("take values away, or split the sweep into several pipelines: they share the cache"),
        );
        return axes.into_iter().map(first_only).collect();
    }
    axes
}

/// So that what follows from too large a matrix can still be checked.
fn first_only(mut axis: Axis) -> Axis {
    axis.values.truncate(1);
    axis
}

fn axis(entry: &Entry, findings: &mut Findings) -> Axis {
    let name = &entry.key;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= MAX_LABEL;
    if !is_name {
        findings.error(
            Finding::new("config::name", entry.key_span, format!("`{}` is not a name for an axis", shorten(name)))
                .label("not a plain name")
                .help(format!("use letters, digits and `_`, at most {MAX_LABEL}: it becomes part of names of folders")),
        );
    }
    let mut values: Vec<AxisValue> = vec![];
    for node in items(entry, findings) {
        let span = node.span.or(entry.key_span);
        let Some((text, node)) = value(node) else {
            if !node.is_invalid() {
                let message = format!("a value of axis `{name}` is {}", node.describe());
                findings.error(
                    Finding::new("config::axis_value", span, message)
                        .label("cannot be part of a cell's name")
                        .help("an axis takes numbers, words, truth values and lists of these; to choose between larger parts, make the values names and use one in `inputs`, as in `augmentation: ${matrix.policy}`"),
                );
            }
            continue;
        };
        let label = label(&text);
        let lower = label.to_lowercase();
        if let Some(first) = values.iter().find(|first| first.label.to_lowercase() == lower) {
            let same = first.text == text;
            let message = if same {
                format!("axis `{name}` holds `{label}` twice")
            } else {
                format!("two values of axis `{name}` would both be called `{label}` in names of folders")
            };
            findings.error(
                Finding::new("config::duplicate_value", span, message)
                    .label(if same { "again here" } else { "differs only in case or in special characters" })
                    .also(first.node.span, if same { "first here" } else { "from this" })
                    .help(if same { "keep one of the two" } else { "change one of the two" }),
            );
            continue;
        }
        values.push(AxisValue { label, text, node });
    }
    if values.is_empty() {
        // What is wrong has been said: references to the axis add nothing to it.
        values.push(AxisValue { label: "_".into(), text: String::new(), node: Node::invalid(entry.key_span) });
    }
    Axis { name: name.clone(), name_span: entry.key_span, values }
}

/// The elements of an axis's list.
fn items<'n>(entry: &'n Entry, findings: &mut Findings) -> &'n [Node] {
    let span = entry.value.span.or(entry.key_span);
    match &entry.value.value {
        NodeValue::Seq(items) if !items.is_empty() => return items,
        NodeValue::Invalid => {}
        NodeValue::Seq(_) => findings.error(
            Finding::new("config::empty_axis", span, format!("axis `{}` has no values", entry.key))
                .label("empty")
                .help("give it values, or take the axis away"),
        ),
        _ => {
            let message = format!("axis `{}` must be a list, but is {}", entry.key, entry.value.describe());
            let help = match &entry.value.value {
                NodeValue::Scalar(scalar) if !entry.value.is_null() => format!("write `[{}]`", shorten(&scalar.text)),
                _ => "write `[VALUE, …]`".into(),
            };
            findings.error(Finding::new("config::type", span, message).label("not a list").help(help));
        }
    }
    &[]
}

/// A value with its spelling; none where it cannot be one.
fn value(node: &Node) -> Option<(String, Node)> {
    let (text, value) = match &node.value {
        NodeValue::Scalar(scalar) => {
            let scalar = spelled(scalar)?;
            (scalar.text.clone(), NodeValue::Scalar(scalar))
        }
        NodeValue::Seq(items) if !items.is_empty() => {
            let mut texts = vec![];
            for item in items {
                let NodeValue::Scalar(scalar) = &item.value else { return None };
                texts.push(spelled(scalar)?.text);
            }
            (texts.join("_"), node.value.clone())
        }
        _ => return None,
    };
    Some((text, Node { value, ..node.clone() }))
}

/// A scalar as names spell it: equal numbers alike, however they are written.
fn spelled(scalar: &Scalar) -> Option<Scalar> {
    /// Above this, floats are not next to each other's integers any more.
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    let text = match scalar.kind {
        ScalarKind::Null => return None,
        ScalarKind::Bool(value) => value.to_string(),
        ScalarKind::Int(value) => value.to_string(),
        ScalarKind::Float(value) if value.fract() == 0.0 && value.abs() < LARGEST_EXACT => (value as i64).to_string(),
        ScalarKind::Float(value) => serde_json::Number::from_f64(value)?.to_string(),
        ScalarKind::Str => scalar.text.clone(),
    };
    Some(Scalar { kind: scalar.kind, text })
}

fn label(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let mut label: String = text.chars().take(MAX_LABEL).map(|c| if is_plain(c) { c } else { '_' }).collect();
    // Some systems drop a full stop at the end of a name.
    if label.is_empty() || label.ends_with('.') {
        label.pop();
        label.push('_');
    }
    label
}
