//! `${vars.x}`, `${env.X:-default}` and `${matrix.x}` in scalars; `$${` stands for `${` itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cells::{self, Cell},
    findings::{Finding, Findings},
    load::{self, Budget, MAX_DEPTH},
    node::{Node, NodeValue, Origin},
    references::{Part, mentioned_axes, parts},
    scalar::{Scalar, ScalarKind},
    source::Span,
    suggest::did_you_mean,
};

/// References that stand in each other's values; more is a mistake or an attack.
const MAX_CHAIN: usize = 50;

/// What became of the references of a file.
pub(crate) struct Substituted {
    /// The stages, multiplied.
    pub cells: Vec<Cell>,
    /// The first keys under `vars` that something refers to.
    pub used_vars: BTreeSet<String>,
}

/// Replaces every reference beside `stages`, makes cells of these, and resolves `vars` so that mistakes there
/// show.
pub(crate) fn substitute(
    root: &mut Node,
    env: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
    budget: &mut Budget,
) -> Substituted {
    let vars = root.get("vars").map(|entry| entry.value.clone());
    let mut resolver = Resolver {
        vars: vars.as_ref(),
        env,
        findings,
        budget,
        scope: None,
        used_axes: BTreeSet::new(),
        memo: BTreeMap::new(),
        chain: vec![],
        used: BTreeSet::new(),
        absent: BTreeMap::new(),
    };
    let mut cells = vec![];
    if let NodeValue::Map(entries) = &mut root.value {
        // What is used where counts before `vars` themselves are looked at.
        for entry in entries.iter_mut().filter(|entry| entry.key != "vars") {
            if entry.key != "stages" {
                resolver.node(&mut entry.value);
                continue;
            }
            resolver.scalar_in_place(&mut entry.value);
            match &mut entry.value.value {
                NodeValue::Map(stages) => cells = cells::expand(stages, &mut resolver),
                _ => resolver.node(&mut entry.value),
            }
        }
    }
    let used_vars = resolver.used.clone();
    for entry in vars.as_ref().map(Node::entries).unwrap_or_default() {
        let reference = Reference { written: format!("${{vars.{}}}", entry.key), span: entry.value.span };
        resolver.variable(&entry.key, &reference);
    }
    Substituted { cells, used_vars }
}

struct Reference {
    written: String,
    span: Span,
}

/// What `${matrix.…}` may name at a place.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The stage.
    pub stage: String,
    /// Its axes with the values of one cell.
    pub values: Vec<(String, Node)>,
}

/// Resolves references.
pub(crate) struct Resolver<'a> {
    vars: Option<&'a Node>,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Where mistakes go.
    pub findings: &'a mut Findings,
    budget: &'a mut Budget,
    /// The cell whose parts are resolved; none outside of stages.
    pub scope: Option<Scope>,
    /// Axes that something referred to.
    pub used_axes: BTreeSet<String>,
    memo: BTreeMap<String, Node>,
    chain: Vec<String>,
    used: BTreeSet<String>,
    /// Paths that are not there: each place that refers to one is a mistake of its own.
    absent: BTreeMap<String, Finding>,
}

impl Resolver<'_> {
    /// Replaces a node that is a reference as a whole, unless it refers to an axis; leaves anything else as it
    /// is.
    pub(crate) fn scalar_in_place(&mut self, node: &mut Node) {
        if node.as_str().is_some_and(|text| text.contains("${") && mentioned_axes(text).is_empty()) {
            self.node(node);
        }
    }

    /// Replaces every reference in a tree.
    pub(crate) fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            NodeValue::Scalar(scalar) if scalar.kind == ScalarKind::Str && scalar.text.contains("${") => {
                *node = self.scalar(&scalar.text, node.span);
            }
            NodeValue::Seq(items) => items.iter_mut().for_each(|item| self.node(item)),
            NodeValue::Map(entries) => entries.iter_mut().for_each(|entry| self.node(&mut entry.value)),
            NodeValue::Scalar(_) | NodeValue::Invalid => {}
        }
    }

    fn scalar(&mut self, text: &str, span: Span) -> Node {
        let parts = parts(text);
        if let [Part::Reference(body)] = parts.as_slice() {
            let reference = self.reference(body, span);
            let mut node = self.lookup(body, &reference);
            let defined = (!body.trim().starts_with("env.")).then_some(node.span);
            node.span = span;
            node.loose = true;
            node.origin = Some(Origin { written: reference.written, defined });
            return node;
        }
        let mut joined = String::new();
        let mut has_reference = false;
        for part in parts {
            let piece = match part {
                Part::Text(text) => text.to_owned(),
                Part::Unclosed(rest) => {
                    let written = self.locate(rest, span);
                    self.findings.error(
                        Finding::new("config::reference", written, "`${` has no `}`")
                            .label("begins here")
                            .help("close the reference, or write `$${` for the text `${`"),
                    );
                    return Node::invalid(span);
                }
                Part::Reference(body) => {
                    has_reference = true;
                    let reference = self.reference(body, span);
                    match self.lookup(body, &reference).value {
                        NodeValue::Scalar(scalar) => scalar.text,
                        NodeValue::Invalid => return Node::invalid(span),
                        NodeValue::Seq(_) | NodeValue::Map(_) => {
                            let message =
                                format!("`{}` is a list or mapping and cannot be part of a text", reference.written);
                            self.findings.error(
                                Finding::new("config::reference", reference.span, message)
                                    .help("refer to one of its values, or let the reference stand alone"),
                            );
                            return Node::invalid(span);
                        }
                    }
                }
            };
            if !self.afford((0, piece.len()), span) {
                return Node::invalid(span);
            }
            joined.push_str(&piece);
        }
        let mut node = Node::scalar(Scalar::quoted(joined), span);
        node.loose = has_reference;
        node
    }

    /// Takes something off the budget; running out of it is one mistake, however much is left to do.
    pub(crate) fn afford(&mut self, size: (usize, usize), span: Span) -> bool {
        let was_exceeded = self.budget.is_exceeded();
        let is_enough = self.budget.take(size);
        if !is_enough && !was_exceeded {
            self.findings.error(Budget::exceeded(span));
        }
        is_enough
    }

    fn reference(&self, body: &str, span: Span) -> Reference {
        let written = format!("${{{body}}}");
        Reference { span: self.locate(&written, span), written }
    }

    /// Where a piece of a scalar stands; the whole scalar where escapes hide it.
    fn locate(&self, piece: &str, span: Span) -> Span {
        match self.findings.sources.slice(span).find(piece) {
            Some(at) => Span { start: span.start + at, end: span.start + at + piece.len(), ..span },
            None => span,
        }
    }

    fn lookup(&mut self, body: &str, reference: &Reference) -> Node {
        let body = body.trim();
        if let Some(path) = body.strip_prefix("vars.") {
            if let Some(first) = path.split('.').next() {
                self.used.insert(first.to_owned());
            }
            return self.variable(path, reference);
        }
        if let Some(name) = body.strip_prefix("env.") {
            return self.environment(name, reference);
        }
        if let Some(axis) = body.strip_prefix("matrix.") {
            return self.axis(axis.trim(), reference);
        }
        let name = if body.is_empty() { "NAME" } else { body };
        self.findings.error(
            Finding::new("config::reference", reference.span, format!("`{}` refers to nothing", reference.written))
                .label("none of `vars.`, `env.` and `matrix.`")
                .help(format!("write `${{vars.{name}}}` for a variable of this file, `${{env.{name}}}` for one of the environment, `$${{{body}}}` for the text itself")),
        );
        Node::invalid(reference.span)
    }

    /// The value of an axis in the cell that is being made.
    fn axis(&mut self, axis: &str, reference: &Reference) -> Node {
        let Some(scope) = &self.scope else {
            self.findings.error(
                Finding::new("config::axis", reference.span, format!("`{}` belongs to no stage", reference.written))
                    .label("axes have values in stages only")
                    .help("write it below a stage that has a `matrix` or depends on one that has"),
            );
            return Node::invalid(reference.span);
        };
        if let Some((name, node)) = scope.values.iter().find(|(name, _)| name == axis) {
            let node = node.clone();
            self.used_axes.insert(name.clone());
            return if self.afford(node.size(), reference.span) { node } else { Node::invalid(reference.span) };
        }
        let names = scope.values.iter().map(|(name, _)| name.as_str());
        let help = did_you_mean(axis, &format!("axes of `{}` are", scope.stage), names).unwrap_or_else(|| {
            format!("add `matrix: {{ {axis}: [VALUE, …] }}` to `{}` or to a stage that it depends on", scope.stage)
        });
        let message = format!("stage `{}` has no axis `{axis}`", scope.stage);
        self.findings
            .error(Finding::new("config::axis", reference.span, message).label("no axis of this name").help(help));
        Node::invalid(reference.span)
    }

    fn environment(&mut self, name: &str, reference: &Reference) -> Node {
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (name, None),
        };
        let value = (self.env)(name).filter(|value| !(value.is_empty() && default.is_some()));
        let Some(value) = value.or_else(|| default.map(str::to_owned)) else {
            self.findings.error(
                Finding::new("config::env", reference.span, format!("the environment variable `{name}` is not set"))
                    .label("needed here")
                    .help(format!(
                        "set it (`{name}=… simsiam-pipe run …`), or give a default: `${{env.{name}:-default}}`"
                    )),
            );
            return Node::invalid(reference.span);
        };
        if !self.afford((1, value.len()), reference.span) {
            return Node::invalid(reference.span);
        }
        let mut node = Node::scalar(Scalar::plain(value), reference.span);
        node.loose = true;
        node
    }

    /// The value of a path under `vars`, references in it resolved.
    fn variable(&mut self, path: &str, reference: &Reference) -> Node {
        if let Some(finding) = self.absent.get(path) {
            self.findings.error(finding.clone().at(reference.span));
            return Node::invalid(reference.span);
        }
        if let Some(node) = self.memo.get(path) {
            let node = node.clone();
            return if self.afford(node.size(), reference.span) { node } else { Node::invalid(reference.span) };
        }
        if let Some(at) = self.chain.iter().position(|link| link == path) {
            let mut links: Vec<String> = self.chain[at..].iter().map(|link| format!("vars.{link}")).collect();
            links.push(format!("vars.{path}"));
            self.findings.error(
                Finding::new(
                    "config::vars_cycle",
                    reference.span,
                    format!("`vars.{path}` refers to itself: {}", links.join(" -> ")),
                )
                .help("give one of them a value"),
            );
            return Node::invalid(reference.span);
        }
        if self.chain.len() >= MAX_CHAIN {
            self.findings.error(
                Finding::new(
                    "config::vars_chain",
                    reference.span,
                    format!("references lead through more than {MAX_CHAIN} variables"),
                )
                .help("give one of them a value"),
            );
            return Node::invalid(reference.span);
        }
        self.chain.push(path.to_owned());
        // A variable has one value, whoever asks first.
        let scope = self.scope.take();
        let node = self.find(path, reference);
        self.scope = scope;
        self.chain.pop();
        // What is kept costs as much as what is handed out.
        let node = if node.depth() > MAX_DEPTH {
            self.findings.error(load::too_deep(reference.span));
            Node::invalid(reference.span)
        } else if self.afford(node.size(), reference.span) {
            node
        } else {
            Node::invalid(reference.span)
        };
        self.memo.insert(path.to_owned(), node.clone());
        node
    }

    fn find(&mut self, path: &str, reference: &Reference) -> Node {
        let segments: Vec<&str> = path.split('.').map(str::trim).collect();
        let Some(vars) = self.vars else {
            self.missing(path, "", &[], reference);
            return Node::invalid(reference.span);
        };
        let mut raw = vars;
        // Where the path leads through a reference, what follows is resolved already.
        let mut resolved: Option<Node> = None;
        let mut done = 0;
        while done < segments.len() {
            if resolved.is_none() && raw.as_str().is_some_and(|text| text.contains("${")) {
                let mut node = raw.clone();
                self.node(&mut node);
                resolved = Some(node);
            }
            let node = resolved.as_ref().unwrap_or(raw);
            if node.is_invalid() {
                return Node::invalid(reference.span);
            }
            let Some((next, length)) = step(node, &segments[done..]) else {
                let names: Vec<String> = node.entries().iter().map(|entry| entry.key.clone()).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.missing(path, &segments[..done].join("."), &names, reference);
                return Node::invalid(reference.span);
            };
            done += length;
            if resolved.is_some() {
                resolved = Some(next.clone());
            } else if let Some((next, _)) = step(raw, &segments[done - length..]) {
                // Taken from `raw` itself, which lives as long as `vars`.
                raw = next;
            }
        }
        resolved.unwrap_or_else(|| {
            let mut node = raw.clone();
            self.node(&mut node);
            node
        })
    }

    fn missing(&mut self, path: &str, parent: &str, names: &[&str], reference: &Reference) {
        let prefix = if parent.is_empty() { String::from("vars") } else { format!("vars.{parent}") };
        let last = path.strip_prefix(parent).unwrap_or(path).trim_start_matches('.');
        let help = did_you_mean(last, &format!("`{prefix}` holds"), names.iter().copied()).map_or_else(
            || format!("add it under `vars`, or pass `--set vars.{path}=…`"),
            |help| match help.strip_prefix("did you mean `").and_then(|rest| rest.strip_suffix("`?")) {
                Some(name) => format!("did you mean `${{{prefix}.{name}}}`?"),
                None => format!("{help}; add it there, or pass `--set vars.{path}=…`"),
            },
        );
        let finding = Finding::new("config::vars", reference.span, format!("there is no `vars.{path}`"))
            .label("not under `vars`")
            .help(help);
        self.absent.insert(path.to_owned(), finding.clone());
        self.findings.error(finding);
    }
}

/// The value of the longest key made of the first segments, and how many those are. A key may itself hold dots.
fn step<'n>(node: &'n Node, segments: &[&str]) -> Option<(&'n Node, usize)> {
    if let NodeValue::Seq(items) = &node.value {
        let idx: usize = segments.first()?.parse().ok()?;
        return items.get(idx).map(|item| (item, 1));
    }
    (1..=segments.len()).rev().find_map(|length| {
        let key = segments[..length].join(".");
        node.get(&key).map(|entry| (&entry.value, length))
    })
}
