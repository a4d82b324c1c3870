//! The commands around `run`.

use std::process::Command;

use crate::fixture::Project;

#[test]
fn explain_names_the_field_with_both_values_and_the_line() {
    let project = Project::with_two_stages();
    project.call(&["explain", "count"]).ok().prints("must run after `words`: it has never run");
    project.call(&["run"]).ok();
    project.call(&["explain", "count"]).ok().prints("is up to date").prints("in the run of <moment>");
    project.put("data/words.txt", "four\n");
    project.call(&["explain", "count"]).ok().prints("may run: not if `words` leads to the same content as before");
    project.call(&["explain", "words"]).ok().prints("after it     `count`").prints("estimate     <time>");
    project.put("data/words.txt", "one two three\n");
    project.edit("pipelines/words.yaml", "wc -w", "wc -c");
    let called = project.call(&["explain", "pipelines/words.yaml", "count"]).ok();
    insta::assert_snapshot!("explain_changed", called.stdout);
    project.call(&["explain", "nothing"]).code(2);
}

#[test]
fn status_tells_current_from_stale() {
    let project = Project::with_two_stages();
    project.call(&["status"]).ok().prints("new");
    project.call(&["run"]).ok();
    project.edit("pipelines/words.yaml", "wc -w", "wc -c");
    let called = project.call(&["status"]).ok();
    insta::assert_snapshot!("status", called.stdout);
}

#[test]
fn metrics_compare_with_a_git_revision_and_with_a_file() {
    let project = Project::with_two_stages();
    let git = |args: &[&str]| {
        let status = Command::new("git")
            .current_dir(project.root())
            .args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"])
            .args(args)
            .output()
            .unwrap()
            .status;
        assert!(status.success(), "git {args:?}");
    };
    project.call(&["run"]).ok();
    git(&["init", "-q"]);
    git(&["add", "pipelines"]);
    git(&["commit", "-qm", "first"]);
    std::fs::copy(project.path("pipelines/words.lock"), project.path("old.lock")).unwrap();
    project.put("data/words.txt", "one two three four five\n");
    project.call(&["run"]).ok();
    for reference in ["HEAD", "old.lock"] {
        let called = project.call(&["metrics", "--compare", reference]).ok();
        assert_eq!(
            called.stdout,
            "stage  metric       before  now  change\ncount  count/words  3       5    +2.0000\n"
        );
    }
    project.call(&["metrics", "--compare", "no-such-branch"]).code(2).says("no-such-branch");
    project.call(&["metrics", "--compare", "--output=x"]).code(2);
}

#[test]
fn log_shows_runs_newest_first() {
    let project = Project::with_two_stages();
    project.call(&["log"]).ok().says("no runs yet");
    project.call(&["run"]).ok();
    project.edit("pipelines/words.yaml", "n=$(wc -w", "exit 3; n=$(wc -w");
    project.call(&["run"]).code(1);
    let called = project.call(&["log"]).ok();
    let lines: Vec<_> = called.stdout.lines().collect();
    assert!(lines.len() == 3 && lines[1].contains("failed: count") && lines[2].contains("done"), "{}", called.stdout);
    assert_eq!(project.call(&["log", "other"]).ok().stdout, "");
}

#[test]
fn graphs_come_in_three_formats() {
    let project = Project::with_two_stages();
    project.call(&["graph"]).ok().prints("\"words\" -> \"count\"");
    project.call(&["graph", "--format", "mermaid", "--status"]).ok().prints("flowchart");
    project.call(&["graph", "--format", "svg", "-o", "graph.svg"]).ok();
    assert!(project.read("graph.svg").contains("<svg"));
}

#[test]
fn init_writes_a_pipeline_that_loads_and_never_overwrites() {
    let project = Project::new()
        .write("data/photos/train/sea/1.jpg", "x")
        .write("data/photos/train/street/2.jpg", "x")
        .write("data/photos/test/sea/3.jpg", "x");
    let called = project.call(&["init", "data/photos", "-o", "pipelines/photos.yaml"]).ok();
    called.says("training: 2 images, 2 classes").says("next: simsiam-pipe run pipelines/photos.yaml");
    project.call(&["plan"]).ok().prints("photos: 2 to run, 6 depend on that, 0 cached");
    project.call(&["init", "data/photos", "-o", "pipelines/photos.yaml"]).code(2).says("exists already");
    project.call(&["init", "data/photos/train/sea", "-o", "flat.yaml"]).ok().says("test: none found");
    project.call(&["plan", "flat.yaml"]).ok().prints("flat: 1 to run, 3 depend on that, 0 cached");
    project.call(&["init", "nowhere"]).code(2);
}

#[test]
fn doctor_and_completions_work_anywhere() {
    let project = Project::new();
    project.call(&["doctor"]).ok().prints("will be made by the first run");
    assert!(!project.path(".simsiam-pipe").exists());
    for shell in ["bash", "zsh", "fish"] {
        project.call(&["completions", shell]).ok().prints("simsiam-pipe");
    }
    project.call(&["--help"]).ok().prints("Exit codes:").prints("130");
    project.call(&["--version"]).ok().prints(env!("CARGO_PKG_VERSION"));
}

#[test]
fn presets_are_printed_in_full_and_load_as_a_stage() {
    let project = Project::new();
    for (preset, size) in [("simsiam_imagenet", "224"), ("simsiam_cifar", "32"), ("simsiam_tf", "64")] {
        let shown = project.call(&["init", "--show-preset", preset]).ok().stdout;
        assert!(shown.contains(&format!("image_size: {size}")), "{shown}");
        let stage = shown.replace('\n', "\n  ");
        project.put("full.yaml", &format!("version: 1\nname: p\nstages:\n  {}\n", stage.trim_end()));
        project.put(
            "short.yaml",
            &format!("version: 1\nname: p\nstages: {{ v: {{ uses: augment, with: {{ preset: {preset} }} }} }}\n"),
        );
        project.call(&["run", "short.yaml"]).ok();
        // The same fingerprint: nothing is left to do.
        project.call(&["run", "full.yaml"]).ok().says("restored");
    }
    project.call(&["init", "--show-preset", "mine"]).code(2).says("simsiam_cifar");
    project.call(&["init"]).code(2);
}

#[test]
fn three_views_with_operations_of_their_own_are_trained_on() {
    let text = "\
version: 1
stages:
  train:
    uses: ingest
    with: { source: { synthetic_scenes: { images_per_class: 2, image_size: 16, split: train } } }
  views:
    uses: augment
    inputs: { dataset: train }
    with:
      image_size: 16
      views: 3
      view_ops:
        - [{ random_resized_crop: {} }, { gaussian_blur: { p: 1.0, kernel_size: 3 } }]
        - [{ random_resized_crop: { interpolation: bicubic } }, { solarize: { p: 0.5 } }]
        - [{ pad_crop: { padding: 4, padding_mode: reflect } }, { random_erasing: {} }]
  pretrain:
    uses: pretrain
    inputs: { dataset: train, augmentation: views }
    with:
      backbone: { darknet_tiny: {} }
      projector: { hidden_dim: 16, output_dim: 16, num_layers: 2 }
      predictor: { hidden_dim: 8 }
      epochs: 1
      batch_size: 7
  report:
    uses: report
    inputs: { pretraining: pretrain, augmentation: views }
";
    let project = Project::new().write("pipeline.yaml", text);
    project.call(&["run", "--threads", "1"]).ok();
    let summary = project.read("runs/pipeline/report/summary.json");
    assert!(summary.contains("view 3: "), "{summary}");
    project.call(&["audit", "--threads", "2"]).ok();
}

#[test]
fn a_plan_says_what_else_changed_in_a_stage_that_waits_and_how_long_several_at_a_time_take() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.put("data/words.txt", "four\n");
    project.edit("pipelines/words.yaml", "n=$(wc -w", "n=$(wc -c");
    project
        .call(&["plan", "--jobs", "2"])
        .ok()
        .prints("1 change since the last run, after `words`")
        .prints("`with.run[2]`")
        .prints("with 2 at a time)");
    project.call(&["explain", "count"]).ok().prints("must run: 1 change since the last run, after `words`");
    let plan = project.call(&["plan", "--jobs", "2", "--json"]).ok();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!((&plan["cost"]["jobs"], plan["cost"]["seconds"].is_number()), (&serde_json::json!(2), true));
    assert_eq!(plan["cost"]["elapsed_seconds"], plan["cost"]["seconds"], "one waits for the other");

    // Who is forced runs whatever the stage before gives.
    let verdicts = |args: &[&str]| {
        let plan = project.call(&[&["plan", "--json"], args].concat()).ok();
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["verdict"].as_str().unwrap().to_owned()).collect()
    };
    let expected: [(&[&str], [&str; 2]); 3] =
        [(&[], ["run", "unknown"]), (&["--no-cache"], ["run", "run"]), (&["--force", "count"], ["run", "run"])];
    for (args, expected) in expected {
        let found: Vec<String> = verdicts(args);
        assert_eq!(found, expected, "{args:?}");
    }
}
