//! Kills, signals and two processes at once.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::fixture::{Project, names};

/// One stage that waits until the file `go` is there.
fn waiting_project() -> Project {
    Project::new().write(
        "pipeline.yaml",
        r#"version: 1
name: wait
stages:
  slow:
    uses: command
    with:
      run: [sh, -c, 'echo slow >> executed.txt; echo half > "$SIMSIAM_PIPE_OUTPUT/x"; while [ ! -e go ]; do sleep 0.02; done; echo alive >> after.txt; echo whole > "$SIMSIAM_PIPE_OUTPUT/x"']
      outputs: [x]
"#,
    )
}

fn start(project: &Project) -> Child {
    project.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} never happened");
        thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn wait_for_start(project: &Project) {
    wait_until("the start of the stage", || project.path("executed.txt").exists());
}

fn nothing_visible(project: &Project) {
    assert_eq!(names(&project.path(".simsiam-pipe/entries")), [""; 0]);
    assert!(!project.path("runs").exists() && !project.path("pipeline.lock").exists());
}

#[test]
fn a_kill_leaves_nothing_visible_and_the_next_run_works() {
    let project = waiting_project();
    // The work is done by a child of the program, which no death of a parent reaches by itself.
    project.edit(
        "pipeline.yaml",
        "while [ ! -e go ]; do sleep 0.02; done; echo alive >> after.txt",
        "sh -c \"echo \\$\\$ > pid.txt; while [ ! -e go ]; do sleep 0.02; done; echo alive >> after.txt\"; true",
    );
    let mut child = start(&project);
    let pid = || fs::read_to_string(project.path("pid.txt")).ok().filter(|pid| pid.ends_with('\n'));
    wait_until("the start of the child", || pid().is_some());
    let state = format!("/proc/{}/stat", pid().unwrap().trim());
    assert!(Path::new(&state).exists(), "{state}");
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_visible(&project);
    // The guard is a process of its own and needs a moment. Who was ended may lie there until somebody asks for its code.
    wait_until("the end of the child", || fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z ")));
    project.put("go", "");
    thread::sleep(Duration::from_millis(300));
    assert!(!project.path("after.txt").exists(), "the program went on after its parent was killed");
    project.call(&["run"]).ok();
    assert_eq!(project.read("runs/wait/slow/x"), "whole\n");
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn ctrl_c_and_sigterm_end_cleanly_with_their_codes() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let project = waiting_project();
        let child = start(&project);
        wait_for_start(&project);
        signal(&child, name);
        let called = project.finish(child.wait_with_output().unwrap());
        called.code(code).says("stopped on request").says("the same command goes on where this one stopped");
        nothing_visible(&project);
        assert_eq!(project.leftovers(), 0);
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let project = waiting_project();
    project.edit("pipeline.yaml", "echo slow >>", "trap \"\" TERM; echo slow >>");
    let child = start(&project);
    wait_for_start(&project);
    signal(&child, "-INT");
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    signal(&child, "-INT");
    project.finish(child.wait_with_output().unwrap()).code(130);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_second_process_waits_names_the_first_and_restores() {
    let project = waiting_project();
    let first = start(&project);
    wait_for_start(&project);
    let second = start(&project);
    let pid = first.id();
    thread::sleep(Duration::from_millis(300));
    project.put("go", "");
    project.finish(first.wait_with_output().unwrap()).ok();
    let second = project.finish(second.wait_with_output().unwrap()).ok();
    let second = second.says(&format!("waits for process {pid} on ")).says("1 restored");
    assert_eq!(project.executed(), ["slow"], "{}", second.stderr);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let project = Project::with_two_stages();
    let mut child = project.command(&["schema", "pipeline"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_dead_processes_left_is_swept() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    let tmp = project.path(".simsiam-pipe/tmp");
    fs::create_dir_all(tmp.join("dead.1-0-aa/sub")).unwrap();
    fs::write(Path::new(&tmp).join("dead.1-0-aa.lock"), "").unwrap();
    project.call(&["run"]).ok();
    assert_eq!(project.leftovers(), 0);
}
