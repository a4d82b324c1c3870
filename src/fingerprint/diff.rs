//! The difference of two fingerprints, field by field.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{StageFingerprint, canonical};
use crate::digest::Digest;

/// Before the key of a source whose content differs.
pub const CONTENT_OF: &str = "content of ";

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldChange {
    /// Key path as in the pipeline file: `with.epochs`, `with.ops[2].color_jitter.p`, `inputs.dataset`, `seed`.
    pub key: String,
    /// The value before, as JSON; for content a short digest; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The value now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// For content: which files differ, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// `file:line` of the value now, where the file says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl FieldChange {
    fn new(key: impl Into<String>, old: Option<String>, new: Option<String>) -> Self {
        Self { key: key.into(), old, new, details: None, place: None }
    }
}

/// Every field in which two fingerprints differ, in the order of the record. Empty means equal digests.
pub fn diff(old: &StageFingerprint, new: &StageFingerprint) -> Vec<FieldChange> {
    let mut changes = diff_own(old, new);
    let names: BTreeSet<_> = old.inputs.keys().chain(new.inputs.keys()).collect();
    for name in names {
        let (before, after) = (old.inputs.get(name), new.inputs.get(name));
        if before == after {
            continue;
        }
        let (before, after) = (before.map_or(&[][..], Vec::as_slice), after.map_or(&[][..], Vec::as_slice));
        for idx in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(idx), after.get(idx));
            if old != new {
                let many = before.len() > 1 || after.len() > 1;
                let key = if many { format!("inputs.{name}[{idx}]") } else { format!("inputs.{name}") };
                changes.push(FieldChange::new(key, old.map(Digest::short), new.map(Digest::short)));
            }
        }
    }
    changes
}

/// As [`diff`], but only what is known before the stages that this one depends on have run.
pub fn diff_own(old: &StageFingerprint, new: &StageFingerprint) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let mut compare = |key: &str, before: String, after: String| {
        if before != after {
            changes.push(FieldChange::new(key, Some(before), Some(after)));
        }
    };
    compare("fingerprint version", old.version.to_string(), new.version.to_string());
    compare("uses", old.kind.name().into(), new.kind.name().into());
    compare(
        &format!("implementation of `{}`", new.kind.name()),
        format!("revision {}", old.implementation_revision),
        format!("revision {}", new.implementation_revision),
    );
    diff_values("with", Some(&old.config), Some(&new.config), &mut changes);
    let keys: BTreeSet<_> = old.sources.keys().chain(new.sources.keys()).collect();
    for key in keys {
        let (before, after) = (old.sources.get(key), new.sources.get(key));
        if before != after {
            let key = format!("{CONTENT_OF}with.{key}");
            changes.push(FieldChange::new(key, before.map(Digest::short), after.map(Digest::short)));
        }
    }
    if old.seed != new.seed {
        let spell = |seed: Option<u64>| seed.map(|seed| seed.to_string());
        changes.push(FieldChange::new("seed", spell(old.seed), spell(new.seed)));
    }
    changes
}

/// Inputs that take another number of artifacts than before, which is known although what these are is not.
pub fn diff_input_counts(old: &StageFingerprint, counts: &BTreeMap<&str, usize>) -> Vec<FieldChange> {
    let names: BTreeSet<&str> = old.inputs.keys().map(String::as_str).chain(counts.keys().copied()).collect();
    let spell = |count: usize| match count {
        0 => None,
        1 => Some("1 artifact".to_owned()),
        count => Some(format!("{count} artifacts")),
    };
    names
        .into_iter()
        .map(|name| (name, old.inputs.get(name).map_or(0, Vec::len), counts.get(name).copied().unwrap_or(0)))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| FieldChange::new(format!("inputs.{name}"), spell(before), spell(after)))
        .collect()
}

fn diff_values(key: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<FieldChange>) {
    match (old, new) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => diff_objects(key, before, after, changes),
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (idx, (old, new)) in before.iter().zip(after).enumerate() {
                diff_values(&format!("{key}[{idx}]"), Some(old), Some(new), changes);
            }
        }
        (old, new) => {
            let spell = |value: &Value| canonical::to_canonical_json(value);
            let (old, new) = (old.map(spell), new.map(spell));
            if old != new {
                changes.push(FieldChange::new(key, old, new));
            }
        }
    }
}

fn diff_objects(key: &str, before: &Map<String, Value>, after: &Map<String, Value>, changes: &mut Vec<FieldChange>) {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        diff_values(&format!("{key}.{name}"), before.get(name), after.get(name), changes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::StageKind;

    fn fingerprint(config: Value) -> StageFingerprint {
        StageFingerprint {
            version: 1,
            kind: StageKind::Pretrain,
            implementation_revision: 1,
            config,
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            seed: Some(0),
        }
    }

    fn lines(old: &StageFingerprint, new: &StageFingerprint) -> Vec<String> {
        let spell = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        diff(old, new)
            .into_iter()
            .map(|change| format!("{}: {} -> {}", change.key, spell(change.old), spell(change.new)))
            .collect()
    }

    #[test]
    fn equal_records_do_not_differ() {
        let record = fingerprint(json!({"a": 1}));
        assert!(diff(&record, &record).is_empty());
        assert!(diff(&record, &fingerprint(json!({"a": 1.0}))).is_empty());
    }

    #[test]
    fn nested_fields_are_named_with_both_values() {
        let old = fingerprint(json!({"epochs": 100, "ops": [{"crop": {"scale": [0.2, 1.0]}}], "gone": true}));
        let mut new = fingerprint(json!({"epochs": 200, "ops": [{"crop": {"scale": [0.08, 1.0]}}], "new": "x"}));
        new.seed = Some(1);
        assert_eq!(
            lines(&old, &new),
            [
                "with.epochs: 100 -> 200",
                "with.gone: true -> -",
                "with.new: - -> \"x\"",
                "with.ops[0].crop.scale[0]: 0.2 -> 0.08",
                "seed: 0 -> 1",
            ]
        );
    }

    #[test]
    fn inputs_and_sources_show_short_digests() {
        let (mut old, mut new) = (fingerprint(json!({})), fingerprint(json!({})));
        old.inputs.insert("dataset".into(), vec![Digest::of(b"a")]);
        new.inputs.insert("dataset".into(), vec![Digest::of(b"b")]);
        new.inputs.insert("classifiers".into(), vec![Digest::of(b"a"), Digest::of(b"b")]);
        new.sources.insert("source.image_folder".into(), Digest::of(b"a"));
        let (a, b) = (Digest::of(b"a").short(), Digest::of(b"b").short());
        assert_eq!(
            lines(&old, &new),
            [
                format!("content of with.source.image_folder: - -> {a}"),
                format!("inputs.classifiers[0]: - -> {a}"),
                format!("inputs.classifiers[1]: - -> {b}"),
                format!("inputs.dataset: {a} -> {b}"),
            ]
        );
    }

    #[test]
    fn another_number_of_inputs_is_a_change() {
        let mut old = fingerprint(json!({}));
        old.inputs.insert("classifiers".into(), vec![Digest::of(b"a")]);
        old.inputs.insert("datasets".into(), vec![Digest::of(b"a")]);
        old.inputs.insert("gone".into(), vec![Digest::of(b"a")]);
        let changes = diff_input_counts(&old, &BTreeMap::from([("classifiers", 3), ("datasets", 1), ("new", 1)]));
        let found: Vec<_> =
            changes.iter().map(|change| (change.key.as_str(), change.old.as_deref(), change.new.as_deref())).collect();
        assert_eq!(
            found,
            [
                ("inputs.classifiers", Some("1 artifact"), Some("3 artifacts")),
                ("inputs.gone", Some("1 artifact"), None),
                ("inputs.new", None, Some("1 artifact")),
            ]
        );
    }
}
