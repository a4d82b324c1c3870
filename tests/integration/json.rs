//! `--json`: what programs read.

use serde_json::Value;

use crate::fixture::Project;

fn events(project: &Project, args: &[&str], code: i32) -> Vec<Value> {
    let called = project.call(args).code(code);
    let schema = project.call(&["schema", "events"]).ok();
    let schema = serde_json::from_str(&schema.stdout).unwrap();
    let lines: Vec<Value> = called.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(jsonschema::is_valid(&schema, line), "{line}");
    }
    lines
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_run_is_a_sequence_of_events() {
    let project = Project::with_two_stages();
    let first = events(&project, &["run", "--json"], 0);
    assert_eq!(
        kinds(&first),
        [
            "run_started",
            "stage_planned",
            "stage_planned",
            "stage_started",
            "stage_finished",
            "stage_planned",
            "stage_started",
            "stage_finished",
            "run_finished"
        ]
    );
    assert_eq!(first[7]["metrics"]["count/words"], 3.0);
    let second = events(&project, &["run", "--json"], 0);
    assert_eq!(second.last().unwrap()["restored"], 2);
}

#[test]
fn every_event_of_real_stages_fits_the_schema_and_names_what_is_there() {
    let project = Project::new().write("pipelines/sweep.yaml", include_str!("../../pipelines/sweep.yaml"));
    let args = [
        "run",
        "--json",
        "--set=stages.train.with.source.synthetic_scenes.images_per_class=4",
        "--set=stages.test.with.source.synthetic_scenes.images_per_class=2",
        "--set=stages.pretrain.matrix.lr=[0.05]",
        "--set=stages.pretrain.with.batch_size=8",
        "--set=stages.knn.with.knn.k=3",
    ];
    let first = events(&project, &args, 0);
    for kind in ["stage_progress", "stage_metric", "stage_message", "stage_finished", "run_finished"] {
        assert!(kinds(&first).contains(&kind), "no {kind}");
    }
    let of = |events: &[Value], kind: &str| events.iter().filter(|event| event["event"] == kind).cloned().collect();
    let finished: Vec<Value> = of(&first, "stage_finished");
    assert_eq!(finished.len(), 2 + 1 + 2 + 2 + 2 + 1);
    let mut num_logs = 0;
    for event in &finished {
        assert_eq!(event["artifact"].as_str().unwrap().len(), 64, "{event}");
        assert!(project.path(event["path"].as_str().unwrap()).join("manifest.json").exists(), "{event}");
        for log in event["logs"].as_array().unwrap() {
            num_logs += 1;
            assert!(project.path(log.as_str().unwrap()).exists(), "{log}");
        }
    }
    assert!(num_logs >= 2, "pretraining leaves logs");
    let started: Vec<Value> = of(&first, "stage_started");
    assert!(started.iter().all(|event| event["log_dir"].as_str().unwrap().starts_with(".simsiam-pipe/tmp/")));
    let metrics: Vec<Value> = of(&first, "stage_metric");
    assert!(metrics.iter().any(|event| event["stage"] == "pretrain@lr=0.05,seed=1" && event["value"].is_number()));

    let second = events(&project, &args, 0);
    let restored: Vec<Value> = of(&second, "stage_restored");
    assert_eq!(restored.len(), finished.len());
    assert!(restored.iter().zip(&finished).all(|(now, then)| now["logs"] == then["logs"]));
}

#[test]
fn failures_and_what_they_take_along_are_events() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "echo words >>", "exit 3; echo words >>");
    let lines = events(&project, &["run", "--json", "--keep-going"], 1);
    let ends = ["stage_failed", "stage_skipped", "run_finished", "error"];
    assert!(kinds(&lines).ends_with(&ends), "{:?}", kinds(&lines));
    let failed = lines.iter().find(|line| line["event"] == "run_finished").unwrap();
    assert_eq!((failed["outcome"].as_str(), failed["executed"].as_u64()), (Some("failed"), Some(0)));
}

#[test]
fn the_plan_is_what_the_run_does() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.put("data/words.txt", "other\n");
    let plan: Value = serde_json::from_str(&project.call(&["plan", "--json"]).ok().stdout).unwrap();
    let verdicts: Vec<_> =
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["run", "unknown"]);
    let dry = events(&project, &["run", "--json", "--dry-run"], 0);
    assert_eq!(kinds(&dry), ["run_started", "stage_planned", "stage_planned"]);
    project.executed();
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}

#[test]
fn errors_are_events_with_places() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "outputs: [words.txt]", "output: [words.txt]");
    let lines = events(&project, &["run", "--json"], 3);
    assert_eq!((lines[0]["event"].as_str(), lines[0]["exit_code"].as_u64()), (Some("error"), Some(3)));
    assert_eq!(lines[0]["mistakes"][1]["line"], 8, "{}", lines[0]);
    assert_eq!(events(&project, &["run", "nowhere.yaml", "--json"], 2)[0]["exit_code"], 2);
}

#[test]
fn every_listing_is_one_document() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    for args in [
        &["status"][..],
        &["metrics"],
        &["log"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["cache", "gc", "--dry-run"],
        &["explain", "count"],
        &["doctor"],
        &["schema", "lockfile"],
    ] {
        let args = [args, &["--json"]].concat();
        let called = project.call(&args).ok();
        assert!(serde_json::from_str::<Value>(&called.stdout).is_ok(), "{args:?}: {}", called.stdout);
    }
}
