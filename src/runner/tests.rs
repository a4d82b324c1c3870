//! Runs of quick stages: what executes, what is stored, what is left after a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Cancel, Reason, RunOptions, RunSummary, Runner, RunnerError, Selection, StageExecutor, StageJob, Verdict,
    event::SilentObserver,
};
use crate::{
    cache::{Layout, Project, Store, history::Action},
    compute::{Compute, DeviceChoice, Precision},
    config::{Pipeline, Stage},
    fs::files,
    lockfile::Lockfile,
    stage::{CommandConfig, StageConfig, StageContext, StageError, StageOutcome, StageReporter},
};

/// A pipeline of `command` stages for the quick executor: `run` holds what the stage writes.
pub(crate) fn pipeline(stages: &[(&str, &[&str])]) -> Pipeline {
    let stages = stages.iter().map(|(name, parents)| {
        let config = CommandConfig {
            run: vec![(*name).to_owned()],
            outputs: vec!["out".into()],
            sources: vec![],
            env: BTreeMap::new(),
        };
        Stage {
            name: (*name).to_owned(),
            config: StageConfig::Command(config),
            inputs: parents.iter().map(|parent| ((*parent).to_owned(), vec![(*parent).to_owned()])).collect(),
            seed: 0,
            places: BTreeMap::new(),
        }
    });
    Pipeline {
        name: "p".into(),
        seed: 0,
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        path: "p.yaml".into(),
        stages: stages.collect(),
    }
}

fn command<'a>(pipeline: &'a mut Pipeline, name: &str) -> &'a mut CommandConfig {
    match pipeline.stages.iter_mut().find(|stage| stage.name == name).map(|stage| &mut stage.config) {
        Some(StageConfig::Command(config)) => config,
        _ => panic!("no command `{name}`"),
    }
}

type Hook<'a> = &'a (dyn Fn(&StageContext<'_>) -> Result<(), StageError> + Sync);

/// Writes `run[0]` and counts. A hook can fail or meddle.
struct Quick<'a> {
    count: AtomicUsize,
    hook: Hook<'a>,
}

impl<'a> Quick<'a> {
    fn new(hook: Hook<'a>) -> Self {
        Self { count: AtomicUsize::new(0), hook }
    }

    fn taken(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
    }
}

impl StageExecutor for Quick<'_> {
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let ctx = job.context(&Compute::Cpu, reporter);
        (self.hook)(&ctx)?;
        let StageConfig::Command(config) = &job.config else { panic!("only commands here") };
        fs::write(ctx.out_dir.join("out"), &config.run[0]).unwrap();
        Ok(StageOutcome { metrics: [("x/y".to_owned(), 0.5)].into() })
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    project: Project,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::find(dir.path(), None, None).unwrap();
        Self { _dir: dir, project }
    }

    fn pipeline(&self, stages: &[(&str, &[&str])]) -> Pipeline {
        Pipeline { path: self.project.root.join("p.yaml"), ..pipeline(stages) }
    }

    fn run(&self, pipeline: &Pipeline, executor: &Quick<'_>, options: &RunOptions) -> Result<RunSummary, RunnerError> {
        let store = Store::open(Layout::new(&self.project.cache_dir)).unwrap();
        let runner = Runner {
            project: &self.project,
            store: &store,
            executor,
            observer: &SilentObserver,
            cancel: &Cancel::default(),
        };
        runner.run(pipeline, options)
    }

    fn plan(&self, pipeline: &Pipeline) -> Vec<Verdict> {
        let store = Store::open(Layout::new(&self.project.cache_dir)).unwrap();
        let runner = Runner {
            project: &self.project,
            store: &store,
            executor: &Quick::new(&|_| Ok(())),
            observer: &SilentObserver,
            cancel: &Cancel::default(),
        };
        let plan = runner.plan(pipeline, &RunOptions::default()).unwrap();
        plan.stages.into_iter().map(|stage| stage.verdict).collect()
    }

    fn count(&self, folder: &str) -> usize {
        files::list(&self.project.cache_dir.join(folder)).unwrap().len()
    }
}

const CHAIN: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"])];

#[test]
fn a_second_run_executes_nothing() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(CHAIN);
    let quick = Quick::new(&|_| Ok(()));
    assert!(matches!(
        fixture.plan(&pipeline)[..],
        [Verdict::Run { reason: Reason::NeverRan }, Verdict::Unknown { .. }, Verdict::Unknown { .. }]
    ));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 3);
    assert!(fixture.plan(&pipeline).iter().all(|verdict| matches!(verdict, Verdict::Hit { .. })));
    let summary = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 0);
    assert!(summary.stages.iter().all(|stage| stage.action == Action::Restored && stage.metrics["x/y"] == 0.5));
    let link = fixture.project.run_link("p", "c");
    assert_eq!(fs::read_to_string(link.join("out")).unwrap(), "c");
    assert!(fs::read_link(link).unwrap().is_relative());
    assert_eq!((fixture.count("tmp"), fixture.count("work"), fixture.count("pins")), (0, 0, 0));
}

#[test]
fn a_change_runs_what_depends_on_its_result_and_names_the_field() {
    let fixture = Fixture::new();
    let mut pipeline = fixture.pipeline(CHAIN);
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    command(&mut pipeline, "b").run[0] = "changed".into();
    let plan = fixture.plan(&pipeline);
    let Verdict::Run { reason: Reason::Changed { changes } } = &plan[1] else { panic!("{plan:?}") };
    assert_eq!(changes[0].key, "with.run[0]");
    assert_eq!((changes[0].old.as_deref(), changes[0].new.as_deref()), (Some("\"b\""), Some("\"changed\"")));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 2);
}

#[test]
fn an_unchanged_result_ends_the_wave() {
    let fixture = Fixture::new();
    let mut pipeline = fixture.pipeline(CHAIN);
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    command(&mut pipeline, "a").env.insert("NO_EFFECT".into(), "1".into());
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 1);
}

#[test]
fn going_back_to_an_older_pipeline_is_a_hit() {
    let fixture = Fixture::new();
    let old = fixture.pipeline(CHAIN);
    let mut new = old.clone();
    command(&mut new, "a").run[0] = "changed".into();
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&old, &quick, &RunOptions::default()).unwrap();
    fixture.run(&new, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    fixture.run(&old, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 0);
}

#[test]
fn a_renamed_stage_is_a_hit() {
    let fixture = Fixture::new();
    let mut pipeline = fixture.pipeline(&[("a", &[])]);
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    pipeline.stages[0].name = "other".into();
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 0);
    let lockfile = Lockfile::load(&fixture.project.root.join("p.lock")).unwrap();
    assert_eq!(lockfile.stages.keys().collect::<Vec<_>>(), ["other"]);
}

#[test]
fn force_and_no_cache_execute_again() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(CHAIN);
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    let selection = Selection { force: vec!["b".into()], ..Selection::default() };
    fixture.run(&pipeline, &quick, &RunOptions { selection, ..RunOptions::default() }).unwrap();
    assert_eq!(quick.taken(), 1);
    fixture.run(&pipeline, &quick, &RunOptions { no_cache: true, ..RunOptions::default() }).unwrap();
    assert_eq!(quick.taken(), 3);
}

#[test]
fn a_failure_keeps_what_is_done_and_shows_nothing_half() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"])]);
    let fails = |ctx: &StageContext<'_>| {
        fs::write(ctx.out_dir.join("half"), "x").unwrap();
        let message = "no luck".to_owned();
        if ctx.stage == "b" { Err(StageError::Data { message, help: None }) } else { Ok(()) }
    };
    let quick = Quick::new(&fails);
    let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "stage `b` failed: no luck");
    assert_eq!((quick.taken(), fixture.count("entries"), fixture.count("tmp")), (2, 1, 0));
    let options = RunOptions { keep_going: true, ..RunOptions::default() };
    fixture.run(&pipeline, &quick, &options).unwrap_err();
    assert_eq!((quick.taken(), fixture.count("entries")), (2, 2));
}

#[test]
fn a_panic_is_a_failure_of_its_stage() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(&[("a", &[])]);
    let quick = Quick::new(&|_| panic!("index out of bounds"));
    let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "stage `a` failed: the stage panicked: index out of bounds");
}

#[test]
fn two_runs_at_once_execute_each_fingerprint_once() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(CHAIN);
    let slow = |_: &StageContext<'_>| {
        thread::sleep(Duration::from_millis(100));
        Ok(())
    };
    let quick = Quick::new(&slow);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap());
        }
    });
    assert_eq!(quick.taken(), 3);
}

#[test]
fn equal_stages_side_by_side_execute_once() {
    let fixture = Fixture::new();
    let mut pipeline = fixture.pipeline(&[("a", &[]), ("b", &[])]);
    command(&mut pipeline, "b").run[0] = "a".into();
    let slow = |_: &StageContext<'_>| {
        thread::sleep(Duration::from_millis(100));
        Ok(())
    };
    let quick = Quick::new(&slow);
    fixture.run(&pipeline, &quick, &RunOptions { jobs: 2, ..RunOptions::default() }).unwrap();
    assert_eq!(quick.taken(), 1);
}

#[test]
fn independent_stages_run_side_by_side() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(&[("a", &[]), ("b", &[])]);
    // Each waits for the other: one after the other they would wait for ever.
    let barrier = std::sync::Barrier::new(2);
    let meet = |_: &StageContext<'_>| {
        barrier.wait();
        Ok(())
    };
    fixture.run(&pipeline, &Quick::new(&meet), &RunOptions { jobs: 2, ..RunOptions::default() }).unwrap();
}

/// Remembers how many threads each job may use.
#[derive(Default)]
struct ThreadsOfJobs(Mutex<Vec<usize>>);

impl StageExecutor for ThreadsOfJobs {
    fn execute(&self, job: &StageJob, _reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        self.0.lock().unwrap().push(job.threads);
        fs::write(job.out_dir.join("out"), &job.stage).unwrap();
        Ok(StageOutcome::default())
    }
}

#[test]
fn jobs_side_by_side_share_the_threads() {
    let threads_with = |jobs: usize| {
        let fixture = Fixture::new();
        let pipeline = fixture.pipeline(&[("a", &[]), ("b", &[])]);
        let store = Store::open(Layout::new(&fixture.project.cache_dir)).unwrap();
        let executor = ThreadsOfJobs::default();
        let runner = Runner {
            project: &fixture.project,
            store: &store,
            executor: &executor,
            observer: &SilentObserver,
            cancel: &Cancel::default(),
        };
        runner.run(&pipeline, &RunOptions { jobs, ..RunOptions::default() }).unwrap();
        executor.0.into_inner().unwrap()
    };
    let all = rayon::current_num_threads();
    for jobs in [1, 2, 100] {
        assert_eq!(threads_with(jobs), [(all / jobs).max(1); 2]);
    }
}

#[test]
fn a_missing_source_stops_before_anything_runs() {
    let fixture = Fixture::new();
    let mut pipeline = fixture.pipeline(CHAIN);
    command(&mut pipeline, "c").sources = vec!["nowhere".into()];
    let quick = Quick::new(&|_| Ok(()));
    let error = fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "`stages.c.with.sources[0]`: `nowhere` does not exist");
    assert_eq!(quick.taken(), 0);
}

#[test]
fn a_source_edited_during_the_run_fails_the_stage() {
    let fixture = Fixture::new();
    let source = fixture.project.root.join("source");
    fs::write(&source, "before").unwrap();
    let mut pipeline = fixture.pipeline(&[("a", &[])]);
    command(&mut pipeline, "a").sources = vec!["source".into()];
    let meddle = |_: &StageContext<'_>| {
        fs::write(&source, "after!").unwrap();
        Ok(())
    };
    let error = fixture.run(&pipeline, &Quick::new(&meddle), &RunOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`source` (`with.sources[0]`) was changed while the stage ran"), "{error}");
    assert_eq!(fixture.count("entries"), 0);
    fixture.run(&pipeline, &Quick::new(&|_| Ok(())), &RunOptions::default()).unwrap();
}

#[test]
fn an_edited_output_is_kept_and_the_stage_runs_again() {
    let fixture = Fixture::new();
    let pipeline = fixture.pipeline(&[("a", &[])]);
    let quick = Quick::new(&|_| Ok(()));
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    quick.taken();
    thread::sleep(Duration::from_millis(20));
    let out = fixture.project.run_link("p", "a").join("out");
    files::set_writable(&out, true).unwrap();
    fs::write(&out, "A").unwrap();
    fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
    assert_eq!(quick.taken(), 1);
    assert_eq!(fs::read_to_string(&out).unwrap(), "a");
    let names = files::list(&fixture.project.root.join("runs/p")).unwrap();
    let aside = names.iter().find(|name| name.starts_with("a.edited-")).unwrap();
    assert_eq!(fs::read_to_string(fixture.project.root.join("runs/p").join(aside).join("out")).unwrap(), "A");
}

#[test]
fn a_moved_project_is_a_hit() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.project.root.join("old")).unwrap();
    let at = |name: &str| {
        let root = fixture.project.root.join(name);
        Project { cache_dir: root.join(".simsiam-pipe"), root }
    };
    let quick = Quick::new(&|_| Ok(()));
    let run = |project: Project| {
        let fixture = Fixture { _dir: tempfile::tempdir().unwrap(), project };
        let pipeline = fixture.pipeline(CHAIN);
        fixture.run(&pipeline, &quick, &RunOptions::default()).unwrap();
        fs::read_to_string(fixture.project.run_link("p", "c").join("out")).unwrap()
    };
    run(at("old"));
    quick.taken();
    fs::rename(at("old").root, at("new").root).unwrap();
    assert_eq!(run(at("new")), "c");
    assert_eq!(quick.taken(), 0);
}

/// One change to a pipeline: stage, and what to do to it.
fn mutate(pipeline: &mut Pipeline, (stage, what): (usize, u8)) {
    let name = pipeline.stages[stage % pipeline.stages.len()].name.clone();
    let config = command(pipeline, &name);
    match what {
        // Another content.
        0 => config.run[0].push('x'),
        // The same content by other parameters.
        1 => {
            config.env.insert(format!("V{}", config.env.len()), "1".into());
        }
        _ => {}
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn the_plan_is_what_the_run_does(
        edges in proptest::collection::vec((0_usize..6, 0_usize..6), 0..10),
        rounds in proptest::collection::vec(proptest::collection::vec((0_usize..6, 0_u8..3), 0..3), 1..4),
        jobs in 1_usize..4,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let parents: Vec<Vec<&str>> = (0..6)
            .map(|to| edges.iter().filter(|(from, target)| *target == to && *from < to).map(|(from, _)| names[*from]).collect())
            .collect();
        let stages: Vec<(&str, &[&str])> = names.into_iter().zip(parents.iter().map(Vec::as_slice)).collect();
        let fixture = Fixture::new();
        let mut pipeline = fixture.pipeline(&stages);
        let executed = Mutex::new(BTreeSet::new());
        let note = |ctx: &StageContext<'_>| {
            executed.lock().unwrap().insert(ctx.stage.to_owned());
            Ok(())
        };
        let quick = Quick::new(&note);
        for round in rounds {
            for change in round {
                mutate(&mut pipeline, change);
            }
            let verdicts = fixture.plan(&pipeline);
            let order: Vec<String> =
                Selection::default().apply(&pipeline).unwrap().stages.iter().map(|stage| stage.name.clone()).collect();
            fixture.run(&pipeline, &quick, &RunOptions { jobs, ..RunOptions::default() }).unwrap();
            let executed = std::mem::take(&mut *executed.lock().unwrap());
            for (name, verdict) in order.iter().zip(verdicts) {
                match verdict {
                    Verdict::Hit { .. } => proptest::prop_assert!(!executed.contains(name)),
                    Verdict::Run { .. } => proptest::prop_assert!(executed.contains(name)),
                    Verdict::Unknown { waits_for, .. } => {
                        // It runs for the sake of something before it, or for its own.
                        proptest::prop_assert!(!waits_for.is_empty());
                    }
                }
            }
            let again = fixture.plan(&pipeline);
            proptest::prop_assert!(again.iter().all(Verdict::is_hit));
        }
    }
}
