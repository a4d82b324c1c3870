//! What a schema and a node have to say to somebody who made a mistake.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::{
    findings::Finding,
    node::{Node, NodeValue},
    scalar::{ScalarKind, resolve_plain},
    schema::resolve,
    suggest::list,
};

/// The number that a scalar is, or that loose text can be read as.
pub(crate) fn number_of(node: &Node) -> Option<ScalarKind> {
    let NodeValue::Scalar(scalar) = &node.value else { return None };
    let kind = if node.loose { resolve_plain(&scalar.text) } else { scalar.kind };
    matches!(kind, ScalarKind::Int(_) | ScalarKind::Float(_)).then_some(kind)
}

pub(crate) fn number_help(node: &Node) -> Option<String> {
    let NodeValue::Scalar(scalar) = &node.value else { return None };
    if matches!(resolve_plain(&scalar.text), ScalarKind::Int(_) | ScalarKind::Float(_)) {
        return Some(format!("remove the quotes: {}", scalar.text));
    }
    let bare: String = scalar.text.chars().filter(|c| !matches!(c, '_' | ',' | ' ')).collect();
    (bare != scalar.text && matches!(resolve_plain(&bare), ScalarKind::Int(_) | ScalarKind::Float(_)))
        .then(|| format!("write {bare}"))
}

/// Adds where the value of a reference comes from.
pub(crate) fn with_origin(finding: Finding, node: &Node) -> Finding {
    match &node.origin {
        Some(origin) => {
            let text = format!("the value of `{}`", origin.written);
            match origin.defined {
                Some(span) => finding.also(span, text),
                None => finding,
            }
        }
        None => finding,
    }
}

/// ` between 0 and 1`, ` of at least 1`, or nothing.
pub(crate) fn range_text(schema: &Value) -> String {
    let limit = |key: &str| schema[key].as_f64().map(|limit| format!("{limit}"));
    match (limit("minimum"), limit("maximum")) {
        (Some(min), Some(max)) => format!(" between {min} and {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

/// The first sentence of a description, as it goes on after a colon.
pub(crate) fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    let end = text.find(". ").unwrap_or(text.len());
    let sentence = text[..end].trim_end_matches('.');
    let mut chars = sentence.chars();
    match (chars.next(), chars.next()) {
        // `ImageNet`, `kNN` and `L2` keep their letters.
        (Some(first), Some(second)) if second.is_lowercase() && !sentence.starts_with("ImageNet") => {
            first.to_lowercase().chain(sentence.chars().skip(1)).collect()
        }
        _ => sentence.to_owned(),
    }
}

/// Where in a schema a key stands that is written in the wrong place: the nearest to the top.
pub(crate) fn home_of(top: &'static Value, key: &str) -> Option<String> {
    let mut queue: VecDeque<(String, &'static Value)> = VecDeque::from([(String::new(), top)]);
    for _ in 0..200 {
        let (path, schema) = queue.pop_front()?;
        let schema = resolve(schema);
        let properties = schema["properties"].as_object();
        if !path.is_empty() && properties.is_some_and(|properties| properties.contains_key(key)) {
            return Some(path);
        }
        for (name, property) in properties.into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            queue.push_back((path, property));
        }
        for variant in ["oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
            for (name, property) in variant["properties"].as_object().into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                queue.push_back((path, property));
            }
            if variant["$ref"].is_string() {
                queue.push_back((path.clone(), variant));
            }
        }
    }
    None
}

pub(crate) fn example(properties: &Map<String, Value>, required: &[&str]) -> Option<String> {
    let keys: Vec<&str> =
        if required.is_empty() { properties.keys().map(String::as_str).collect() } else { required.to_vec() };
    (!keys.is_empty()).then(|| format!("it may have the keys {}", list(&keys)))
}

/// How a variant that was written as a word is written with its parameters.
pub(crate) fn variant_example(name: &str, schema: &'static Value) -> String {
    let schema = resolve(schema);
    let required: Vec<&str> =
        schema["required"].as_array().map(|keys| keys.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    match (schema["type"].as_str(), required.as_slice()) {
        (Some("object"), []) => format!("`{{ {name}: {{}} }}` to take every default"),
        (Some("object"), keys) => format!("`{{ {name}: {{ … }} }}` with {}", list(keys)),
        _ => format!("`{{ {name}: … }}` with its value"),
    }
}
