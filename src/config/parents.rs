//! What a stage says about its cells: the axes that it declares and the stages that it follows from.

use super::{
    axes::{self, Axis},
    node::{Entry, Node, NodeValue},
    references::mentioned_axes,
    substitute::{Resolver, Scope},
};

/// A stage that an input names, while references to axes may still stand in the name.
pub(crate) struct Parent {
    /// The name.
    pub node: Node,
    /// Axes that the name mentions.
    pub axes: Vec<String>,
}

/// The axes that a stage declares.
pub(crate) fn own_axes(stage: &Entry, resolver: &mut Resolver<'_>) -> Vec<Axis> {
    let Some(matrix) = stage.value.get("matrix") else { return vec![] };
    let mut matrix = matrix.clone();
    // No axis can depend on another: the scope names none.
    resolver.scope = Some(Scope { stage: stage.key.clone(), values: vec![] });
    resolver.node(&mut matrix.value);
    resolver.scope = None;
    axes::check(&stage.key, &matrix, resolver.findings)
}

/// The stages that a stage's inputs name, those left out that name cells.
pub(crate) fn parents(stage: &Entry, resolver: &mut Resolver<'_>) -> Vec<Parent> {
    let mut parents = vec![];
    for input in stage.value.get("inputs").map(|inputs| inputs.value.entries()).unwrap_or_default() {
        let items = match &input.value.value {
            NodeValue::Seq(items) => items.as_slice(),
            _ => std::slice::from_ref(&input.value),
        };
        for item in items {
            let axes = text_of(item).map(mentioned_axes).unwrap_or_default();
            let mut node = item.clone();
            if axes.is_empty() {
                resolver.node(&mut node);
            }
            if text_of(&node).is_none_or(|name| !name.contains('@')) {
                parents.push(Parent { node, axes });
            }
        }
    }
    parents
}

/// The text of a scalar, whatever it would mean elsewhere: a stage may be called `1`.
pub(crate) fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        NodeValue::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}
