//! What must be true after a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use proptest::prelude::*;

use super::{
    worker::Recorder,
    world::{Expected, World},
};
use crate::{
    cache::Layout,
    config::Pipeline,
    graph::StageGraph,
    runner::{Selection, Verdict},
};

pub(super) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Hit { .. } => "hit",
        Verdict::Run { .. } => "run",
        Verdict::Unknown { .. } => "unknown",
    }
}

/// Stages whose own parameters are the same; whether their inputs are, too, the cache has decided.
pub(super) fn alike(world: &World, one: &str, other: &str) -> bool {
    let own = |name: &str| {
        let stage = &world.stages[world.index(name)];
        (stage.salt, stage.noise, stage.seed, stage.source, stage.parents.len())
    };
    own(one) == own(other)
}

pub(super) fn check_selection(
    pipeline: &Pipeline,
    selection: &Selection,
    order: &[String],
) -> Result<(), TestCaseError> {
    let graph = StageGraph::build(pipeline).unwrap();
    let chosen: BTreeSet<&str> = order.iter().map(String::as_str).collect();
    for name in &chosen {
        prop_assert!(graph.parents(name).iter().all(|parent| chosen.contains(parent)), "{name} lacks an input");
    }
    for name in &selection.from {
        prop_assert!(graph.descendants(name).iter().all(|follower| chosen.contains(follower)));
    }
    let whole = selection.stages.is_empty() && selection.from.is_empty();
    prop_assert!(!whole || order.len() == pipeline.stages.len());
    Ok(())
}

/// One after the other exactly these run; side by side each result is made once, by one of those that need it.
pub(super) fn check_executed(executed: &[String], expected: &Expected, jobs: usize) -> Result<(), TestCaseError> {
    if jobs == 1 {
        prop_assert_eq!(executed, &expected.executed);
        return Ok(());
    }
    let count = |names: &[String]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            *counts.entry(expected.done.get(name).cloned().unwrap_or_default()).or_default() += 1;
        }
        counts
    };
    prop_assert_eq!(executed.len(), expected.executed.len(), "{:?} {:?}", executed, expected.executed);
    prop_assert_eq!(count(executed), count(&expected.executed));
    Ok(())
}

/// Links, lockfile and folders after a run.
pub(super) fn check_left(world: &mut World, expected: &Expected, pipeline: &Pipeline) -> Result<(), TestCaseError> {
    world.locked.extend(expected.done.clone());
    for name in world.locked.keys().filter(|name| pipeline.stage(name).is_none()) {
        prop_assert!(fs::symlink_metadata(world.project.run_link("p", name)).is_err(), "a link of {} is left", name);
    }
    world.locked.retain(|name, _| pipeline.stage(name).is_some());
    for (name, result) in &expected.done {
        let link = world.project.run_link("p", name).join("out");
        prop_assert_eq!(&fs::read_to_string(link).unwrap(), result);
    }
    let lockfile = world.lockfile();
    prop_assert_eq!(lockfile.stages.keys().collect::<Vec<_>>(), world.locked.keys().collect::<Vec<_>>());
    let layout = Layout::new(&world.project.cache_dir);
    for (name, locked) in &lockfile.stages {
        let result = fs::read_to_string(layout.object(&locked.artifact).join("out")).unwrap();
        prop_assert_eq!(&result, &world.locked[name]);
    }
    for folder in ["tmp", "pins"] {
        let left = fs::read_dir(world.project.cache_dir.join(folder)).unwrap().count();
        prop_assert_eq!(left, 0, "something is left in {}", folder);
    }
    let entries = fs::read_dir(layout.entries()).unwrap().count();
    prop_assert_eq!(entries, world.cache.len());
    Ok(())
}

/// Every event is of the published form, and stages end once, in the way that the model expects.
pub(super) fn check_events(
    recorder: &Recorder,
    order: &[String],
    expected: &Expected,
    schema: &jsonschema::Validator,
) -> Result<(), TestCaseError> {
    let events = recorder.0.lock().unwrap();
    let mut ends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events.iter() {
        prop_assert!(schema.is_valid(event), "{event}");
        let kind = event["event"].as_str().unwrap_or_default();
        if matches!(kind, "stage_restored" | "stage_finished" | "stage_failed" | "stage_cancelled" | "stage_skipped") {
            ends.entry(event["stage"].as_str().unwrap_or_default()).or_default().push(kind);
        }
    }
    for name in order {
        let ends = ends.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let is_done = matches!(ends, ["stage_restored" | "stage_finished"]);
        prop_assert_eq!(is_done, expected.done.contains_key(name), "{} {:?}", name, ends);
        prop_assert!(ends.len() <= 1);
    }
    prop_assert_eq!(events.first().map(|event| event["event"].clone()), Some("run_started".into()));
    prop_assert_eq!(events.last().map(|event| event["event"].clone()), Some("run_finished".into()));
    Ok(())
}
