//! `matrix`: cells through every command.

use serde_json::Value;

use crate::fixture::{Project, names};

/// `base` once, `train` for each size and seed, `score` after it, `table` of all scores.
const SWEEP: &str = r#"version: 1
name: sweep
stages:
  base:
    uses: command
    with:
      run: [sh, -c, 'echo base >> executed.txt; echo base > "$SIMSIAM_PIPE_OUTPUT/out"']
      outputs: [out]
  train:
    uses: command
    matrix: { size: [1, 2.50], seed: [0, 1] }
    inputs: { base: base }
    with:
      run: [sh, -c, 'echo "train ${matrix.size} $SIMSIAM_PIPE_SEED" >> executed.txt; echo "${matrix.size} $SIMSIAM_PIPE_SEED" > "$SIMSIAM_PIPE_OUTPUT/out"']
      outputs: [out]
  score:
    uses: command
    inputs: { model: train }
    with:
      run: [sh, -c, 'echo score >> executed.txt; read -r size seed < "$SIMSIAM_PIPE_INPUT_MODEL/out"; echo "{\"top1\": $size$seed}" > "$SIMSIAM_PIPE_OUTPUT/metrics.json"']
      outputs: [metrics.json]
  table:
    uses: command
    inputs: { scores: score@* }
    with:
      run: [sh, -c, 'echo table >> executed.txt; echo "$SIMSIAM_PIPE_INPUT_SCORES" | tr ":" "\n" | while read -r folder; do cat "$folder/metrics.json"; done > "$SIMSIAM_PIPE_OUTPUT/out"']
      outputs: [out]
"#;

fn project() -> Project {
    Project::new().write("pipelines/sweep.yaml", SWEEP)
}

#[test]
fn shared_stages_run_once_and_a_new_value_runs_its_own_cells_only() {
    let project = project();
    insta::assert_snapshot!("matrix_first_plan", project.call(&["plan"]).ok().stdout);
    project.call(&["run"]).ok();
    let executed = project.executed();
    assert_eq!(executed.len(), 1 + 4 + 4 + 1, "{executed:?}");
    assert_eq!(executed.iter().filter(|name| *name == "base").count(), 1);
    assert!(executed.contains(&"train 2.5 1".to_owned()), "{executed:?}");
    assert_eq!(project.read("runs/sweep/table/out").lines().count(), 4);
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);

    project.edit("pipelines/sweep.yaml", "seed: [0, 1]", "seed: [0, 1, 2]");
    insta::assert_snapshot!("matrix_new_value_plan", project.call(&["plan"]).ok().stdout);
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["train 1 2", "train 2.5 2", "score", "score", "table"]);

    // Spelling and order of values are no change; taking one away leaves the others as they are.
    project.edit("pipelines/sweep.yaml", "size: [1, 2.50], seed: [0, 1, 2]", "seed: [2, 0], size: [25e-1, 1.0]");
    project.call(&["run", "--stage", "score"]).ok();
    assert_eq!(project.executed(), [""; 0]);
}

#[test]
fn commands_take_stages_cells_and_patterns() {
    let project = project();
    project.call(&["run", "--stage", "train@size=1*"]).ok();
    assert_eq!(project.executed(), ["base", "train 1 0", "train 1 1"]);
    project.call(&["run", "--stage", "score@size=2.5,seed=1"]).ok();
    assert_eq!(project.executed(), ["train 2.5 1", "score"]);
    project.call(&["run", "--from", "train@seed=0"]).ok();
    let executed = project.executed();
    assert_eq!(executed.iter().filter(|name| name.starts_with("train")).count(), 1, "{executed:?}");
    assert_eq!(executed.last().unwrap(), "table");
    project.call(&["run", "--stage", "train", "--force", "train@size=1,seed=0"]).ok();
    assert_eq!(project.executed(), ["train 1 0"]);

    let unknown = project.call(&["run", "--stage", "train@size=3"]).code(2);
    unknown.says("no stage matches `train@size=3`").says("the cells of `train` are `train@size=1,seed=0`");
    project.call(&["run", "--stage", "trian*"]).code(2).says("the stages are `base`, `train`, `score`, `table`");
    project.call(&["plan", "--stage", "base", "--force", "score"]).code(2).says("not among the selected stages");

    project.call(&["status"]).ok().prints("score@size=2.5,seed=1");
    project.call(&["graph"]).ok().prints("\"train@size=1,seed=0\" -> \"score@size=1,seed=0\"");
    project.call(&["graph", "--format", "svg", "--status"]).ok().prints("score@size=1,seed=1");
    project.call(&["graph", "--format", "mermaid"]).ok().prints("train@size=1,seed=0");
    assert_eq!(names(&project.path("runs/sweep"))[..3], ["base", "score@size=1,seed=0", "score@size=1,seed=1"]);
    let lockfile = project.read("pipelines/sweep.lock");
    assert!(lockfile.contains("\"train@size=2.5,seed=1\": {\"uses\":\"command\""), "{lockfile}");
}

#[test]
fn cells_are_explained_one_by_one_or_together() {
    let project = project();
    project.call(&["run"]).ok();
    let hit = project.call(&["explain", "score@size=1,seed=1"]).ok();
    insta::assert_snapshot!("matrix_explain_hit", hit.stdout);
    project.edit("pipelines/sweep.yaml", "2.50", "7");
    let cells = project.call(&["explain", "train@seed=0"]).ok();
    insta::assert_snapshot!("matrix_explain_cells", cells.stdout);

    let one: Value =
        serde_json::from_str(&project.call(&["explain", "train@size=7,seed=0", "--json"]).ok().stdout).unwrap();
    assert_eq!((one["verdict"].as_str(), one["estimate"]["stage"].is_string()), (Some("run"), true), "{one}");
    assert_eq!(one["follows"], serde_json::json!(["score@size=7,seed=0", "table"]));
    let all: Value = serde_json::from_str(&project.call(&["explain", "train", "--json"]).ok().stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 4);
    assert!(all[0]["made"]["run_began"].is_string() && all[0]["made"]["device"] == "cpu", "{all}");
    let plan: Value = serde_json::from_str(&project.call(&["plan", "--json"]).ok().stdout).unwrap();
    assert_eq!((plan["cost"]["stages"].as_u64(), plan["cost"]["without_estimate"].as_u64()), (Some(5), Some(0)));
}

#[test]
fn figures_of_cells_are_tabulated_over_an_axis() {
    let project = project();
    project.call(&["run"]).ok();
    insta::assert_snapshot!("matrix_metrics", project.call(&["metrics"]).ok().stdout);
    insta::assert_snapshot!("matrix_metrics_over_seed", project.call(&["metrics", "--over", "seed"]).ok().stdout);
    let rows: Value =
        serde_json::from_str(&project.call(&["metrics", "--over", "seed", "--json"]).ok().stdout).unwrap();
    assert_eq!((rows[0]["axes"]["size"].as_str(), rows[0]["n"].as_u64()), (Some("1"), Some(2)));
    assert_eq!((rows[0]["mean"].as_f64(), rows[0]["values"]["1"].as_f64()), (Some(10.5), Some(11.0)));
    assert!((rows[0]["sd"].as_f64().unwrap() - 0.5_f64.sqrt()).abs() < 1e-12);
    let both = project.call(&["metrics", "--over", "seed", "--over", "size", "--only", "*top1"]).ok();
    assert_eq!(both.stdout.lines().count(), 2, "{}", both.stdout);
    let unknown = project.call(&["metrics", "--over", "sead"]).code(2);
    unknown.says("has an axis `sead`").says("the axes are `seed`, `size`");
    project.call(&["metrics", "--over", "seed", "--compare", "HEAD"]).code(2);
}

#[test]
fn an_axis_can_be_set_from_outside() {
    let project = project();
    let set = "stages.train.matrix.seed=[5]";
    project.call(&["run", "--set", set, "--set", "stages.train.matrix.size=[3]"]).ok();
    assert_eq!(project.executed(), ["base", "train 3 5", "score", "table"]);
}
