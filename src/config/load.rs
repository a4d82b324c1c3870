//! From YAML text to a tree of nodes with places, within limits that hold whatever the text is.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{
    findings::{Finding, Findings},
    node::{Entry, Node, NodeValue},
    scalar::{Scalar, ScalarKind},
    source::Span,
};

/// A larger file is no pipeline.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Levels of nesting; a pipeline has about eight.
pub(crate) const MAX_DEPTH: usize = 100;

/// What one load may build, aliases and references expanded. A pipeline of a hundred stages has about 5,000
/// nodes.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: usize,
    bytes: usize,
    is_exceeded: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: 100_000, bytes: 16 << 20, is_exceeded: false }
    }
}

impl Budget {
    /// Takes nodes and bytes of text off what is left; false where not enough is, and ever after, so that
    /// nothing is tried again and again.
    pub(crate) fn take(&mut self, (nodes, bytes): (usize, usize)) -> bool {
        match (self.nodes.checked_sub(nodes), self.bytes.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) if !self.is_exceeded => (self.nodes, self.bytes) = (nodes, bytes),
            _ => self.is_exceeded = true,
        }
        !self.is_exceeded
    }

    /// Whether there was not enough once.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    /// The mistake of having run out of it.
    pub(crate) fn exceeded(span: Span) -> Finding {
        Finding::new(
            "config::too_large",
            span,
            "the pipeline grows too large when aliases, references and matrices are expanded",
        )
        .label("the limit of 100,000 nodes or 16 MiB of text is reached here")
        .help("remove aliases (`*name`) or references that repeat large parts within each other, or values of axes")
    }
}

/// Text of the pipeline file from its bytes, and the mistake where they are not UTF-8.
pub(crate) fn decode(bytes: &[u8]) -> (String, Option<Finding>) {
    let zero = Span::default();
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; a pipeline file may have {MAX_BYTES}", bytes.len());
        let help = "is this the right file? a pipeline names data, it does not hold it";
        return (String::new(), Some(Finding::new("config::too_large", zero, message).help(help)));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(error) => {
            // Shown with a replacement character in the place of each wrong byte; the first is the mistake.
            let start = error.valid_up_to();
            let text = String::from_utf8_lossy(bytes).into_owned();
            let byte = bytes.get(start).copied().unwrap_or_default();
            let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
                "the file looks like UTF-16: save it as UTF-8"
            } else {
                "save the file as UTF-8"
            };
            let span = Span { source: 0, start, end: start + char::REPLACEMENT_CHARACTER.len_utf8() };
            let message = format!("the file is not UTF-8: byte {start} is 0x{byte:02x}");
            (text, Some(Finding::new("config::encoding", span, message).label("not UTF-8").help(help)))
        }
    }
}

/// Parses one document. What is wrong goes to `findings`; none where nothing useful is left.
pub(crate) fn parse(source: usize, findings: &mut Findings, budget: &mut Budget) -> Option<Node> {
    let text = findings.sources.get(source)?.text.clone();
    let offsets = CharOffsets::new(&text);
    let mut builder = Builder::new(source, &text, budget);
    let mut parser = Parser::new_from_str(&text);
    let mut finding = None;
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((event, span)) => {
                let span =
                    Span { source, start: offsets.byte(span.start.index()), end: offsets.byte(span.end.index()) };
                builder.event(event, span)
            }
            Err(error) => {
                let at = offsets.byte(error.marker().index());
                Err(syntax_error(&text, source, at, error.info()))
            }
        };
        if let Err(fatal) = result {
            finding = Some(fatal);
            break;
        }
    }
    builder.errors.drain(..).for_each(|error| findings.error(error));
    match finding {
        Some(finding) => {
            findings.error(finding);
            None
        }
        None => builder.root.take(),
    }
}

/// The parser counts characters, everything else bytes.
struct CharOffsets {
    /// Empty where all characters are one byte long.
    bytes: Vec<usize>,
    length: usize,
}

impl CharOffsets {
    fn new(text: &str) -> Self {
        let bytes = if text.is_ascii() { vec![] } else { text.char_indices().map(|(byte, _)| byte).collect() };
        Self { bytes, length: text.len() }
    }

    fn byte(&self, char_idx: usize) -> usize {
        if self.bytes.is_empty() {
            return char_idx.min(self.length);
        }
        self.bytes.get(char_idx).copied().unwrap_or(self.length)
    }
}

/// The parser's complaint with what users most often meant.
fn syntax_error(text: &str, source: usize, at: usize, info: &str) -> Finding {
    let at = if text.is_char_boundary(at) { at } else { text.len() };
    if info.contains("recursion limit") {
        return too_deep(Span { source, start: at, end: at });
    }
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let is_flow = line.contains(['{', '[']);
    let length = text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    let finding = Finding::new(
        "config::syntax",
        Span { source, start: at, end: at + length },
        format!("this is not YAML: {}", info.trim()),
    )
    .label("the parser stopped here");
    if info.contains("tab") || line.trim_start_matches(' ').starts_with('\t') {
        return finding.help("indent with spaces: YAML allows no tabs there");
    }
    if let Some(reference) = is_flow.then(|| unquoted_reference(line)).flatten() {
        return finding.help(format!("within `{{ }}` and `[ ]` quote references: \"{reference}\""));
    }
    if info.contains("unknown anchor") {
        return finding.help("an alias `*name` needs an anchor `&name` further up; quote the text if you meant a star");
    }
    if info.contains("mapping values are not allowed") {
        return finding.help("quote the text if it holds `: `, or check the indentation of this line");
    }
    if info.contains("unexpected end of stream") || info.contains("eof") {
        return finding.help("a quote, `{` or `[` is never closed");
    }
    if text[at..].starts_with(['@', '`', '%', '&', '*', '!']) {
        return finding.help("quote text that begins with a special character");
    }
    finding.help("check the indentation and the brackets of this line and the one above")
}

/// A `${…}` that no quotes surround.
fn unquoted_reference(line: &str) -> Option<&str> {
    line.match_indices("${").find_map(|(at, _)| {
        let quoted = line[..at].matches('"').count() % 2 == 1 || line[..at].matches('\'').count() % 2 == 1;
        let end = line[at..].find('}')?;
        (!quoted).then(|| &line[at..=at + end])
    })
}

/// A collection whose end has not come yet.
enum Frame {
    Seq { items: Vec<Node>, span: Span, anchor: usize },
    Map { map: OpenMap, span: Span, anchor: usize },
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    seen: BTreeMap<String, Span>,
    merges: Vec<(Span, Node)>,
    key: Option<(String, Span, bool)>,
}

struct Builder<'a> {
    source: usize,
    text: &'a str,
    budget: &'a mut Budget,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    num_documents: usize,
    root: Option<Node>,
    errors: Vec<Finding>,
}

impl<'a> Builder<'a> {
    fn new(source: usize, text: &'a str, budget: &'a mut Budget) -> Self {
        Self {
            source,
            text,
            budget,
            stack: vec![],
            anchors: BTreeMap::new(),
            num_documents: 0,
            root: None,
            errors: vec![],
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        match event {
            Event::DocumentStart(_) => {
                self.num_documents += 1;
                if self.num_documents > 1 {
                    return Err(Finding::new("config::documents", span, "a second document begins here")
                        .help("a pipeline file holds one document: remove the `---` or split the file"));
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Finding::new("config::alias", span, "this alias stands within its own anchor")
                        .help("move the anchor (`&name`) to a part that does not hold the alias"));
                };
                if !self.budget.take(node.size()) {
                    return Err(Budget::exceeded(span));
                }
                let node = node.clone();
                if self.stack.len() + node.depth() > MAX_DEPTH {
                    return Err(too_deep(span));
                }
                self.push(node, false)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                if !self.budget.take((1, text.len())) {
                    return Err(Budget::exceeded(span));
                }
                let node = if let Some(scalar) = Self::tagged_scalar(text.into_owned(), is_plain, tag.as_deref()) {
                    Node::scalar(scalar, self.trim(span))
                } else {
                    self.errors.push(bad_tag(span));
                    Node::invalid(self.trim(span))
                };
                self.remember(anchor, &node, span)?;
                self.push(node, is_plain)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(span, tag.as_deref())?;
                self.stack.push(Frame::Seq { items: vec![], span, anchor });
            }
            Event::MappingStart(anchor, tag) => {
                self.open(span, tag.as_deref())?;
                self.stack.push(Frame::Map { map: OpenMap::default(), span, anchor });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// The parser's span of a plain scalar may run on over blanks.
    fn trim(&self, span: Span) -> Span {
        let covered = self.text.get(span.start..span.end).unwrap_or_default();
        Span { end: span.start + covered.trim_end().len(), ..span }
    }

    /// A scalar under its tag, if it has one; none where the tag is not of the core schema or does not fit.
    fn tagged_scalar(text: String, is_plain: bool, tag: Option<&Tag>) -> Option<Scalar> {
        let Some(tag) = tag else {
            return Some(if is_plain { Scalar::plain(text) } else { Scalar::quoted(text) });
        };
        if !tag.is_yaml_core_schema() {
            return None;
        }
        if tag.suffix == "str" {
            return Some(Scalar::quoted(text));
        }
        let plain = Scalar::plain(text);
        let fits = match tag.suffix.as_str() {
            "int" => matches!(plain.kind, ScalarKind::Int(_)),
            "float" => matches!(plain.kind, ScalarKind::Int(_) | ScalarKind::Float(_)),
            "bool" => matches!(plain.kind, ScalarKind::Bool(_)),
            "null" => plain.kind == ScalarKind::Null,
            _ => false,
        };
        fits.then_some(plain)
    }

    fn open(&mut self, span: Span, tag: Option<&Tag>) -> Result<(), Finding> {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq"))
        {
            self.errors.push(bad_tag(span));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        if !self.budget.take((1, 0)) {
            return Err(Budget::exceeded(span));
        }
        if let Some(Frame::Map { map, .. }) = self.stack.last()
            && map.key.is_none()
        {
            return Err(Finding::new("config::key", span, "a key must be text, but is a list or a mapping").help(
                "within `{ }` and `[ ]` quote text that holds brackets; references are written \"${vars.name}\"",
            ));
        }
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Finding> {
        let (value, start, anchor) = match self.stack.pop() {
            Some(Frame::Seq { items, span, anchor }) => (NodeValue::Seq(items), span, anchor),
            Some(Frame::Map { map, span, anchor }) => (NodeValue::Map(Self::finish_map(map)?), span, anchor),
            None => return Ok(()),
        };
        let node = Node::new(value, Span { source: self.source, start: start.start, end: end.end.max(start.end) });
        self.remember(anchor, &node, start)?;
        self.push(node, false)
    }

    /// Anchored nodes are kept for aliases and count like a copy.
    fn remember(&mut self, anchor: usize, node: &Node, span: Span) -> Result<(), Finding> {
        if anchor == 0 {
            return Ok(());
        }
        if !self.budget.take(node.size()) {
            return Err(Budget::exceeded(span));
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn push(&mut self, node: Node, is_plain: bool) -> Result<(), Finding> {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Seq { items, .. }) => items.push(node),
            Some(Frame::Map { map, .. }) => match map.key.take() {
                None => {
                    let NodeValue::Scalar(Scalar { text, .. }) = node.value else {
                        return Err(Finding::new("config::key", node.span, "a key must be text"));
                    };
                    map.key = Some((text, node.span, is_plain));
                }
                Some((key, key_span, true)) if key == "<<" => map.merges.push((key_span, node)),
                Some((key, key_span, _)) => {
                    if let Some(first) = map.seen.get(&key) {
                        self.errors.push(
                            Finding::new("config::duplicate_key", key_span, format!("`{key}` is given twice"))
                                .label("again here")
                                .also(*first, "first here")
                                .help("keep one of the two"),
                        );
                        return Ok(());
                    }
                    map.seen.insert(key.clone(), key_span);
                    map.entries.push(Entry { key, key_span, value: node });
                }
            },
        }
        Ok(())
    }

    /// Adds what `<<` brings: keys of the mapping itself win, then earlier mappings before later ones.
    fn finish_map(map: OpenMap) -> Result<Vec<Entry>, Finding> {
        let OpenMap { mut entries, mut seen, merges, .. } = map;
        for (span, node) in merges {
            let bases = match node.value {
                NodeValue::Seq(items) => items,
                _ => vec![node],
            };
            for base in bases {
                let NodeValue::Map(base) = base.value else {
                    return Err(Finding::new("config::merge", span, "`<<` takes a mapping or a list of mappings")
                        .help("write `<<: *name`, where `&name` stands before a mapping"));
                };
                for entry in base {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.key_span);
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }
}

fn bad_tag(span: Span) -> Finding {
    Finding::new("config::tag", span, "YAML tags (`!name`) mean nothing here")
        .help("remove the tag; to make text of a number, quote it")
}

/// The mistake of nesting beyond [`MAX_DEPTH`].
pub(crate) fn too_deep(span: Span) -> Finding {
    Finding::new("config::too_deep", span, format!("nesting is deeper than {MAX_DEPTH} levels"))
        .help("a pipeline needs about eight levels; check the brackets")
}
