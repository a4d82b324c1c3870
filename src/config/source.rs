//! Texts that a mistake can stand in, and places in them.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::pipeline::Place;

/// A text that a mistake can stand in: the pipeline file or one `--set` argument.
#[derive(Debug)]
pub(crate) struct SourceText {
    /// Path of the file, or `--set` and its key.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// First byte of each line.
    line_starts: Vec<usize>,
}

impl SourceText {
    /// A text under its name.
    pub(crate) fn new(name: String, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { name, text, line_starts }
    }

    /// Line and column, in characters from 1, of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// The line that an offset stands in, without its end.
    pub(crate) fn line(&self, offset: usize) -> &str {
        let offset = if self.text.is_char_boundary(offset) { offset } else { self.text.len() };
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |length| offset + length);
        self.text[start..end].trim_end_matches('\r')
    }
}

impl SourceCode for SourceText {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.read_span(span, lines_before, lines_after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// Bytes `start..end` of the source with this number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Index into [`Sources`]: 0 is the file, the others are `--set` arguments.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Span {
    /// Whether it covers nothing, as an omitted value does.
    pub(crate) fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// This span, or the other where this one covers nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }
}

/// Every text that takes part in one load.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    texts: Vec<Arc<SourceText>>,
}

impl Sources {
    /// Adds a text and returns its number.
    pub(crate) fn add(&mut self, name: String, text: String) -> usize {
        self.texts.push(Arc::new(SourceText::new(name, text)));
        self.texts.len() - 1
    }

    /// The text with this number.
    pub(crate) fn get(&self, idx: usize) -> Option<&Arc<SourceText>> {
        self.texts.get(idx)
    }

    /// The text that a span covers; empty where the span lies outside.
    pub(crate) fn slice(&self, span: Span) -> &str {
        self.texts.get(span.source).and_then(|source| source.text.get(span.start..span.end)).unwrap_or_default()
    }

    /// Line and column of a span in the pipeline file; none for a `--set` argument.
    pub(crate) fn place_in_file(&self, span: Span) -> Option<Place> {
        if span.source != 0 {
            return None;
        }
        self.texts.first().map(|source| source.place(span.start))
    }
}
