//! The whole runner against a model of it that is simple enough to be obviously right.
//!
//! Random pipelines of up to 50 quick stages go through random edits, runs, failures and collections of garbage.
//! The model knows a stage by what its result depends on and remembers every result; from that follows what must
//! run, what may not, and what lies where in the end.
//!
//! `SIMSIAM_PIPE_MODEL_CASES` sets the number of cases, 12 without it.

mod checks;
mod scenario;
mod worker;
mod world;

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path, sync::Mutex};

use proptest::prelude::*;

use self::{
    checks::{alike, check_events, check_executed, check_left, check_selection, word},
    scenario::{Round, round, stages},
    worker::{Recorder, Worker},
    world::World,
};
use super::{Cancel, RunOptions, Runner, RunnerError, Selection};

/// One round: edits, a plan, a run, and everything that must be true then.
fn play(world: &mut World, round: &Round, schema: &jsonschema::Validator) -> Result<(), TestCaseError> {
    for edit in &round.edits {
        world.apply(edit);
    }
    let pipeline = world.pipeline();
    let name = |stage: Option<usize>| stage.map(|stage| world.stages[stage % world.stages.len()].name.clone());
    let selection = Selection {
        stages: name(round.stage).into_iter().collect(),
        from: name(round.from).into_iter().collect(),
        force: name(round.force).into_iter().collect(),
    };
    let Ok(selected) = selection.apply(&pipeline) else {
        // A stage that is to be forced and does not take part.
        prop_assert!(round.force.is_some() && (round.stage.is_some() || round.from.is_some()));
        return Ok(());
    };
    let order: Vec<String> = selected.stages.iter().map(|stage| stage.name.clone()).collect();
    let forced: BTreeSet<String> = selected.forced.iter().map(|name| (*name).to_owned()).collect();
    check_selection(&pipeline, &selection, &order)?;

    // Only one after the other it is certain what a failure leaves, and which of two stages that are alike runs
    // although the cache has its result.
    let is_certain = round.failure.is_none() && !round.no_cache && forced.is_empty();
    let jobs = if is_certain { round.jobs } else { 1 };
    let options =
        RunOptions { selection, jobs, no_cache: round.no_cache, keep_going: round.keep_going, ..RunOptions::default() };
    let (store, cancel, recorder) = (world.store(), Cancel::default(), Recorder::default());
    let failing = round.failure.and_then(|(stage, ending)| Some((name(Some(stage))?, ending)));
    let worker = Worker { failing, cancel: &cancel, executed: Mutex::default() };
    let runner =
        Runner { project: &world.project, store: &store, executor: &worker, observer: &recorder, cancel: &cancel };
    let plan = runner.plan(&pipeline, &options).unwrap();
    let planned: Vec<&str> = plan.stages.iter().map(|stage| word(&stage.verdict)).collect();
    prop_assert_eq!(&planned, &world.expect_plan(&order, &forced, round.no_cache));
    prop_assert!(worker.executed.lock().unwrap().is_empty());

    let result = runner.run(&pipeline, &options);
    drop(store);
    let executed = std::mem::take(&mut *worker.executed.lock().unwrap());
    let expected = world.expect(&order, &forced, round);
    match &result {
        Ok(_) => prop_assert!(!expected.fails && !expected.stops),
        Err(RunnerError::Cancelled { .. }) => prop_assert!(expected.stops),
        Err(RunnerError::StagesFailed { .. }) => prop_assert!(expected.fails),
        Err(other) => prop_assert!(false, "{other}"),
    }
    check_executed(&executed, &expected, jobs)?;
    let is_whole = result.is_ok();
    for (stage, verdict) in order.iter().zip(&planned) {
        let ran = executed.contains(stage);
        // Of stages that are alike only one runs.
        prop_assert!(!(ran && *verdict == "hit"), "{stage} was a hit and ran");
        if is_whole && jobs == 1 && *verdict == "run" && !ran {
            prop_assert!(executed.iter().any(|other| alike(world, stage, other)), "{stage} was to run and did not");
        }
    }
    check_left(world, &expected, &pipeline)?;
    check_events(&recorder, &order, &expected, schema)?;
    if is_whole {
        let again = Runner {
            project: &world.project,
            store: &world.store(),
            executor: &worker,
            observer: &Recorder::default(),
            cancel: &Cancel::default(),
        };
        let options =
            RunOptions { selection: Selection { force: vec![], ..options.selection }, ..RunOptions::default() };
        let plan = again.plan(&pipeline, &options).unwrap();
        prop_assert!(plan.stages.iter().all(|stage| stage.verdict.is_hit()), "{plan:?}");
    }
    Ok(())
}

fn num_cases() -> u32 {
    std::env::var("SIMSIAM_PIPE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

fn schema() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/events.schema.json");
    jsonschema::validator_for(&serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: num_cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_runner_does_what_the_model_says(
        (num_stages, edges) in stages(),
        rounds in prop::collection::vec(round(), 1..6),
    ) {
        let schema = schema();
        let mut world = World::new(num_stages, &edges);
        for round in &rounds {
            play(&mut world, round, &schema)?;
        }
    }
}

#[test]
fn the_model_notices_what_it_is_there_for() {
    // A model that could not fail would prove nothing: here it is told of a result that the cache does not have.
    let schema = schema();
    let mut world = World::new(2, &[(0, 1)]);
    let quiet = Round {
        edits: vec![],
        jobs: 1,
        keep_going: false,
        failure: None,
        stage: None,
        from: None,
        force: None,
        no_cache: false,
    };
    play(&mut world, &quiet, &schema).unwrap();
    world.stages[1].salt = 99;
    let key = world.key(1, &BTreeMap::from([(0, world.locked["s0"].clone())]));
    world.cache.insert(key, "made up".into());
    assert!(play(&mut world, &quiet, &schema).is_err());
}
