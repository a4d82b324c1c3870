//! The whole runner against a model of it that is simple enough to be obviously right.
//!
//! Random pipelines of up to 50 quick stages go through random edits, runs, failures and collections of garbage.
//! The model knows a stage by what its result depends on and remembers every result; from that follows what must
//! run, what may not, and what lies where in the end.
//!
//! `SIMSIAM_PIPE_MODEL_CASES` sets the number of cases, 12 without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    sync::Mutex,
};

use proptest::prelude::*;
use serde_json::Value;

use super::{
    Cancel, RunEvent, RunObserver, RunOptions, Runner, RunnerError, Selection, StageExecutor, Verdict, event::EventLine,
};
use crate::{
    cache::{
        Layout, Project, Store,
        gc::{self, GcPolicy},
    },
    config::{Pipeline, load_pipeline},
    digest::Digest,
    graph::StageGraph,
    lockfile::Lockfile,
    stage::{StageConfig, StageContext, StageError, StageOutcome},
};

const NUM_SOURCES: usize = 4;

/// A stage as the model sees it.
#[derive(Clone, Debug)]
struct ModelStage {
    name: String,
    /// Decides the result.
    salt: u32,
    /// A parameter that the result does not depend on.
    noise: u32,
    seed: u64,
    parents: Vec<usize>,
    source: Option<usize>,
}

/// All that a stage's fingerprint may depend on.
type Key = (u32, u32, u64, Option<String>, Vec<String>);

/// What somebody does between two runs.
#[derive(Clone, Debug)]
enum Edit {
    Salt(usize, u32),
    Noise(usize, u32),
    Seed(usize, u64),
    Rename(usize),
    Connect(usize, usize),
    Source(usize, u32),
    TakeSource(usize, usize),
    /// Comments, order and spelling.
    Style,
    CollectGarbage,
}

/// How a stage ends that does not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Error,
    Panic,
    /// The user stops the run while the stage is at work.
    Stop,
}

#[derive(Clone, Debug)]
struct Round {
    edits: Vec<Edit>,
    jobs: usize,
    keep_going: bool,
    failure: Option<(usize, Ending)>,
    /// Number of a stage to select, to begin from, to force; each for its own.
    stage: Option<usize>,
    from: Option<usize>,
    force: Option<usize>,
    no_cache: bool,
}

fn edit() -> impl Strategy<Value = Edit> {
    let stage = 0_usize..50;
    prop_oneof![
        (stage.clone(), 0_u32..4).prop_map(|(stage, salt)| Edit::Salt(stage, salt)),
        (stage.clone(), 0_u32..3).prop_map(|(stage, noise)| Edit::Noise(stage, noise)),
        (stage.clone(), 0_u64..3).prop_map(|(stage, seed)| Edit::Seed(stage, seed)),
        stage.clone().prop_map(Edit::Rename),
        (stage.clone(), stage.clone()).prop_map(|(from, to)| Edit::Connect(from, to)),
        (0..NUM_SOURCES, 0_u32..3).prop_map(|(source, text)| Edit::Source(source, text)),
        (stage, 0..NUM_SOURCES).prop_map(|(stage, source)| Edit::TakeSource(stage, source)),
        Just(Edit::Style),
        Just(Edit::CollectGarbage),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let failure = prop_oneof![
        3 => Just(None),
        1 => (0_usize..50, prop_oneof![Just(Ending::Error), Just(Ending::Panic), Just(Ending::Stop)]).prop_map(Some),
    ];
    let sometimes = || prop_oneof![4 => Just(None), 1 => (0_usize..50).prop_map(Some)];
    (
        prop::collection::vec(edit(), 0..6),
        1_usize..4,
        any::<bool>(),
        failure,
        (sometimes(), sometimes(), sometimes()),
        prop_oneof![9 => Just(false), 1 => Just(true)],
    )
        .prop_map(|(edits, jobs, keep_going, failure, (stage, from, force), no_cache)| Round {
            edits,
            jobs,
            keep_going,
            failure,
            stage,
            from,
            force,
            no_cache,
        })
}

/// Some edges between up to 50 stages, most graphs small.
fn stages() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
    (prop_oneof![3 => 1_usize..12, 1 => 12_usize..=50], prop::collection::vec((0_usize..50, 0_usize..50), 0..60))
}

/// What is on disk, and what the model knows of it.
struct World {
    dir: tempfile::TempDir,
    project: Project,
    stages: Vec<ModelStage>,
    sources: Vec<String>,
    style: u32,
    renamed: u32,
    /// Every result that the cache must have.
    cache: BTreeMap<Key, String>,
    /// What the lockfile must name.
    locked: BTreeMap<String, String>,
}

impl World {
    fn new(num_stages: usize, edges: &[(usize, usize)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::find(dir.path(), None, None).unwrap();
        let stages = (0..num_stages).map(|idx| ModelStage {
            name: format!("s{idx}"),
            // Some stages are alike.
            salt: idx as u32 % 7,
            noise: 0,
            seed: 0,
            parents: vec![],
            source: idx.is_multiple_of(3).then_some(idx % NUM_SOURCES),
        });
        let mut world = Self {
            dir,
            project,
            stages: stages.collect(),
            sources: vec![String::new(); NUM_SOURCES],
            style: 0,
            renamed: 0,
            cache: BTreeMap::new(),
            locked: BTreeMap::new(),
        };
        for source in 0..NUM_SOURCES {
            world.write_source(source, "first");
        }
        for (from, to) in edges {
            world.connect(*from, *to);
        }
        world
    }

    fn write_source(&mut self, source: usize, text: &str) {
        self.sources[source] = format!("{source} {text}");
        fs::write(self.dir.path().join(format!("source{source}")), &self.sources[source]).unwrap();
    }

    /// An edge from the earlier to the later of two stages, so that there are no cycles.
    fn connect(&mut self, from: usize, to: usize) {
        let (from, to) = (from % self.stages.len(), to % self.stages.len());
        let parents = &mut self.stages[from.max(to)].parents;
        if from != to && !parents.contains(&from.min(to)) {
            parents.push(from.min(to));
        }
    }

    fn apply(&mut self, edit: &Edit) {
        let count = self.stages.len();
        match *edit {
            Edit::Salt(stage, salt) => self.stages[stage % count].salt = salt,
            Edit::Noise(stage, noise) => self.stages[stage % count].noise = noise,
            Edit::Seed(stage, seed) => self.stages[stage % count].seed = seed,
            Edit::Rename(stage) => {
                self.renamed += 1;
                self.stages[stage % count].name = format!("renamed{}", self.renamed);
            }
            Edit::Connect(from, to) => self.connect(from, to),
            Edit::Source(source, text) => self.write_source(source, &format!("version {text}")),
            Edit::TakeSource(stage, source) => self.stages[stage % count].source = Some(source),
            Edit::Style => self.style += 1,
            Edit::CollectGarbage => self.collect_garbage(),
        }
    }

    fn store(&self) -> Store {
        Store::open(Layout::new(&self.project.cache_dir)).unwrap()
    }

    /// Keeps what the lockfile names and nothing else.
    fn collect_garbage(&mut self) {
        let store = self.store();
        if !self.project.cache_dir.exists() {
            return;
        }
        let lockfile = self.lockfile();
        let roots: BTreeSet<Digest> = lockfile.stages.values().map(|stage| stage.artifact).collect();
        gc::collect(&store, &roots, GcPolicy::default(), false).unwrap();
        let kept: BTreeSet<&String> = self.locked.values().collect();
        self.cache.retain(|_, result| kept.contains(result));
    }

    fn lockfile(&self) -> Lockfile {
        Lockfile::load(&self.dir.path().join("p.lock")).unwrap()
    }

    /// The pipeline's text; `style` decides what means nothing.
    fn text(&self) -> String {
        let mut text = String::from("version: 1\nname: p\nstages:\n");
        let mut order: Vec<usize> = (0..self.stages.len()).collect();
        if self.style % 2 == 1 {
            text = format!("# {}\n{text}", self.style);
        }
        if self.style % 3 == 1 {
            order.reverse();
        }
        for idx in order {
            let stage = &self.stages[idx];
            let inputs: Vec<String> = stage
                .parents
                .iter()
                .enumerate()
                .map(|(number, parent)| format!("in{number}: {}", self.stages[*parent].name))
                .collect();
            let inputs = format!("inputs: {{ {} }}", inputs.join(", "));
            let sources = stage.source.map(|source| format!("source{source}")).unwrap_or_default();
            let with = format!(
                "run: [\"{}\"], outputs: [out], env: {{ NOISE: '{}' }}, sources: [{sources}]",
                stage.salt, stage.noise
            );
            let seed = if self.style % 5 == 2 { format!("{:#x}", stage.seed) } else { stage.seed.to_string() };
            let _ = if self.style % 4 == 3 {
                writeln!(
                    text,
                    "  {}:\n    with:\n      {{ {with} }} # {idx}\n    {inputs}\n    seed: {seed}\n    uses: command",
                    stage.name
                )
            } else {
                writeln!(text, "  {}: {{ uses: command, seed: {seed}, {inputs}, with: {{ {with} }} }}", stage.name)
            };
        }
        text
    }

    fn pipeline(&self) -> Pipeline {
        let path = self.dir.path().join("p.yaml");
        let text = self.text();
        match load_pipeline(&path, text.as_bytes(), &[], &|_| None) {
            Ok(loaded) => loaded.pipeline,
            Err(errors) => panic!("{}\n{text}", errors.render(false, 100)),
        }
    }

    fn index(&self, name: &str) -> usize {
        self.stages.iter().position(|stage| stage.name == name).unwrap()
    }

    /// What a stage's result depends on, given those of the stages before it.
    fn key(&self, stage: usize, results: &BTreeMap<usize, String>) -> Key {
        let stage = &self.stages[stage];
        let parents = stage.parents.iter().map(|parent| results[parent].clone()).collect();
        (stage.salt, stage.noise, stage.seed, stage.source.map(|source| self.sources[source].clone()), parents)
    }
}

/// What a stage leaves. `noise` is no part of it.
fn result_of(salt: &str, seed: u64, source: Option<&str>, parents: &[String]) -> String {
    let parents: Vec<String> = parents.iter().map(|text| Digest::of(text.as_bytes()).short()).collect();
    format!("{salt} {seed} {source:?} {parents:?}")
}

/// What the model expects of a run.
#[derive(Debug, Default)]
struct Expected {
    /// Executed stages, with the one that fails.
    executed: Vec<String>,
    /// What stages lead to that are done.
    done: BTreeMap<String, String>,
    fails: bool,
    stops: bool,
}

impl World {
    /// What a run of these stages must do, one after the other.
    fn expect(&mut self, order: &[String], forced: &BTreeSet<String>, round: &Round) -> Expected {
        let mut expected = Expected::default();
        let mut results: BTreeMap<usize, String> = BTreeMap::new();
        let failing = round.failure.map(|(stage, ending)| (stage % self.stages.len(), ending));
        for name in order {
            if expected.stops || (expected.fails && !round.keep_going) {
                break;
            }
            let idx = self.index(name);
            if self.stages[idx].parents.iter().any(|parent| !results.contains_key(parent)) {
                continue;
            }
            let key = self.key(idx, &results);
            let is_forced = round.no_cache || forced.contains(name);
            let cached = self.cache.get(&key).filter(|_| !is_forced).cloned();
            let result = if let Some(result) = cached {
                result
            } else {
                expected.executed.push(name.clone());
                if let Some((_, ending)) = failing.filter(|(failing, _)| *failing == idx) {
                    expected.stops = ending == Ending::Stop;
                    expected.fails = !expected.stops;
                    continue;
                }
                let result = result_of(&key.0.to_string(), key.2, key.3.as_deref(), &key.4);
                self.cache.insert(key, result.clone());
                result
            };
            results.insert(idx, result.clone());
            expected.done.insert(name.clone(), result);
        }
        expected
    }

    /// What the plan must say: hit, run or unknown.
    fn expect_plan(&self, order: &[String], forced: &BTreeSet<String>, no_cache: bool) -> Vec<&'static str> {
        let mut results: BTreeMap<usize, String> = BTreeMap::new();
        let mut words = vec![];
        for name in order {
            let idx = self.index(name);
            if self.stages[idx].parents.iter().any(|parent| !results.contains_key(parent)) {
                words.push("unknown");
                continue;
            }
            let hit = self.cache.get(&self.key(idx, &results)).filter(|_| !no_cache && !forced.contains(name));
            words.push(if hit.is_some() { "hit" } else { "run" });
            results.extend(hit.map(|result| (idx, result.clone())));
        }
        words
    }
}

/// Does what `result_of` says, and fails where it is told to.
struct Worker<'a> {
    failing: Option<(String, Ending)>,
    cancel: &'a Cancel,
    executed: Mutex<Vec<String>>,
}

impl StageExecutor for Worker<'_> {
    fn execute(&self, config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
        self.work(config, ctx)
    }
}

impl Worker<'_> {
    fn work(&self, config: &StageConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
        let StageConfig::Command(config) = config else { panic!("only commands here") };
        self.executed.lock().unwrap().push(ctx.stage.to_owned());
        ctx.reporter.progress(1, 2, "halves", "");
        let source = config.sources.first().map(|path| fs::read_to_string(ctx.project_root.join(path)).unwrap());
        let parents: Vec<String> =
            ctx.inputs.values().flatten().map(|input| fs::read_to_string(input.dir.join("out")).unwrap()).collect();
        fs::write(ctx.out_dir.join("out"), "half").unwrap();
        match self.failing.as_ref().filter(|(stage, _)| stage == ctx.stage) {
            Some((_, Ending::Error)) => return Err(StageError::Data { message: "no luck".into(), help: None }),
            Some((_, Ending::Panic)) => panic!("meant"),
            Some((_, Ending::Stop)) => {
                self.cancel.set(2);
                return Err(StageError::Cancelled);
            }
            None => {}
        }
        let result = result_of(&config.run[0], ctx.seed, source.as_deref(), &parents);
        fs::write(ctx.out_dir.join("out"), result).unwrap();
        Ok(StageOutcome { metrics: [("x/y".to_owned(), 0.5)].into() })
    }
}

/// Keeps every event as the line that `--json` would write.
#[derive(Default)]
struct Recorder(Mutex<Vec<Value>>);

impl RunObserver for Recorder {
    fn on_event(&self, event: &RunEvent) {
        self.0.lock().unwrap().push(serde_json::to_value(EventLine::now(event)).unwrap());
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Hit { .. } => "hit",
        Verdict::Run { .. } => "run",
        Verdict::Unknown { .. } => "unknown",
    }
}

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
    let options = RunOptions { selection, jobs, no_cache: round.no_cache, keep_going: round.keep_going };
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

/// Stages whose own parameters are the same; whether their inputs are, too, the cache has decided.
fn alike(world: &World, one: &str, other: &str) -> bool {
    let own = |name: &str| {
        let stage = &world.stages[world.index(name)];
        (stage.salt, stage.noise, stage.seed, stage.source, stage.parents.len())
    };
    own(one) == own(other)
}

fn check_selection(pipeline: &Pipeline, selection: &Selection, order: &[String]) -> Result<(), TestCaseError> {
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
fn check_executed(executed: &[String], expected: &Expected, jobs: usize) -> Result<(), TestCaseError> {
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
fn check_left(world: &mut World, expected: &Expected, pipeline: &Pipeline) -> Result<(), TestCaseError> {
    world.locked.extend(expected.done.clone());
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
fn check_events(
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
