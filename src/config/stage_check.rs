//! One stage of the file: its kind, its seed and its parameters.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    cell::cell_name,
    cells::Cell,
    findings::{Finding, Findings},
    node::{Entry, Node, NodeValue},
    schema::{self, kind_doc, needs_with, strict_seed_schema, with_schema},
    source::Span,
    suggest::{did_you_mean, list, nearest},
    walk::{At, Places, Walker},
};
use crate::{
    augment::{augment_config::OpConfig, preset::Preset},
    stage::{StageConfig, StageKind, external_input::uses_seed},
};

const STAGE_KEYS: [&str; 5] = ["uses", "inputs", "with", "seed", "matrix"];

/// A stage while it is being checked.
#[derive(Debug)]
pub(crate) struct StageDraft<'n> {
    /// Key under `stages`; messages say this, since a mistake is the same in every cell.
    pub name: &'n str,
    /// The name of the stage, or of the cell that it is.
    pub cell_name: String,
    /// Axes with the values of this cell.
    pub axes: &'n [(String, String)],
    /// Where that key stands.
    pub name_span: Span,
    /// The kind, where `uses` names one.
    pub kind: Option<StageKind>,
    /// The one key of `with` for a kind with several protocols, or "".
    pub protocol: Option<&'static str>,
    /// Parameters, where they are right.
    pub config: Option<StageConfig>,
    /// The stage's own seed.
    pub seed: Option<u64>,
    /// What stands after `inputs`.
    pub inputs_entry: Option<&'n Entry>,
    /// The operations of a policy that are right one by one, by their key path, whatever else is wrong.
    pub ops: Vec<(String, OpConfig)>,
    /// Places of every key.
    pub places: Places,
    /// Checked inputs: the stages of each.
    pub inputs: BTreeMap<String, Vec<InputRef>>,
}

/// A stage that an input takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InputRef {
    /// Number of the stage in the file.
    pub stage: usize,
    /// Where its name stands.
    pub span: Span,
}

impl StageDraft<'_> {
    /// The place of a key path's value, or of the nearest key above it.
    pub(crate) fn span(&self, path: &str) -> Span {
        let mut path = path;
        loop {
            if let Some(spans) = self.places.get(path) {
                return spans.value;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return self.name_span,
            }
        }
    }
}

/// Checks everything of a stage that needs no other stage.
pub(crate) fn check<'n>(cell: &'n Cell, findings: &mut Findings) -> StageDraft<'n> {
    let entry = &cell.entry;
    let mut draft = StageDraft {
        name: &entry.key,
        cell_name: cell_name(&entry.key, &cell.axes),
        axes: &cell.axes,
        name_span: entry.key_span,
        kind: None,
        protocol: None,
        config: None,
        seed: None,
        inputs_entry: None,
        ops: vec![],
        places: Places::new(),
        inputs: BTreeMap::new(),
    };
    check_name(&entry.key, entry.key_span, "stage", findings);
    let node = &entry.value;
    let NodeValue::Map(entries) = &node.value else {
        if !node.is_invalid() {
            let message = format!("stage `{}` must be a mapping, but is {}", entry.key, node.describe());
            let kinds = StageKind::ALL.map(StageKind::name);
            let help = format!("give it `uses`, one of {}", list(&kinds));
            findings.error(
                Finding::new("config::type", node.span.or(entry.key_span), message).label("not a mapping").help(help),
            );
        }
        return draft;
    };
    draft.kind = check_uses(node, &draft, findings);
    check_keys(entries, &draft, findings);
    draft.inputs_entry = node.get("inputs");
    if let Some(uses) = node.get("uses") {
        record(&mut draft.places, "uses", uses);
    }
    if let Some(seed) = node.get("seed") {
        let at = At::top("seed", seed.key_span);
        let mut walker = Walker { findings, places: &mut draft.places, owner: "", top: strict_seed_schema() };
        draft.seed = walker.check(&seed.value, strict_seed_schema(), &at).and_then(|seed| seed.as_u64());
    }
    if let Some(kind) = draft.kind {
        let with = node.get("with");
        draft.protocol = protocol(kind, with);
        draft.config = check_with(kind, with, &mut draft, findings);
        if kind == StageKind::Augment {
            draft.ops = right_ops(with);
        }
    }
    check_seed_axis(cell, &draft, findings);
    draft
}

/// An axis `seed` needs no reference to be used, but somebody who draws random numbers.
fn check_seed_axis(cell: &Cell, draft: &StageDraft<'_>, findings: &mut Findings) {
    if let (Some(span), Some(config)) = (cell.seed_axis, &draft.config)
        && !uses_seed(config)
    {
        let kind = config.kind().name();
        let message = format!("nothing in stage `{}` uses axis `seed`: `{kind}` draws nothing at random", draft.name);
        findings.error(
            Finding::new("config::unused_axis", span, message)
                .label("all cells would be the same")
                .help("write `${matrix.seed}` where its value belongs, or take it away"),
        );
    }
}

/// So that a mistake in one operation does not hide another in the next.
fn right_ops(with: Option<&Entry>) -> Vec<(String, OpConfig)> {
    let top = with_schema(StageKind::Augment);
    let schema = &schema::resolve(top)["properties"]["ops"]["items"];
    let items = |node: &Node| match &node.value {
        NodeValue::Seq(items) => items.clone(),
        _ => vec![],
    };
    let list = |key: &str| with.and_then(|with| with.value.get(key)).map(|entry| items(&entry.value));
    let mut lists = vec![("ops".to_owned(), list("ops").unwrap_or_default())];
    for (view, ops) in list("view_ops").unwrap_or_default().iter().enumerate() {
        lists.push((format!("view_ops[{view}]"), items(ops)));
    }
    let mut right = vec![];
    for (key, items) in lists {
        for (idx, item) in items.iter().enumerate() {
            // What is wrong here is reported by the walk over the whole policy.
            let (mut findings, mut places) = (Findings::default(), Places::new());
            let mut walker = Walker { findings: &mut findings, places: &mut places, owner: "", top };
            let value = walker.check(item, schema, &At::top("", item.span));
            if let Some(op) = value.and_then(|value| serde_json::from_value(value).ok()) {
                right.push((format!("{key}[{idx}]"), op));
            }
        }
    }
    right
}

/// What a policy lacks that no preset supplies.
fn check_policy_is_whole(value: &Value, draft: &StageDraft<'_>, findings: &mut Findings) -> Option<()> {
    if !value["preset"].is_null() {
        return Some(());
    }
    let has = |key: &str| !value[key].is_null();
    let missing: Vec<&str> = [("image_size", has("image_size")), ("ops", has("ops") || has("view_ops"))]
        .into_iter()
        .filter_map(|(key, there)| (!there).then_some(key))
        .collect();
    for key in &missing {
        let span = draft.places.get("with").map_or(draft.name_span, |spans| spans.key);
        let presets = Preset::ALL.map(Preset::name);
        findings.error(
            Finding::new("config::missing_key", span, format!("`{key}` is missing"))
                .label(format!("needs `{key}`"))
                .help(format!("write `{key}`, or `preset` with one of {}", list(&presets))),
        );
    }
    missing.is_empty().then_some(())
}

pub(crate) fn record(places: &mut Places, path: &str, entry: &Entry) {
    let value = entry.value.span.or(entry.key_span);
    places.insert(path.to_owned(), super::walk::KeySpans { key: entry.key_span, value });
}

/// Names become folders, so they are plain.
pub(crate) fn check_name(name: &str, span: Span, what: &str, findings: &mut Findings) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_right = name.chars().all(is_plain) && !name.is_empty() && !name.starts_with(['-', '.']) && name.len() <= 100;
    if !is_right {
        let message = format!("`{}` is not a name for a {what}", super::node::shorten(name));
        findings.error(
            Finding::new("config::name", span, message)
                .label("not a plain name")
                .help("use letters, digits, `_`, `-` and `.`, beginning with a letter, a digit or `_`; at most 100"),
        );
    }
    is_right
}

fn check_uses(node: &Node, draft: &StageDraft<'_>, findings: &mut Findings) -> Option<StageKind> {
    let names = StageKind::ALL.map(StageKind::name);
    let Some(uses) = node.get("uses") else {
        let message = format!("stage `{}` does not say what it is", draft.name);
        findings.error(
            Finding::new("config::missing_key", draft.name_span, message)
                .label("needs `uses`")
                .help(format!("add `uses: KIND`, one of {}", list(&names))),
        );
        return None;
    };
    if uses.value.is_invalid() {
        return None;
    }
    let span = uses.value.span.or(uses.key_span);
    let Some(written) = uses.value.as_str() else {
        let message = format!("`uses` must be a kind of stage, but is {}", uses.value.describe());
        findings.error(
            Finding::new("config::type", span, message)
                .label("not a kind")
                .help(format!("choose one of {}", list(&names))),
        );
        return None;
    };
    let kind = StageKind::ALL.into_iter().find(|kind| kind.name() == written);
    if kind.is_none() {
        let help = match nearest(written, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => StageKind::ALL.map(|kind| format!("`{}`: {}", kind.name(), kind_doc(kind))).join("\n"),
        };
        let message = format!("there is no kind of stage `{}`", super::node::shorten(written));
        findings.error(Finding::new("config::unknown_kind", span, message).label("unknown kind").help(help));
    }
    kind
}

/// Unknown keys of the stage itself; parameters that were left outside `with` are told where they belong.
fn check_keys(entries: &[Entry], draft: &StageDraft<'_>, findings: &mut Findings) {
    for entry in entries.iter().filter(|entry| !STAGE_KEYS.contains(&entry.key.as_str())) {
        let is_parameter = draft.kind.is_some_and(|kind| is_parameter(kind, &entry.key));
        let is_input = draft.kind.is_some_and(|kind| {
            kind.protocols().iter().any(|(_, inputs)| inputs.iter().any(|input| input.name == entry.key))
        });
        let help = if is_parameter {
            Some(format!("`{}` is a parameter: move it below `with`", entry.key))
        } else if is_input {
            Some(format!("`{}` is an input: move it below `inputs`", entry.key))
        } else {
            did_you_mean(&entry.key, "a stage may have", STAGE_KEYS)
        };
        let message = format!("stage `{}` has no key `{}`", draft.name, super::node::shorten(&entry.key));
        findings
            .error(Finding::new("config::unknown_key", entry.key_span, message).label("unknown key").maybe_help(help));
    }
}

fn is_parameter(kind: StageKind, key: &str) -> bool {
    let schema = schema::resolve(with_schema(kind));
    let has = |schema: &Value| schema["properties"].get(key).is_some();
    has(schema) || schema["oneOf"].as_array().is_some_and(|variants| variants.iter().any(has))
}

/// The protocol that `with` chooses; none where it chooses none.
fn protocol(kind: StageKind, with: Option<&Entry>) -> Option<&'static str> {
    match kind.protocols() {
        [(name, _)] => Some(name),
        protocols => {
            let entries = with.map(|with| with.value.entries()).unwrap_or_default();
            let names = || protocols.iter().map(|(name, _)| *name);
            entries.iter().find_map(|entry| {
                let within = |name: &&str| {
                    name.split_once('.').is_some_and(|(word, key)| {
                        word == entry.key && entry.value.entries().iter().any(|inner| inner.key == key)
                    })
                };
                names().find(within).or_else(|| names().find(|name| *name == entry.key))
            })
        }
    }
}

fn check_with(
    kind: StageKind,
    with: Option<&Entry>,
    draft: &mut StageDraft<'_>,
    findings: &mut Findings,
) -> Option<StageConfig> {
    let value = match with {
        Some(entry) if !entry.value.is_null() || needs_with(kind) => {
            let at = At::top("with", entry.key_span);
            let top = with_schema(kind);
            let mut walker = Walker { findings, places: &mut draft.places, owner: kind.name(), top };
            walker.check(&entry.value, top, &at)?
        }
        _ if needs_with(kind) => {
            let message = format!("stage `{}` needs parameters", draft.name);
            findings.error(
                Finding::new("config::missing_key", draft.name_span, message)
                    .label("needs `with`")
                    .help(format!("add `with:` with {}", required_with(kind))),
            );
            return None;
        }
        _ => Value::Object(Map::new()),
    };
    if kind == StageKind::Augment {
        check_policy_is_whole(&value, draft, findings)?;
    }
    decode(kind, value, draft, findings)
}

fn required_with(kind: StageKind) -> String {
    let schema = schema::resolve(with_schema(kind));
    if schema.get("oneOf").is_some() {
        let names: Vec<&str> =
            kind.protocols().iter().map(|(name, _)| *name).filter(|name| !name.contains('.')).collect();
        return format!("one of {}", list(&names));
    }
    let keys: Vec<&str> =
        schema["required"].as_array().map(|keys| keys.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    list(&keys)
}

fn decode(kind: StageKind, value: Value, draft: &StageDraft<'_>, findings: &mut Findings) -> Option<StageConfig> {
    fn typed<T: DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
        serde_path_to_error::deserialize(value).map_err(|error| (error.path().to_string(), error.inner().to_string()))
    }
    let config = match kind {
        StageKind::Ingest => typed(value).map(StageConfig::Ingest),
        StageKind::Augment => typed(value).map(StageConfig::Augment),
        StageKind::Pretrain => typed(value).map(StageConfig::Pretrain),
        StageKind::Extract => typed(value).map(StageConfig::Extract),
        StageKind::Fit => typed(value).map(StageConfig::Fit),
        StageKind::Report => typed(value).map(StageConfig::Report),
        StageKind::Command => typed(value).map(StageConfig::Command),
    };
    match config {
        Ok(config) => Some(config),
        Err((path, message)) => {
            // The walk has passed what serde refuses: say it all the same, at its place.
            let span = draft.span(&format!("with.{path}"));
            findings.error(Finding::new("config::invalid", span, format!("`{path}` is wrong: {message}")));
            None
        }
    }
}
