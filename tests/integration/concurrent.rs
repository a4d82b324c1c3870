//! Several processes on one cache.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::fixture::{Project, names};

fn start(project: &Project, args: &[&str]) -> Child {
    project.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} never happened");
        thread::sleep(Duration::from_millis(10));
    }
}

/// `first` is quick, `second` waits until the file `go` is there.
fn gated() -> Project {
    Project::new().write(
        "pipeline.yaml",
        r#"version: 1
name: gated
stages:
  first:
    uses: command
    with:
      run: [sh, -c, 'echo first >> executed.txt; echo 1 > "$SIMSIAM_PIPE_OUTPUT/x"']
      outputs: [x]
  second:
    uses: command
    inputs: { first: first }
    with:
      run: [sh, -c, 'echo second >> executed.txt; while [ ! -e go ]; do sleep 0.02; done; cat "$SIMSIAM_PIPE_INPUT_FIRST/x" > "$SIMSIAM_PIPE_OUTPUT/x"']
      outputs: [x]
"#,
    )
}

#[test]
fn ten_processes_execute_each_stage_once() {
    let project = Project::with_two_stages();
    // Long enough for all to meet.
    project.edit("pipelines/words.yaml", "echo words >> executed.txt;", "echo words >> executed.txt; sleep 0.5;");
    let children: Vec<_> = (0..10).map(|_| start(&project, &["run", "--jobs", "2"])).collect();
    for child in children {
        project.finish(child.wait_with_output().unwrap()).ok();
    }
    assert_eq!(project.executed(), ["words", "count"]);
    assert_eq!(project.read("runs/words/count/metrics.json"), "{\"words\": 3}\n");
    assert_eq!(project.leftovers(), 0);
    project.call(&["cache", "verify"]).ok().says("2 artifacts read, 0 problems");
    assert_eq!(project.call(&["log"]).ok().stdout.lines().count(), 11);
}

#[test]
fn whoever_waits_for_a_killed_process_takes_over() {
    let project = gated();
    let mut first = start(&project, &["run"]);
    wait_until("the start of the stage", || project.read("executed.txt").contains("second"));
    let second = start(&project, &["run"]);
    thread::sleep(Duration::from_millis(300));
    first.kill().unwrap();
    first.wait().unwrap();
    wait_until("the second start", || project.read("executed.txt").matches("second").count() == 2);
    project.put("go", "");
    project.finish(second.wait_with_output().unwrap()).ok().says("waits for process").says("1 ran, 1 restored");
    assert_eq!(project.executed(), ["first", "second", "second"]);
    // What the first left was in use when the second came: the third sweeps it.
    project.call(&["run"]).ok();
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn gc_keeps_what_a_running_process_uses() {
    let project = gated();
    let child = start(&project, &["run"]);
    wait_until("the start of the stage", || project.read("executed.txt").contains("second"));
    // Nothing refers to the first artifact any more but the process that reads it.
    fs::remove_dir_all(project.path("runs")).unwrap();
    project.call(&["cache", "gc"]).ok().says("0 artifacts, 0 B freed");
    project.put("go", "");
    project.finish(child.wait_with_output().unwrap()).ok();
    assert_eq!(project.read("runs/gated/second/x"), "1\n");
    // Now nobody uses it.
    fs::remove_dir_all(project.path("runs")).unwrap();
    fs::remove_file(project.path("pipeline.lock")).unwrap();
    project.call(&["cache", "gc"]).ok().says("1 artifacts, ");
    assert_eq!(names(&project.path(".simsiam-pipe/entries")), [""; 0]);
}

#[test]
fn an_edit_is_set_aside_once_when_two_find_it() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    let output = project.path("runs/words/words/words.txt");
    let mut permissions = fs::metadata(&output).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&output, permissions).unwrap();
    fs::write(&output, "mine\n").unwrap();
    let children: Vec<_> = (0..5).map(|_| start(&project, &["run"])).collect();
    let said: Vec<_> =
        children.into_iter().map(|child| project.finish(child.wait_with_output().unwrap()).ok().stderr).collect();
    assert_eq!(said.iter().filter(|said| said.contains("that copy is now at")).count(), 1, "{said:?}");
    assert_eq!(project.executed(), ["words"]);
    let kept: Vec<_> = names(&project.path("runs/words")).into_iter().filter(|name| name.contains("edited")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(project.read(&format!("runs/words/{}/words.txt", kept[0])), "mine\n");
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
}
