//! Mistakes in a pipeline file, all of them at once, each with its place and what to do.

use std::{fmt, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, Severity, SourceCode};
use serde::Serialize;

use super::{
    findings::Parts,
    source::{SourceText, Sources, Span},
};

/// Lines longer than this are not shown: a file that is one line would fill the terminal.
const MAX_SHOWN_LINE: usize = 400;

/// One mistake and its place.
#[derive(Clone, Debug)]
pub struct ConfigError {
    code: &'static str,
    message: String,
    help: Option<String>,
    severity: Severity,
    source: Arc<SourceText>,
    labels: Vec<LabeledSpan>,
    record: ErrorRecord,
}

/// What a `--json` line says about a mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorRecord {
    /// Stable name, such as `config::unknown_key`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to change, if we know.
    pub help: Option<String>,
    /// The pipeline file, or `--set` and its key.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl ConfigError {
    /// A finding with its text.
    pub(crate) fn new(finding: Parts, sources: &Sources, severity: Severity) -> Self {
        let source = sources
            .get(finding.span.source)
            .cloned()
            .unwrap_or_else(|| Arc::new(SourceText::new(String::from("pipeline"), String::new())));
        let span = visible(&source, finding.span);
        let place = source.place(span.start);
        let mut labels = vec![label(&source, span, finding.label, true)];
        if let Some((span, text)) = finding.also
            && span.source == finding.span.source
        {
            labels.push(label(&source, span, text, false));
        }
        let record = ErrorRecord {
            code: finding.code.to_owned(),
            message: finding.message.clone(),
            help: finding.help.clone(),
            file: source.name.clone(),
            line: place.line,
            column: place.column,
        };
        Self { code: finding.code, message: finding.message, help: finding.help, severity, source, labels, record }
    }

    /// Stable name, such as `config::unknown_key`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The mistake as plain fields.
    pub fn record(&self) -> &ErrorRecord {
        &self.record
    }

    /// Whether the line can be shown without flooding the terminal.
    fn is_showable(&self) -> bool {
        self.labels.iter().all(|label| self.source.line(label.offset()).len() <= MAX_SHOWN_LINE)
            && !self.source.text.is_empty()
    }
}

/// What stands at the end of the text is shown at its last character: after that there is no line.
fn visible(source: &SourceText, span: Span) -> Span {
    let end = source.text.trim_end().len();
    match source.text[..end].char_indices().next_back() {
        Some((last, _)) if span.start >= end => Span { start: last, end, ..span },
        _ => span,
    }
}

/// A label never crosses the end of its first line: carets under many lines are hard to read.
fn label(source: &SourceText, span: Span, text: String, primary: bool) -> LabeledSpan {
    let start = span.start.min(source.text.len());
    let covered = source.text.get(start..span.end.min(source.text.len())).unwrap_or_default();
    let length = covered.lines().next().unwrap_or_default().trim_end().len();
    if primary {
        LabeledSpan::new_primary_with_span(Some(text), (start, length))
    } else {
        LabeledSpan::new_with_span(Some(text), (start, length))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_showable() {
            return f.write_str(&self.message);
        }
        // Without a snippet nothing else says where.
        write!(f, "{}:{}:{}: {}", self.record.file, self.record.line, self.record.column, self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.is_showable().then_some(&*self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.is_showable().then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

/// Something that is allowed but probably not meant.
#[derive(Clone, Debug)]
pub struct ConfigWarning(ConfigError);

impl ConfigWarning {
    pub(crate) fn new(warning: ConfigError) -> Self {
        Self(warning)
    }

    /// Stable name, such as `config::no_crop`.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The warning as plain fields.
    pub fn record(&self) -> &ErrorRecord {
        &self.0.record
    }

    /// The warning as a diagnostic with its place.
    pub fn diagnostic(&self) -> &(dyn Diagnostic + Send + Sync) {
        &self.0
    }

    /// The warning for a terminal of this many columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        render(&self.0, color, width)
    }
}

/// Every mistake in a pipeline file, in the order of the file.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    name: String,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// The mistakes of the file `name`; there is at least one.
    pub(crate) fn new(name: String, errors: Vec<ConfigError>) -> Self {
        Self { name, errors }
    }

    /// The mistakes in the order of the file.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// The mistakes as plain fields, for `--json`.
    pub fn records(&self) -> Vec<ErrorRecord> {
        self.errors.iter().map(|error| error.record.clone()).collect()
    }

    /// The mistakes for a terminal of this many columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        let errors: Vec<String> = self.errors.iter().map(|error| render(error, color, width)).collect();
        let mut out = errors.join("\n");
        if self.errors.len() > 1 {
            out.extend(["\n", &self.to_string(), "\n"]);
        }
        out
    }
}

/// One diagnostic as text.
fn render(error: &dyn Diagnostic, color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1);
    let mut out = String::new();
    match handler.render_report(&mut out, error) {
        Ok(()) => out,
        Err(_) => format!("{error}\n"),
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.as_slice() {
            [error] => error.fmt(f),
            errors => write!(f, "`{}` has {} errors; nothing was run", self.name, errors.len()),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self.errors.as_slice() {
            [error] => Diagnostic::code(error),
            _ => Some(Box::new("config::invalid")),
        }
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self.errors.as_slice() {
            [error] => error.help(),
            _ => None,
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self.errors.as_slice() {
            [error] => error.source_code(),
            _ => None,
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match self.errors.as_slice() {
            [error] => error.labels(),
            _ => None,
        }
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self.errors.as_slice() {
            [_] => None,
            errors => Some(Box::new(errors.iter().map(|error| error as &dyn Diagnostic))),
        }
    }
}
