//! The model: stages by what their results depend on, and every result so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use super::scenario::{Edit, Ending, Round};
use crate::{
    cache::{
        Layout, Project, Store,
        gc::{self, GcPolicy},
    },
    config::{Pipeline, load_pipeline},
    digest::Digest,
    lockfile::Lockfile,
};

pub(super) const NUM_SOURCES: usize = 4;

/// A stage as the model sees it.
#[derive(Clone, Debug)]
pub(super) struct ModelStage {
    pub(super) name: String,
    /// Decides the result.
    pub(super) salt: u32,
    /// A parameter that the result does not depend on.
    pub(super) noise: u32,
    pub(super) seed: u64,
    pub(super) parents: Vec<usize>,
    pub(super) source: Option<usize>,
}

/// All that a stage's fingerprint may depend on.
pub(super) type Key = (u32, u32, u64, Option<String>, Vec<String>);

/// What is on disk, and what the model knows of it.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) project: Project,
    pub(super) stages: Vec<ModelStage>,
    pub(super) sources: Vec<String>,
    pub(super) style: u32,
    pub(super) renamed: u32,
    /// Every result that the cache must have.
    pub(super) cache: BTreeMap<Key, String>,
    /// What the lockfile must name.
    pub(super) locked: BTreeMap<String, String>,
}

impl World {
    pub(super) fn new(num_stages: usize, edges: &[(usize, usize)]) -> Self {
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

    pub(super) fn write_source(&mut self, source: usize, text: &str) {
        self.sources[source] = format!("{source} {text}");
        fs::write(self.dir.path().join(format!("source{source}")), &self.sources[source]).unwrap();
    }

    /// An edge from the earlier to the later of two stages, so that there are no cycles.
    pub(super) fn connect(&mut self, from: usize, to: usize) {
        let (from, to) = (from % self.stages.len(), to % self.stages.len());
        let parents = &mut self.stages[from.max(to)].parents;
        if from != to && !parents.contains(&from.min(to)) {
            parents.push(from.min(to));
        }
    }

    pub(super) fn apply(&mut self, edit: &Edit) {
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

    pub(super) fn store(&self) -> Store {
        Store::open(Layout::new(&self.project.cache_dir)).unwrap()
    }

    /// Keeps what the lockfile names and nothing else.
    pub(super) fn collect_garbage(&mut self) {
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

    pub(super) fn lockfile(&self) -> Lockfile {
        Lockfile::load(&self.dir.path().join("p.lock")).unwrap()
    }

    /// The pipeline's text; `style` decides what means nothing.
    pub(super) fn text(&self) -> String {
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

    pub(super) fn pipeline(&self) -> Pipeline {
        let path = self.dir.path().join("p.yaml");
        let text = self.text();
        match load_pipeline(&path, text.as_bytes(), &[], &|_| None) {
            Ok(loaded) => loaded.pipeline,
            Err(errors) => panic!("{}\n{text}", errors.render(false, 100)),
        }
    }

    pub(super) fn index(&self, name: &str) -> usize {
        self.stages.iter().position(|stage| stage.name == name).unwrap()
    }

    /// What a stage's result depends on, given those of the stages before it.
    pub(super) fn key(&self, stage: usize, results: &BTreeMap<usize, String>) -> Key {
        let stage = &self.stages[stage];
        let parents = stage.parents.iter().map(|parent| results[parent].clone()).collect();
        (stage.salt, stage.noise, stage.seed, stage.source.map(|source| self.sources[source].clone()), parents)
    }
}

/// What a stage leaves. `noise` is no part of it.
pub(super) fn result_of(salt: &str, seed: u64, source: Option<&str>, parents: &[String]) -> String {
    let parents: Vec<String> = parents.iter().map(|text| Digest::of(text.as_bytes()).short()).collect();
    format!("{salt} {seed} {source:?} {parents:?}")
}

/// What the model expects of a run.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Executed stages, with the one that fails.
    pub(super) executed: Vec<String>,
    /// What stages lead to that are done.
    pub(super) done: BTreeMap<String, String>,
    pub(super) fails: bool,
    pub(super) stops: bool,
}

impl World {
    /// What a run of these stages must do, one after the other.
    pub(super) fn expect(&mut self, order: &[String], forced: &BTreeSet<String>, round: &Round) -> Expected {
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
    pub(super) fn expect_plan(&self, order: &[String], forced: &BTreeSet<String>, no_cache: bool) -> Vec<&'static str> {
        let mut results: BTreeMap<usize, String> = BTreeMap::new();
        let mut words = vec![];
        for name in order {
            let idx = self.index(name);
            if self.stages[idx].parents.iter().any(|parent| !results.contains_key(parent)) {
                words.push(if no_cache || forced.contains(name) { "run" } else { "unknown" });
                continue;
            }
            let hit = self.cache.get(&self.key(idx, &results)).filter(|_| !no_cache && !forced.contains(name));
            words.push(if hit.is_some() { "hit" } else { "run" });
            results.extend(hit.map(|result| (idx, result.clone())));
        }
        words
    }
}
