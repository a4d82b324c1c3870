//! Mistakes while they are being collected: places are still numbers.

use std::collections::BTreeSet;

use miette::Severity;

use super::{
    config_error::{ConfigError, ConfigWarning},
    source::{Sources, Span},
};

/// More mistakes than this are one mistake.
const MAX_SHOWN: usize = 100;

/// A mistake while it is being collected: places are still numbers.
///
/// Boxed, since it travels as the error of many small functions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding(Box<Parts>);

/// What a mistake consists of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Parts {
    pub code: &'static str,
    pub span: Span,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
    pub also: Option<(Span, String)>,
}

impl Finding {
    /// A mistake at a place; `code` is its stable name, `message` says what is wrong.
    pub(crate) fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let label = String::from("here");
        Self(Box::new(Parts { code, span, message: message.into(), label, help: None, also: None }))
    }

    /// The few words under the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    /// What to change.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// What to change, where we know.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.0.help = help.or(self.0.help);
        self
    }

    /// The same mistake at another place.
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.0.span = span;
        self
    }

    /// A second place that explains the first.
    pub(crate) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.0.also = Some((span, label.into()));
        self
    }
}

/// Everything found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The texts that spans point into.
    pub sources: Sources,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    /// Adds an error.
    pub(crate) fn error(&mut self, finding: Finding) {
        self.errors.push(finding);
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }

    /// How many errors there are.
    pub(crate) fn num_errors(&self) -> usize {
        self.errors.len()
    }

    /// Moves errors after the first `keep` from one source to another that holds the same text.
    pub(crate) fn move_errors(&mut self, keep: usize, from: usize, to: usize) {
        for finding in self.errors.iter_mut().skip(keep) {
            let also = finding.0.also.as_mut().map(|(span, _)| span);
            for span in std::iter::once(&mut finding.0.span).chain(also).filter(|span| span.source == from) {
                span.source = to;
            }
        }
    }

    /// Errors and warnings in the order of the file, `--set` arguments last, without repetitions.
    pub(crate) fn finish(mut self) -> (Vec<ConfigError>, Vec<ConfigWarning>) {
        let sources = &self.sources;
        let finish = |findings: &mut Vec<Finding>, severity| {
            findings.sort_by_key(|finding| (finding.0.span.source, finding.0.span.start));
            // A mistake in a stage with a matrix is found in every cell.
            let mut seen = BTreeSet::new();
            findings.retain(|finding| seen.insert(finding.clone()));
            findings.truncate(MAX_SHOWN);
            findings.drain(..).map(|finding| ConfigError::new(*finding.0, sources, severity)).collect::<Vec<_>>()
        };
        let errors = finish(&mut self.errors, Severity::Error);
        let warnings = finish(&mut self.warnings, Severity::Warning);
        (errors, warnings.into_iter().map(ConfigWarning::new).collect())
    }
}
