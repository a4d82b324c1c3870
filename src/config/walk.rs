//! Checks a tree against the schema of a configuration type and turns it into JSON for serde.
//!
//! Serde stops at the first mistake and knows no places; this walk finds all of them, each at its place, and
//! what passes it decodes.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Number, Value};

use super::{
    findings::{Finding, Findings},
    hints::{example, first_sentence, home_of, number_help, number_of, range_text, variant_example, with_origin},
    node::{Entry, Node, NodeValue},
    scalar::{ScalarKind, resolve_plain},
    schema::{resolve, type_name},
    source::Span,
    suggest::{did_you_mean, list, nearest},
};

/// Where a key and its value stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KeySpans {
    /// The key, or the list element itself.
    pub key: Span,
    /// The value.
    pub value: Span,
}

/// Places of every key by key path, such as `with.ops[0].grayscale.p`.
pub(crate) type Places = BTreeMap<String, KeySpans>;

/// The node that is being looked at.
#[derive(Clone, Debug)]
pub(crate) struct At {
    /// Key path.
    pub path: String,
    /// Its key, for what has no place of its own.
    pub key: Span,
    /// What the key means, in a sentence.
    pub doc: Option<&'static str>,
}

impl At {
    fn key(&self, entry: &Entry) -> Self {
        let path = if self.path.is_empty() { entry.key.clone() } else { format!("{}.{}", self.path, entry.key) };
        Self { path, key: entry.key_span, doc: None }
    }

    fn element(&self, idx: usize, node: &Node) -> Self {
        Self { path: format!("{}[{idx}]", self.path), key: node.span.or(self.key), doc: self.doc }
    }

    /// A path of its own.
    pub(crate) fn top(path: &str, key: Span) -> Self {
        Self { path: path.to_owned(), key, doc: None }
    }

    /// The path as messages show it: below `with`, where there is anything below.
    fn shown(&self) -> &str {
        self.path.strip_prefix("with.").unwrap_or(&self.path)
    }

    /// `` `p`: probability that the operation is applied ``
    fn meaning(&self) -> Option<String> {
        let name = self.path.rsplit('.').next()?.split('[').next()?;
        Some(format!("`{name}`: {}", first_sentence(self.doc?)))
    }
}

/// Walks trees, collecting mistakes and places.
pub(crate) struct Walker<'a> {
    /// Where mistakes go.
    pub findings: &'a mut Findings,
    /// Where places go.
    pub places: &'a mut Places,
    /// Whose parameters are walked: the kind of the stage.
    pub owner: &'static str,
    /// The schema of all of them.
    pub top: &'static Value,
}

impl Walker<'_> {
    /// Checks a node; the JSON that serde decodes, or none where something is wrong.
    pub(crate) fn check(&mut self, node: &Node, schema: &'static Value, at: &At) -> Option<Value> {
        self.places.insert(at.path.clone(), KeySpans { key: at.key, value: node.span.or(at.key) });
        if node.is_invalid() {
            return None;
        }
        let schema = resolve(schema);
        if let Some(variants) = schema["anyOf"].as_array() {
            // `Option<T>`: null or the other.
            let inner = variants.iter().find(|variant| variant["type"] != "null")?;
            return if node.is_null() { Some(Value::Null) } else { self.check(node, inner, at) };
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            return self.check_choice(node, variants, at);
        }
        if node.is_null() && schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null")) {
            return Some(Value::Null);
        }
        match type_name(&schema["type"]) {
            Some("object") => self.check_object(node, schema, at),
            Some("array") => self.check_array(node, schema, at),
            Some("integer") => self.check_integer(node, schema, at),
            Some("number") => self.check_number(node, schema, at),
            Some("boolean") => self.check_bool(node, at),
            _ => self.check_string(node, at),
        }
    }

    /// The place to point at: the value, or the key where nothing is written.
    fn span(node: &Node, at: &At) -> Span {
        node.span.or(at.key)
    }

    fn wrong_type(&mut self, node: &Node, at: &At, expected: &str, help: Option<String>) {
        let span = Self::span(node, at);
        let message = format!("`{}` must be {expected}, but is {}", at.shown(), node.describe());
        let help = help.or_else(|| at.meaning());
        let finding = Finding::new("config::type", span, message).label(format!("not {expected}")).maybe_help(help);
        self.findings.error(with_origin(finding, node));
    }

    fn check_object(&mut self, node: &Node, schema: &'static Value, at: &At) -> Option<Value> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let properties = schema["properties"].as_object().unwrap_or(&NONE);
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|keys| keys.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let NodeValue::Map(entries) = &node.value else {
            let help = if node.is_null() && required.is_empty() {
                let name = at.path.rsplit('.').next().unwrap_or_default();
                Some(format!("write `{name}: {{}}` to take every default"))
            } else {
                example(properties, &required)
            };
            self.wrong_type(node, at, "a mapping", help);
            return None;
        };
        let mut object = Map::new();
        let mut is_right = true;
        for entry in entries {
            let mut at = at.key(entry);
            let value_schema = match (properties.get(&entry.key), &schema["additionalProperties"]) {
                (Some(schema), _) => schema,
                (None, Value::Object(_)) => &schema["additionalProperties"],
                (None, _) => {
                    is_right = false;
                    self.unknown_key(entry, &at, properties);
                    continue;
                }
            };
            at.doc = value_schema["description"].as_str();
            match self.check(&entry.value, value_schema, &at) {
                Some(value) => {
                    object.insert(entry.key.clone(), value);
                }
                None => is_right = false,
            }
        }
        for key in required {
            if !entries.iter().any(|entry| entry.key == key) {
                is_right = false;
                let doc = properties.get(key).and_then(|schema| schema["description"].as_str()).unwrap_or_default();
                let message = format!("`{}` needs `{key}`", self.whose(&at.path));
                let finding = Finding::new("config::missing_key", at.key, message)
                    .label(format!("`{key}` is missing"))
                    .help(format!("add `{key}`: {}", first_sentence(doc)));
                self.findings.error(finding);
            }
        }
        is_right.then_some(Value::Object(object))
    }

    fn unknown_key(&mut self, entry: &Entry, at: &At, properties: &Map<String, Value>) {
        let parent = at.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let keys = || properties.keys().map(String::as_str);
        let elsewhere = || {
            let home = home_of(self.top, &entry.key)?;
            Some(format!("`{}` belongs below `{home}`", entry.key))
        };
        let help = nearest(&entry.key, keys())
            .map(|name| format!("did you mean `{name}`?"))
            .or_else(elsewhere)
            .or_else(|| did_you_mean(&entry.key, "it may have", keys()))
            .unwrap_or_else(|| "it has no parameters: remove the key".into());
        let message = format!("`{}` has no parameter `{}`", self.whose(parent), super::node::shorten(&entry.key));
        let finding = Finding::new("config::unknown_key", entry.key_span, message).label("unknown key").help(help);
        self.findings.error(finding);
    }

    /// Whose parameters stand at a path: the kind's own directly below `with`.
    fn whose<'p>(&'p self, path: &'p str) -> &'p str {
        if path == "with" { self.owner } else { path.strip_prefix("with.").unwrap_or(path) }
    }

    /// An enum: constants are written as text, variants with parameters as a mapping of one key.
    fn check_choice(&mut self, node: &Node, variants: &'static [Value], at: &At) -> Option<Value> {
        let constants: Vec<&str> = variants.iter().filter_map(|variant| variant["const"].as_str()).collect();
        let tagged: BTreeMap<&str, &'static Value> = variants
            .iter()
            .filter_map(|variant| variant["properties"].as_object()?.iter().next())
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        // In the order of the type, which is the order of the documentation.
        let names: Vec<&str> = variants
            .iter()
            .filter_map(|variant| {
                variant["const"].as_str().or_else(|| variant["required"].get(0).and_then(Value::as_str))
            })
            .collect();
        match &node.value {
            NodeValue::Map(entries) => self.check_variant(node, entries, &tagged, &constants, &names, at),
            NodeValue::Scalar(scalar) => {
                let text = scalar.text.as_str();
                let is_text = scalar.kind == ScalarKind::Str || node.loose || !scalar.text.is_empty();
                if is_text && constants.contains(&text) {
                    return Some(Value::String(text.to_owned()));
                }
                if is_text && let Some(schema) = tagged.get(text) {
                    let message = format!("`{text}` takes parameters and cannot stand alone");
                    let finding = Finding::new("config::type", Self::span(node, at), message)
                        .label("without parameters")
                        .help(format!("write {}", variant_example(text, schema)));
                    self.findings.error(with_origin(finding, node));
                    return None;
                }
                self.unknown_choice(node, text, &names, at);
                None
            }
            _ => {
                let expected = if tagged.is_empty() { "a word" } else { "a mapping of one key" };
                self.wrong_type(node, at, expected, Some(format!("choose one of {}", list(&names))));
                None
            }
        }
    }

    fn unknown_choice(&mut self, node: &Node, written: &str, names: &[&str], at: &At) {
        if node.is_null() {
            self.wrong_type(node, at, "a choice", Some(format!("choose one of {}", list(names))));
            return;
        }
        let message = format!("`{}` cannot be `{}`", at.shown(), super::node::shorten(written));
        let help = did_you_mean(written, "it may be", names.iter().copied());
        let finding = Finding::new("config::unknown_choice", Self::span(node, at), message)
            .label("not one of the choices")
            .maybe_help(help);
        self.findings.error(with_origin(finding, node));
    }

    fn check_variant(
        &mut self,
        node: &Node,
        entries: &[Entry],
        tagged: &BTreeMap<&str, &'static Value>,
        constants: &[&str],
        names: &[&str],
        at: &At,
    ) -> Option<Value> {
        let [entry] = entries else {
            let Some(second) = entries.get(1) else {
                self.wrong_type(node, at, "a mapping of one key", Some(format!("choose one of {}", list(names))));
                return None;
            };
            let first = &entries[0];
            let is_parameter = tagged
                .get(first.key.as_str())
                .is_some_and(|schema| resolve(schema)["properties"].get(&second.key).is_some());
            let help = if is_parameter {
                format!("indent the parameters of `{}` further than its name", first.key)
            } else {
                format!("keep one of {}", list(&entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>()))
            };
            let message = format!("`{}` takes one choice, but `{}` is a second", at.shown(), second.key);
            let finding = Finding::new("config::one_choice", second.key_span, message)
                .label("a second choice")
                .also(first.key_span, "the first")
                .help(help);
            self.findings.error(finding);
            return None;
        };
        let Some(schema) = tagged.get(entry.key.as_str()) else {
            if constants.contains(&entry.key.as_str()) {
                let message = format!("`{}` has no parameters", entry.key);
                let finding = Finding::new("config::type", entry.key_span, message)
                    .label("a plain word")
                    .help(format!("write `{}` without a colon", entry.key));
                self.findings.error(finding);
                return None;
            }
            let message = format!("`{}` has no choice `{}`", at.shown(), super::node::shorten(&entry.key));
            let finding = Finding::new("config::unknown_choice", entry.key_span, message)
                .label("not one of the choices")
                .maybe_help(did_you_mean(&entry.key, "it may be", names.iter().copied()));
            self.findings.error(finding);
            return None;
        };
        let value = self.check(&entry.value, schema, &at.key(entry))?;
        Some(Value::Object(Map::from_iter([(entry.key.clone(), value)])))
    }

    fn check_array(&mut self, node: &Node, schema: &'static Value, at: &At) -> Option<Value> {
        let NodeValue::Seq(items) = &node.value else {
            let help = match &node.value {
                NodeValue::Scalar(scalar) if !scalar.text.is_empty() => Some(format!("write `[{}]`", scalar.text)),
                NodeValue::Map(_) => Some("begin each element with `- `".into()),
                _ => Some("an empty list is written `[]`".into()),
            };
            self.wrong_type(node, at, "a list", help);
            return None;
        };
        let (min, max) = (schema["minItems"].as_u64().unwrap_or(0), schema["maxItems"].as_u64().unwrap_or(u64::MAX));
        let mut is_right = true;
        let length = items.len() as u64;
        if length < min || length > max {
            is_right = false;
            let expected = if min == max { format!("exactly {min}") } else { format!("at least {min}") };
            let message = format!(
                "`{}` must have {expected} element{}, but has {length}",
                at.shown(),
                if min == 1 { "" } else { "s" }
            );
            let finding = Finding::new("config::length", Self::span(node, at), message)
                .label(format!("{length} element{}", if length == 1 { "" } else { "s" }));
            self.findings.error(with_origin(finding, node));
        }
        let mut array = vec![];
        for (idx, item) in items.iter().enumerate() {
            match self.check(item, &schema["items"], &at.element(idx, item)) {
                Some(value) => array.push(value),
                None => is_right = false,
            }
        }
        is_right.then_some(Value::Array(array))
    }

    fn check_integer(&mut self, node: &Node, schema: &Value, at: &At) -> Option<Value> {
        let expected = format!("a whole number{}", range_text(schema));
        let value = match number_of(node) {
            Some(ScalarKind::Int(value)) => value,
            // `1e3` is a whole number too.
            Some(ScalarKind::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => value as i128,
            Some(ScalarKind::Float(_)) => {
                self.wrong_type(node, at, &expected, None);
                return None;
            }
            _ => {
                self.wrong_type(node, at, &expected, number_help(node));
                return None;
            }
        };
        let format_max = match schema["format"].as_str() {
            Some("uint8") => i128::from(u8::MAX),
            Some("uint32") => i128::from(u32::MAX),
            Some("uint64") => i128::from(u64::MAX),
            _ => i128::from(i64::MAX),
        };
        let min = schema["minimum"].as_f64().map_or(i128::from(i64::MIN), |min| min as i128);
        let max = schema["maximum"].as_f64().map_or(format_max, |max| (max as i128).min(format_max));
        if value < min || value > max {
            let expected = if value > max && schema["maximum"].is_null() {
                format!(" of at most {max}")
            } else {
                range_text(schema)
            };
            self.out_of_range(node, at, &format!("a whole number{expected}"));
            return None;
        }
        match u64::try_from(value) {
            Ok(value) => Some(Value::from(value)),
            Err(_) => i64::try_from(value).ok().map(Value::from),
        }
    }

    fn check_number(&mut self, node: &Node, schema: &Value, at: &At) -> Option<Value> {
        let expected = format!("a number{}", range_text(schema));
        let value = match number_of(node) {
            Some(ScalarKind::Int(value)) => value as f64,
            Some(ScalarKind::Float(value)) => value,
            _ => {
                self.wrong_type(node, at, &expected, number_help(node));
                return None;
            }
        };
        let is_in = value >= schema["minimum"].as_f64().unwrap_or(f64::NEG_INFINITY)
            && value <= schema["maximum"].as_f64().unwrap_or(f64::INFINITY);
        let Some(number) = Number::from_f64(value).filter(|_| is_in) else {
            self.out_of_range(node, at, &expected);
            return None;
        };
        Some(Value::Number(number))
    }

    fn out_of_range(&mut self, node: &Node, at: &At, expected: &str) {
        let message = format!("`{}` must be {expected}, but is {}", at.shown(), node.describe());
        let finding = Finding::new("config::range", Self::span(node, at), message)
            .label(format!("not {expected}"))
            .maybe_help(at.meaning());
        self.findings.error(with_origin(finding, node));
    }

    fn check_bool(&mut self, node: &Node, at: &At) -> Option<Value> {
        if let NodeValue::Scalar(scalar) = &node.value {
            let kind = if node.loose { resolve_plain(&scalar.text) } else { scalar.kind };
            if let ScalarKind::Bool(value) = kind {
                return Some(Value::Bool(value));
            }
            let help = match scalar.text.to_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => Some("write `true`, without quotes".into()),
                "no" | "off" | "n" | "0" | "false" => Some("write `false`, without quotes".into()),
                _ => None,
            };
            self.wrong_type(node, at, "`true` or `false`", help);
            return None;
        }
        self.wrong_type(node, at, "`true` or `false`", None);
        None
    }

    fn check_string(&mut self, node: &Node, at: &At) -> Option<Value> {
        if let Some(text) = node.as_str() {
            return Some(Value::String(text.to_owned()));
        }
        let help = match &node.value {
            NodeValue::Scalar(scalar) if !scalar.text.is_empty() => Some(format!("quote it: \"{}\"", scalar.text)),
            NodeValue::Scalar(_) => Some("write the text after the colon; an empty one is `\"\"`".into()),
            _ => None,
        };
        self.wrong_type(node, at, "text", help);
        None
    }
}
