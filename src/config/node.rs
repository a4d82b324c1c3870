//! The YAML tree with the place of every node.

use super::{
    scalar::{Scalar, ScalarKind},
    source::Span,
};

/// A node and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// What it is.
    pub value: NodeValue,
    /// Where it stands.
    pub span: Span,
    /// Whether the text came from a reference or the command line, where there are no quotes to say what is
    /// text and what a number: such a scalar takes whichever type is expected.
    pub loose: bool,
    /// The reference whose value this is.
    pub origin: Option<Origin>,
}

/// Where the value of a reference was defined.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    /// The reference as written, such as `${vars.size}`.
    pub written: String,
    /// Place of the value under `vars`; none for the environment.
    pub defined: Option<Span>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeValue {
    /// Text, number, truth value or null.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the order of the file; keys differ.
    Map(Vec<Entry>),
    /// A value that could not be found out; the reason is reported already.
    Invalid,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A node that stands in a source.
    pub(crate) fn new(value: NodeValue, span: Span) -> Self {
        Self { value, span, loose: false, origin: None }
    }

    /// A scalar.
    pub(crate) fn scalar(scalar: Scalar, span: Span) -> Self {
        Self::new(NodeValue::Scalar(scalar), span)
    }

    /// A node whose mistake is reported already.
    pub(crate) fn invalid(span: Span) -> Self {
        Self::new(NodeValue::Invalid, span)
    }

    /// The value of a key, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a mapping; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            NodeValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar that is text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Scalar(scalar) if self.loose || scalar.kind == ScalarKind::Str => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether nothing was written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, NodeValue::Scalar(scalar) if scalar.kind == ScalarKind::Null)
    }

    /// Whether the mistake in it is reported already.
    pub(crate) fn is_invalid(&self) -> bool {
        self.value == NodeValue::Invalid
    }

    /// What it is, in words, for `must be …, but is …`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            NodeValue::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => "empty".into(),
                ScalarKind::Bool(_) | ScalarKind::Int(_) | ScalarKind::Float(_) => format!("`{}`", scalar.text),
                ScalarKind::Str => format!("the text `{}`", shorten(&scalar.text)),
            },
            NodeValue::Seq(_) => "a list".into(),
            NodeValue::Map(_) => "a mapping".into(),
            NodeValue::Invalid => "invalid".into(),
        }
    }

    /// Number of nodes and bytes of text, this one included.
    pub(crate) fn size(&self) -> (usize, usize) {
        match &self.value {
            NodeValue::Scalar(scalar) => (1, scalar.text.len()),
            NodeValue::Seq(items) => sum(items.iter().map(Self::size)),
            NodeValue::Map(entries) => sum(entries.iter().map(|entry| {
                let (nodes, bytes) = entry.value.size();
                (nodes + 1, bytes + entry.key.len())
            })),
            NodeValue::Invalid => (1, 0),
        }
    }

    /// Levels of nesting, 1 for a scalar.
    pub(crate) fn depth(&self) -> usize {
        let children: Box<dyn Iterator<Item = &Self>> = match &self.value {
            NodeValue::Seq(items) => Box::new(items.iter()),
            NodeValue::Map(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
            NodeValue::Scalar(_) | NodeValue::Invalid => Box::new(std::iter::empty()),
        };
        1 + children.map(Self::depth).max().unwrap_or(0)
    }
}

fn sum(sizes: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    sizes.fold((1, 0), |(nodes, bytes), (more_nodes, more_bytes)| (nodes + more_nodes, bytes + more_bytes))
}

/// At most 60 characters of a text, on one line.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(60).collect();
    if short.len() < text.trim_end().len() {
        short.push('…');
    }
    short
}
