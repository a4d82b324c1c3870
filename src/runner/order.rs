//! The order of stages: what a stage needs comes first, otherwise as in the file.

use std::collections::BTreeSet;

use crate::config::{Pipeline, Stage};

/// Stages in an order in which each follows what it needs; ties as in the file. Stages of a cycle, which
/// validation has refused before, are left out.
pub fn topological(pipeline: &Pipeline) -> Vec<&Stage> {
    let mut placed = BTreeSet::new();
    let mut order = Vec::new();
    while let Some(stage) = pipeline
        .stages
        .iter()
        .find(|stage| !placed.contains(stage.name.as_str()) && parents(stage).iter().all(|name| placed.contains(name)))
    {
        placed.insert(stage.name.as_str());
        order.push(stage);
    }
    order
}

/// Names of the stages that a stage needs, each once.
pub fn parents(stage: &Stage) -> BTreeSet<&str> {
    stage.inputs.values().flatten().map(String::as_str).collect()
}

/// The stages themselves and everything that they need.
pub fn with_ancestors<'a>(order: &[&'a Stage], names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut wanted = names.clone();
    for stage in order.iter().rev() {
        if wanted.contains(stage.name.as_str()) {
            wanted.extend(parents(stage));
        }
    }
    wanted
}

/// The stages themselves and everything that needs them.
pub fn with_descendants<'a>(order: &[&'a Stage], names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut wanted = names.clone();
    for stage in order {
        if parents(stage).iter().any(|name| wanted.contains(name)) {
            wanted.insert(&stage.name);
        }
    }
    wanted
}
