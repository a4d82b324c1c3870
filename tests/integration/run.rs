//! `run`: what executes, what is restored, what is left.

use std::fs;

use crate::fixture::{Project, names};

#[test]
fn the_first_run_executes_and_the_second_restores() {
    let project = Project::with_two_stages();
    let first = project.call(&["run"]).ok();
    insta::assert_snapshot!("first_run", first.stderr);
    assert_eq!(first.stdout, "");
    assert_eq!(project.executed(), ["words", "count"]);
    let second = project.call(&["run"]).ok();
    insta::assert_snapshot!("second_run", second.stderr);
    assert_eq!(project.executed(), [""; 0]);
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
    assert_eq!(project.read("runs/words/count/metrics.json"), "{\"words\": 3}\n");
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn comments_order_and_spelling_run_nothing() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project.edit("pipelines/words.yaml", "version: 1\n", "# a comment\nversion: 1   # another\n\n");
    project.edit(
        "pipelines/words.yaml",
        "      outputs: [words.txt]\n",
        "      env: {}\n      outputs:\n        - \"words.txt\"\n",
    );
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);
}

#[test]
fn touching_a_source_runs_nothing_and_changing_it_does() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project.put("data/words.txt", "one two three\n");
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);
    project.put("data/words.txt", "one two\n");
    project.call(&["plan"]).ok().prints("`content of with.sources[0]` 1 changed (pipelines/words.yaml:9)");
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}

#[test]
fn the_same_intermediate_content_ends_the_wave() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project.edit("pipelines/words.yaml", "echo words >>", "echo words  >>");
    project.call(&["plan"]).ok().prints("1 to run, 1 depend on that, 0 cached");
    project.call(&["run"]).ok().says("same content as before");
    assert_eq!(project.executed(), ["words"]);
}

#[test]
fn an_override_runs_and_going_back_is_a_hit() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project.call(&["run", "--set", "stages.count.with.env={X: '1'}"]).ok();
    assert_eq!(project.executed(), ["count"]);
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);
}

#[test]
fn a_moved_project_is_a_hit() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    let moved = Project::new();
    for name in names(&project.root()) {
        fs::rename(project.path(&name), moved.path(&name)).unwrap();
    }
    moved.call(&["run"]).ok();
    assert_eq!(moved.executed(), [""; 0]);
    assert_eq!(moved.read("runs/words/words/words.txt"), "one two three\n");
}

#[test]
fn a_shared_cache_serves_another_project() {
    let cache = Project::new();
    let cache_dir = cache.path("cache").to_str().unwrap().to_owned();
    let (one, other) = (Project::with_two_stages(), Project::with_two_stages());
    one.call(&["run", "--cache-dir", &cache_dir]).ok();
    let output = other.command(&["run"]).env("SIMSIAM_PIPE_CACHE", &cache_dir).output().unwrap();
    other.finish(output).ok();
    assert_eq!(other.executed(), [""; 0]);
    assert_eq!(other.read("runs/words/words/words.txt"), "one two three\n");
    assert!(!other.path(".simsiam-pipe").exists());
}

#[test]
fn selection_keeps_to_what_is_needed() {
    let project = Project::with_two_stages();
    project.call(&["run", "--stage", "wor*"]).ok();
    assert_eq!(project.executed(), ["words"]);
    project.call(&["run", "--from", "words"]).ok();
    assert_eq!(project.executed(), ["count"]);
    project.call(&["run", "--force", "words"]).ok().says("you asked for it");
    assert_eq!(project.executed(), ["words"]);
    project.call(&["run", "--no-cache"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
    project.call(&["run", "--stage", "wrods"]).code(2).says("did you mean `words`?");
}

#[test]
fn a_dry_run_says_the_same_as_plan_and_does_nothing() {
    let project = Project::with_two_stages();
    let plan = project.call(&["plan"]).ok();
    let dry = project.call(&["run", "--dry-run"]).ok();
    assert_eq!(plan.stdout, dry.stdout);
    assert_eq!(project.executed(), [""; 0]);
    assert!(!project.path("runs").exists() && !project.path("pipelines/words.lock").exists());
}

#[test]
fn a_failing_stage_is_named_with_its_last_lines_and_nothing_is_stored() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "n=$(wc -w", "echo no luck; exit 3; n=$(wc -w");
    let failed = project.call(&["run"]).code(1);
    insta::assert_snapshot!("failed_run", failed.stderr);
    assert_eq!(project.leftovers(), 0);
    project.edit("pipelines/words.yaml", "exit 3; ", "");
    project.executed();
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["count"]);
}

#[test]
fn a_source_edited_during_the_run_fails_it() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "echo words >>", "echo more >> data/words.txt; echo words >>");
    project.call(&["run"]).code(1).says("`data/words.txt` (`with.sources[0]`) was changed while the stage ran");
    assert_eq!(names(&project.path(".simsiam-pipe/entries")), [""; 0]);
}

#[test]
fn what_sits_in_the_place_of_a_link_is_moved_aside() {
    let project = Project::with_two_stages();
    project.put("runs/words/count/notes.txt", "mine");
    project.call(&["run"]).ok().says("that copy is now at `runs/words/count.edited-");
    let aside = names(&project.path("runs/words")).into_iter().find(|name| name.contains("edited")).unwrap();
    assert_eq!(project.read(&format!("runs/words/{aside}/notes.txt")), "mine");
}

#[test]
fn the_lockfile_is_small_and_written_only_when_it_changes() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    let lockfile = project.read("pipelines/words.lock");
    assert_eq!(lockfile.lines().count(), 5);
    assert!(lockfile.contains("\"metrics\":{\"count/words\":3.0}"), "{lockfile}");
    let before = fs::metadata(project.path("pipelines/words.lock")).unwrap().modified().unwrap();
    project.call(&["run"]).ok();
    assert_eq!(fs::metadata(project.path("pipelines/words.lock")).unwrap().modified().unwrap(), before);
}

#[test]
fn independent_failures_are_all_reported_with_keep_going() {
    let project = Project::new().write(
        "pipeline.yaml",
        "version: 1\nname: two\nstages:\n  a: { uses: command, with: { run: ['false'], outputs: [x] } }\n  \
         b: { uses: command, with: { run: ['false'], outputs: [x], env: { B: '1' } } }\n",
    );
    project.call(&["run"]).code(1).says("stage `a` failed");
    let both = project.call(&["run", "--keep-going", "--jobs", "2"]).code(1);
    assert!(both.stderr.contains("stage `a` failed") && both.stderr.contains("stage `b` failed"), "{}", both.stderr);
}

#[test]
fn the_option_c_changes_the_folder() {
    let project = Project::with_two_stages();
    let elsewhere = Project::new();
    let root = project.root();
    elsewhere.call(&["-C", root.to_str().unwrap(), "run", "pipelines/words.yaml"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}
