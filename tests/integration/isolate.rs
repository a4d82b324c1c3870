//! Stages in processes of their own.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{concurrent::wait_until, fixture::Project, stages::tiny};

#[test]
fn isolated_stages_leave_the_same_bits_and_report_the_same() {
    let (here, there) = (tiny(), tiny());
    let here_said = here.call(&["--json", "run"]).ok().stdout;
    let there_said = there.call(&["--json", "run", "--isolate", "--jobs", "2"]).ok().stdout;
    assert_eq!(here.read("pipeline.lock"), there.read("pipeline.lock"));
    for kind in ["stage_metric", "stage_message", "stage_progress"] {
        assert!(there_said.contains(kind), "no `{kind}`");
    }
    let metrics = |said: &str| -> Vec<serde_json::Value> {
        let mut metrics: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|event| event["event"] == "stage_metric")
            .map(|mut event| {
                event.as_object_mut().unwrap().remove("time");
                event
            })
            .collect();
        metrics.sort_by_key(ToString::to_string);
        metrics
    };
    assert_eq!(metrics(&here_said), metrics(&there_said));
    there.call(&["run"]).ok().says("10 restored");
    // Each process says what it held itself.
    let entries = there.call(&["--json", "cache", "ls"]).ok().stdout;
    let entries: serde_json::Value = serde_json::from_str(&entries).unwrap();
    for entry in entries.as_array().unwrap() {
        assert!(entry["entry"]["provenance"]["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{entry}");
    }
}

/// `bad` ends its worker as a lack of memory would; `good` and `after` are as usual.
const KILLED: &str = r#"version: 1
name: killed
stages:
  bad:
    uses: command
    with: { run: [sh, -c, 'echo bad >> executed.txt; sleep 0.2; kill -9 $PPID; sleep 5'], outputs: [x] }
  after:
    uses: command
    inputs: { bad: bad }
    with: { run: [sh, -c, 'echo after >> executed.txt; echo > "$SIMSIAM_PIPE_OUTPUT/x"'], outputs: [x] }
  good:
    uses: command
    with: { run: [sh, -c, 'echo good >> executed.txt; echo > "$SIMSIAM_PIPE_OUTPUT/x"'], outputs: [x] }
"#;

#[test]
fn a_killed_worker_fails_alone() {
    let project = Project::new().write("pipeline.yaml", KILLED);
    let called = project.call(&["run", "--isolate", "--keep-going"]).code(1);
    let called = called.says("stage `bad` failed: its process was killed (SIGKILL); it had held ");
    let called = called.says("if memory ran out, lower `batch_size`").says("`.simsiam-pipe/logs/");
    called.says("skipped, since `bad` failed").says("1 ran, 0 restored");
    assert_eq!(project.executed(), ["bad", "good"]);
    assert_eq!(project.leftovers(), 0);
    project.call(&["cache", "verify"]).ok();
}

fn gone(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

#[test]
fn a_worker_and_its_program_end_with_a_killed_runner() {
    let project = Project::new().write(
        "pipeline.yaml",
        r#"version: 1
name: orphan
stages:
  slow:
    uses: command
    with: { run: [sh, -c, 'echo "$PPID $$" > pids.txt; while true; do sleep 0.02; done'], outputs: [x] }
"#,
    );
    let mut child = project.command(&["run", "--isolate"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the start of the stage", || project.read("pids.txt").ends_with('\n'));
    let pids = project.read("pids.txt");
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in pids.split_whitespace() {
        wait_until("the end of the worker and its program", || gone(pid));
    }
}

#[test]
fn a_signal_reaches_isolated_stages() {
    let project = Project::new().write(
        "pipeline.yaml",
        r"version: 1
name: stop
stages:
  slow:
    uses: command
    with: { run: [sh, -c, 'echo $$ > pid.txt; while true; do sleep 0.02; done'], outputs: [x] }
",
    );
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let child = project.command(&["run", "--isolate"]).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the start of the stage", || project.read("pid.txt").ends_with('\n'));
        thread::sleep(Duration::from_millis(50));
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
        let called = project.finish(child.wait_with_output().unwrap()).code(code);
        called.says("the same command goes on where this one stopped");
        let pid = project.read("pid.txt");
        wait_until("the end of the program", || gone(pid.trim()));
        std::fs::remove_file(project.path("pid.txt")).unwrap();
        assert_eq!(project.leftovers(), 0);
    }
}

#[test]
fn a_worker_refuses_what_it_does_not_understand() {
    let project = Project::new();
    let mut child = project.command(&["stage-worker"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"version\": 99}\n").unwrap();
    let called = project.finish(child.wait_with_output().unwrap()).ok();
    called.prints("\"event\":\"failed\"").prints("the job cannot be understood");
    let help = project.call(&["--help"]).ok();
    assert!(!help.stdout.contains("stage-worker"), "it is not for people");
}
