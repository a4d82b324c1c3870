//! Where references stand in texts, whatever they refer to.

use super::node::{Node, NodeValue};

/// The axes that a text refers to.
pub(crate) fn mentioned_axes(text: &str) -> Vec<String> {
    let axis = |part| match part {
        Part::Reference(body) => body.trim().strip_prefix("matrix.").map(str::to_owned),
        _ => None,
    };
    parts(text).into_iter().filter_map(axis).collect()
}

/// The paths under `vars` that a tree refers to.
pub(crate) fn referenced_vars(node: &Node) -> Vec<String> {
    let mut paths = vec![];
    collect(node, &mut paths);
    paths
}

fn collect(node: &Node, paths: &mut Vec<String>) {
    match &node.value {
        NodeValue::Scalar(scalar) => {
            for part in parts(&scalar.text) {
                if let Part::Reference(body) = part
                    && let Some(path) = body.trim().strip_prefix("vars.")
                {
                    paths.push(path.to_owned());
                }
            }
        }
        NodeValue::Seq(items) => items.iter().for_each(|item| collect(item, paths)),
        NodeValue::Map(entries) => entries.iter().for_each(|entry| collect(&entry.value, paths)),
        NodeValue::Invalid => {}
    }
}

/// A piece of a scalar.
#[derive(Debug, PartialEq)]
pub(crate) enum Part<'t> {
    /// What stands for itself.
    Text(&'t str),
    /// What stands between `${` and `}`.
    Reference(&'t str),
    /// A `${` that no `}` follows.
    Unclosed(&'t str),
}

/// The pieces of a scalar's text.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = vec![];
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${`: the first dollar goes, the rest is text.
            parts.push(Part::Text(&rest[..at - 1]));
            parts.push(Part::Text("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            parts.push(Part::Text(&rest[..at]));
        }
        let body = &rest[at + 2..];
        if let Some(end) = body.find('}') {
            parts.push(Part::Reference(&body[..end]));
            rest = &body[end + 1..];
        } else {
            parts.push(Part::Unclosed(&rest[at..]));
            rest = "";
        }
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_fall_into_text_and_references() {
        assert_eq!(parts("${vars.a}"), [Part::Reference("vars.a")]);
        assert_eq!(parts("x/${vars.a}/y"), [Part::Text("x/"), Part::Reference("vars.a"), Part::Text("/y")]);
        assert_eq!(parts("$${a} $b"), [Part::Text(""), Part::Text("${"), Part::Text("a} $b")]);
        assert_eq!(parts("a ${b"), [Part::Text("a "), Part::Unclosed("${b")]);
    }
}
