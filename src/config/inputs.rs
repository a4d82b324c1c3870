//! The edges of the pipeline: that inputs exist, and that each takes what the stage it names leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cell::selects,
    cycles::find_cycles,
    findings::{Finding, Findings},
    hints::first_sentence,
    node::{Entry, Node, NodeValue},
    source::Span,
    stage_check::{InputRef, StageDraft, record},
    suggest::{did_you_mean, list},
    walk::KeySpans,
};
use crate::stage::{ArtifactKind, InputDecl, StageKind};

/// What the other stages are called and leave; those that a matrix multiplies are there once for each cell.
struct Peers<'n> {
    /// Names of the stages as the file has them, each once.
    stages: Vec<&'n str>,
    /// For each cell the stage that it is of.
    names: Vec<&'n str>,
    cells: Vec<String>,
    axes: Vec<&'n [(String, String)]>,
    kinds: Vec<Option<StageKind>>,
    by_name: BTreeMap<&'n str, Vec<usize>>,
}

impl Peers<'_> {
    /// Names of the stages that leave what an input accepts, without the stage itself.
    fn candidates(&self, accepts: &[ArtifactKind], own: usize) -> Vec<&str> {
        let fits = |idx: &usize| self.kinds[*idx].is_some_and(|kind| accepts.contains(&kind.output()));
        let fitting: BTreeSet<&str> = (0..self.names.len()).filter(fits).map(|idx| self.names[idx]).collect();
        self.stages.iter().copied().filter(|name| *name != self.names[own] && fitting.contains(name)).collect()
    }

    /// The cell of a stage that has the values of another's axes.
    fn cell_for(&self, stage: &str, own: usize) -> Option<usize> {
        let cells = self.by_name.get(stage)?;
        let fits = |idx: &usize| self.axes[*idx].iter().all(|choice| self.axes[own].contains(choice));
        // None fits only where stages wait for each other: any of them shows that.
        cells.iter().copied().find(fits).or_else(|| cells.first().copied())
    }
}

/// Checks every stage's inputs and that no stage waits for itself.
pub(crate) fn check(drafts: &mut [StageDraft<'_>], findings: &mut Findings) {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut stages = vec![];
    for (idx, draft) in drafts.iter().enumerate() {
        let cells = by_name.entry(draft.name).or_default();
        if cells.is_empty() {
            stages.push(draft.name);
        }
        cells.push(idx);
    }
    let peers = Peers {
        stages,
        names: drafts.iter().map(|draft| draft.name).collect(),
        cells: drafts.iter().map(|draft| draft.cell_name.clone()).collect(),
        axes: drafts.iter().map(|draft| draft.axes).collect(),
        kinds: drafts.iter().map(|draft| draft.kind).collect(),
        by_name,
    };
    for (idx, draft) in drafts.iter_mut().enumerate() {
        check_stage(idx, draft, &peers, findings);
    }
    check_cycles(drafts, findings);
}

fn check_stage(own: usize, draft: &mut StageDraft<'_>, peers: &Peers<'_>, findings: &mut Findings) {
    static NONE: [Entry; 0] = [];
    let entries = match draft.inputs_entry {
        None => &NONE[..],
        Some(entry) => {
            record(&mut draft.places, "inputs", entry);
            match &entry.value.value {
                NodeValue::Map(entries) => entries,
                NodeValue::Invalid => return,
                _ if entry.value.is_null() => &NONE[..],
                _ => {
                    let message = format!("`inputs` must be a mapping, but is {}", entry.value.describe());
                    findings.error(
                        Finding::new("config::type", entry.value.span, message)
                            .label("not a mapping")
                            .help("write `inputs: { NAME: STAGE }`"),
                    );
                    return;
                }
            }
        }
    };
    let Some(kind) = draft.kind else {
        // What it takes is not known, but names of stages still are.
        for entry in entries {
            references(entry, own, draft, peers, findings);
        }
        return;
    };
    let decls = draft
        .protocol
        .and_then(|protocol| kind.protocols().iter().find(|(name, _)| *name == protocol).map(|(_, decls)| *decls));
    for entry in entries {
        let refs = references(entry, own, draft, peers, findings);
        if kind.takes_any_input() {
            check_free_input(entry, entries, findings);
        } else if let Some(decls) = decls {
            check_declared_input(entry, &refs, own, draft, decls, peers, findings);
        }
        draft.inputs.insert(entry.key.clone(), refs);
    }
    for decl in decls.unwrap_or_default().iter().filter(|decl| decl.required) {
        if entries.iter().any(|entry| entry.key == decl.name) {
            continue;
        }
        let span = draft.inputs_entry.map_or(draft.name_span, |entry| entry.key_span);
        let candidates = peers.candidates(decl.accepts, own);
        let stage = match candidates.as_slice() {
            [one] => one,
            _ => "STAGE",
        };
        let choice = if candidates.len() > 1 { format!(" (one of {})", list(&candidates)) } else { String::new() };
        let message = format!("{} needs the input `{}`", subject(draft), decl.name);
        let help = format!("add `{}: {stage}` below `inputs`{choice}: {}", decl.name, first_sentence(decl.doc));
        findings.error(
            Finding::new("config::missing_input", span, message).label(format!("needs `{}`", decl.name)).help(help),
        );
    }
}

/// What has which inputs: ``stage `probe` (`linear_probe`)``.
fn subject(draft: &StageDraft<'_>) -> String {
    let what = match (draft.kind, draft.protocol) {
        (Some(_), Some(protocol)) if !protocol.is_empty() => protocol,
        (Some(kind), _) => kind.name(),
        (None, _) => draft.name,
    };
    if what == draft.name { format!("stage `{what}`") } else { format!("stage `{}` (`{what}`)", draft.name) }
}

/// The stages that an input names; those that do not exist are reported.
fn references(
    entry: &Entry,
    own: usize,
    draft: &mut StageDraft<'_>,
    peers: &Peers<'_>,
    findings: &mut Findings,
) -> Vec<InputRef> {
    let path = format!("inputs.{}", entry.key);
    record(&mut draft.places, &path, entry);
    let items = match &entry.value.value {
        NodeValue::Seq(items) => items.as_slice(),
        _ => std::slice::from_ref(&entry.value),
    };
    let mut refs: Vec<InputRef> = vec![];
    for item in items {
        let span = item.span.or(entry.key_span);
        for reference in reference(item, entry, own, peers, findings) {
            if let Some(first) = refs.iter().find(|first| first.stage == reference.stage) {
                let message = format!("`{}` takes `{}` twice", entry.key, peers.cells[reference.stage]);
                findings.error(
                    Finding::new("config::duplicate_input", reference.span, message)
                        .label("again here")
                        .also(first.span, "first here")
                        .help("keep one of the two"),
                );
                continue;
            }
            // By the number that the artifact has in the input: one element may name several.
            draft.places.insert(format!("{path}[{}]", refs.len()), KeySpans { key: span, value: span });
            refs.push(reference);
        }
    }
    refs
}

/// What one element of an input names: a stage, or with `@` any number of cells.
fn reference(node: &Node, entry: &Entry, own: usize, peers: &Peers<'_>, findings: &mut Findings) -> Vec<InputRef> {
    if node.is_invalid() {
        return vec![];
    }
    let span = node.span.or(entry.key_span);
    // A stage may be called `1`, which YAML reads as a number.
    let written = match &node.value {
        NodeValue::Scalar(scalar) if !node.is_null() => scalar.text.as_str(),
        _ => {
            let message = format!("`{}` must be the name of a stage, but is {}", entry.key, node.describe());
            let help = did_you_mean("", "stages are", peers.stages.iter().copied());
            findings.error(Finding::new("config::type", span, message).label("not a name of a stage").maybe_help(help));
            return vec![];
        }
    };
    if written.contains('@') {
        return cells(written, span, own, peers, findings);
    }
    let Some(stage) = peers.cell_for(written, own) else {
        let message = format!("there is no stage `{}`", super::node::shorten(written));
        let others = peers.stages.iter().copied().filter(|name| *name != peers.names[own]);
        let help = did_you_mean(written, "stages are", others);
        findings.error(Finding::new("config::unknown_stage", span, message).label("unknown stage").maybe_help(help));
        return vec![];
    };
    if peers.names[stage] == peers.names[own] {
        findings.error(takes_itself(written, span));
        return vec![];
    }
    vec![InputRef { stage, span }]
}

fn takes_itself(stage: &str, span: Span) -> Finding {
    Finding::new("config::cycle", span, format!("stage `{stage}` takes its own result"))
        .label("itself")
        .help("name the stage whose result it needs")
}

/// The cells that a name with `@` stands for.
fn cells(written: &str, span: Span, own: usize, peers: &Peers<'_>, findings: &mut Findings) -> Vec<InputRef> {
    let found: Vec<usize> = (0..peers.cells.len()).filter(|idx| selects(written, &peers.cells[*idx])).collect();
    if found.is_empty() {
        let stage = written.split('@').next().unwrap_or_default();
        let known = peers.by_name.get(stage);
        let help = match known.map(|cells| (cells, cells.first().map(|idx| peers.axes[*idx].is_empty()))) {
            None => did_you_mean(stage, "stages are", peers.stages.iter().copied()),
            Some((_, Some(true))) => Some(format!("`{stage}` has one cell only: write `{stage}`")),
            Some((cells, _)) => {
                let names: Vec<&str> = cells.iter().map(|idx| peers.cells[*idx].as_str()).collect();
                did_you_mean(written, "its cells are", names.iter().copied())
            }
        };
        let message = format!("no cell matches `{}`", super::node::shorten(written));
        findings.error(Finding::new("config::unknown_cell", span, message).label("no such cell").maybe_help(help));
    }
    if found.iter().any(|idx| peers.names[*idx] == peers.names[own]) {
        findings.error(takes_itself(peers.names[own], span));
        return vec![];
    }
    found.into_iter().map(|stage| InputRef { stage, span }).collect()
}

/// An input of a command: its name becomes part of a variable's name.
fn check_free_input(entry: &Entry, all: &[Entry], findings: &mut Findings) {
    let is_name = entry.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !is_name {
        let message = format!("`{}` cannot be an input of a command", super::node::shorten(&entry.key));
        findings.error(
            Finding::new("config::name", entry.key_span, message)
                .label("becomes part of a variable's name")
                .help("use letters, digits and `_`: the program finds it in `SIMSIAM_PIPE_INPUT_<NAME>`"),
        );
    }
    let upper = entry.key.to_ascii_uppercase();
    if let Some(first) =
        all.iter().take_while(|other| other.key != entry.key).find(|other| other.key.to_ascii_uppercase() == upper)
    {
        let message =
            format!("`{}` and `{}` would share the variable `SIMSIAM_PIPE_INPUT_{upper}`", first.key, entry.key);
        findings.error(
            Finding::new("config::name", entry.key_span, message)
                .label("differs only in case")
                .also(first.key_span, "from this")
                .help("rename one of the two"),
        );
    }
}

fn check_single(entry: &Entry, refs: &[InputRef], findings: &mut Findings) {
    if let NodeValue::Seq(items) = &entry.value.value {
        let message = format!("`{}` takes one stage, but is a list of {}", entry.key, items.len());
        let help = match (entry.value.value.first_text(), refs.len()) {
            (Some(name), 1) => format!("write `{}: {name}`", entry.key),
            _ => "name one stage".into(),
        };
        findings.error(Finding::new("config::many_inputs", entry.value.span, message).label("a list").help(help));
    } else if let (Some(written), true) = (entry.value.as_str(), refs.len() > 1) {
        let stage = written.split('@').next().unwrap_or_default();
        let message = format!("`{}` takes one stage, but `{written}` are {} cells", entry.key, refs.len());
        let help = format!(
            "write `{}: {stage}`, which makes a cell of this stage for each of them, or name a single one",
            entry.key
        );
        findings
            .error(Finding::new("config::many_inputs", entry.value.span, message).label("several cells").help(help));
    }
}

impl NodeValue {
    /// The text of a list's first element.
    fn first_text(&self) -> Option<&str> {
        match self {
            Self::Seq(items) => items.first().and_then(Node::as_str),
            _ => None,
        }
    }
}

fn check_declared_input(
    entry: &Entry,
    refs: &[InputRef],
    own: usize,
    draft: &StageDraft<'_>,
    decls: &[InputDecl],
    peers: &Peers<'_>,
    findings: &mut Findings,
) {
    let Some(decl) = decls.iter().find(|decl| decl.name == entry.key) else {
        let names: Vec<&str> = decls.iter().map(|decl| decl.name).collect();
        let help = match did_you_mean(&entry.key, "it takes", names.iter().copied()) {
            Some(help) => help,
            None => String::from("it takes none: remove the key"),
        };
        let message = format!("{} takes no input `{}`", subject(draft), super::node::shorten(&entry.key));
        findings
            .error(Finding::new("config::unknown_input", entry.key_span, message).label("unknown input").help(help));
        return;
    };
    if decl.many {
        if matches!(&entry.value.value, NodeValue::Seq(items) if items.is_empty()) && decl.required {
            findings.error(
                Finding::new("config::missing_input", entry.value.span, format!("`{}` names no stage", entry.key))
                    .label("empty"),
            );
        }
    } else {
        check_single(entry, refs, findings);
    }
    for reference in refs {
        let Some(kind) = peers.kinds[reference.stage] else { continue };
        if decl.accepts.contains(&kind.output()) {
            continue;
        }
        let takes: Vec<&str> = decl.accepts.iter().map(|kind| with_article(*kind)).collect();
        let name = peers.names[reference.stage];
        let message =
            format!("`{}` takes {}, but `{name}` is {}", entry.key, takes.join(" or "), with_article(kind.output()));
        let candidates = peers.candidates(decl.accepts, own);
        let help = if candidates.is_empty() {
            let kinds: Vec<&str> = StageKind::ALL
                .into_iter()
                .filter(|kind| decl.accepts.contains(&kind.output()))
                .map(StageKind::name)
                .collect();
            format!("no stage leaves {}: add one that uses {}", takes.join(" or "), list(&kinds))
        } else {
            format!("stages that leave {}: {}", takes.join(" or "), list(&candidates))
        };
        findings.error(
            Finding::new("config::wrong_artifact", reference.span, message)
                .label(format!("not {}", takes.join(" or ")))
                .help(help),
        );
    }
}

fn with_article(kind: ArtifactKind) -> &'static str {
    match kind {
        ArtifactKind::Dataset => "a dataset",
        ArtifactKind::Augmentation => "an augmentation",
        ArtifactKind::Encoder => "an encoder",
        ArtifactKind::Embeddings => "embeddings",
        ArtifactKind::Classifier => "a classifier",
        ArtifactKind::Report => "a report",
        ArtifactKind::Files => "files of a command",
    }
}

fn check_cycles(drafts: &[StageDraft<'_>], findings: &mut Findings) {
    let mut edges: BTreeMap<(usize, usize), Span> = BTreeMap::new();
    for (to, draft) in drafts.iter().enumerate() {
        for reference in draft.inputs.values().flatten() {
            edges.entry((reference.stage, to)).or_insert(reference.span);
        }
    }
    let pairs: Vec<(usize, usize)> = edges.keys().copied().collect();
    for cycle in find_cycles(drafts.len(), &pairs) {
        let Some(&first) = cycle.first() else { continue };
        let second = cycle.get(1).copied().unwrap_or(first);
        let names: Vec<&str> = cycle.iter().chain([&first]).map(|idx| drafts[*idx].name).collect();
        let span = edges.get(&(first, second)).copied().unwrap_or(drafts[first].name_span);
        let message = format!("stages wait for each other: {}", names.join(" -> "));
        let label = format!("`{}` waits for `{}` here", drafts[second].name, drafts[first].name);
        findings.error(
            Finding::new("config::cycle", span, message)
                .label(label)
                .help("an arrow leads from a stage to one that takes its result; take one of these inputs away"),
        );
    }
}
