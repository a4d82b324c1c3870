//! Kills at random moments and at every change to the disk, disks that fail and clocks that jump: nothing half is
//! seen, nothing is lost, and the next run ends as an undisturbed one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    fixture::{Called, Project, names},
    stages::TINY,
};

/// Two quick stages, the second with an input: enough for every step of publication.
const QUICK: &str = r#"version: 1
name: quick
stages:
  views:
    uses: augment
    with: { image_size: 16, ops: [{ horizontal_flip: { p: 0.5 } }] }
  copy:
    uses: command
    inputs: { views: views }
    with:
      run: [sh, -c, 'echo copy >> executed.txt; cp "$SIMSIAM_PIPE_INPUT_VIEWS/policy.json" "$SIMSIAM_PIPE_OUTPUT/"']
      outputs: [policy.json]
"#;

/// The stages up to embeddings and a classifier on them.
fn training() -> String {
    let (head, _) = TINY.split_once("  fine_tuned:\n").unwrap();
    head.to_owned()
}

fn project(pipeline: &str) -> Project {
    Project::new().write("pipeline.yaml", pipeline)
}

fn undisturbed(pipeline: &str) -> String {
    let project = project(pipeline);
    project.call(&["run"]).ok();
    project.read("pipeline.lock")
}

/// Every file below a folder.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() && !path.is_symlink() { files.extend(all_files(&path)) } else { files.push(path) }
    }
    files
}

/// The cache is whole, and a run from here ends as an undisturbed one and leaves nothing about.
#[track_caller]
fn ends_as_undisturbed(project: &Project, lockfile: &str, what: &str) {
    let verified = project.call(&["cache", "verify"]);
    assert_eq!(verified.code, 0, "{what}: {verified:?}");
    let run = project.call(&["run"]);
    assert_eq!(run.code, 0, "{what}: {run:?}");
    assert_eq!(project.read("pipeline.lock"), lockfile, "{what}");
    for folder in ["tmp", "pins"] {
        assert_eq!(names(&project.path(".simsiam-pipe").join(folder)), [""; 0], "{what}: left in `{folder}`");
    }
    let left: Vec<_> = all_files(&project.root())
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with("simsiam-pipe-tmp") && !path.is_symlink())
        .collect();
    assert_eq!(left, [""; 0].map(PathBuf::from), "{what}");
}

/// A generator good enough for moments.
struct Moments(u64);

impl Moments {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `SIMSIAM_PIPE_CRASH_ROUNDS` kills in a row, a few unless asked.
#[test]
fn kills_at_random_moments_lose_nothing() {
    let rounds = env::var("SIMSIAM_PIPE_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let pipeline = training();
    let reference = project(&pipeline);
    let started = Instant::now();
    reference.call(&["run"]).ok();
    let whole = started.elapsed().as_secs_f64();
    let lockfile = reference.read("pipeline.lock");
    let seed = u64::from(std::process::id());
    let mut moments = Moments(seed);
    let mut killed = 0;
    for round in 0..rounds {
        let project = project(&pipeline);
        // Two kills in a row, at any moment of the whole.
        for _ in 0..2 {
            let delay = Duration::from_secs_f64(moments.next() * whole);
            let mut child = project.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(delay);
            child.kill().unwrap();
            killed += usize::from(child.wait().unwrap().code().is_none());
        }
        ends_as_undisturbed(&project, &lockfile, &format!("round {round} of seed {seed}"));
    }
    assert!(killed > 0, "every run ended before it was killed");
}

/// A run with a fault at one change to the disk.
fn run_with(project: &Project, fault: &str) -> (Option<i32>, Called) {
    let output = project.command(&["run"]).env("SIMSIAM_PIPE_FAULT", fault).output().unwrap();
    (output.status.code(), project.finish(output))
}

#[test]
fn a_kill_before_any_change_to_the_disk_loses_nothing() {
    let lockfile = undisturbed(QUICK);
    let mut steps = 0;
    for step in 1.. {
        let project = project(QUICK);
        let (code, called) = run_with(&project, &format!("kill:{step}"));
        if code == Some(0) {
            break;
        }
        assert_eq!(code, None, "{called:?}");
        ends_as_undisturbed(&project, &lockfile, &format!("kill before change {step}"));
        steps = step;
    }
    assert!(steps > 60, "only {steps} changes were made");
}

/// Where one change fails the run goes on or ends with a clear error; either way the next one is whole.
fn survives(fault: &str, says: &str, stride: usize) {
    let lockfile = undisturbed(QUICK);
    let mut failed = 0;
    for step in (1..).step_by(stride) {
        let project = project(QUICK);
        let (code, called) = run_with(&project, &fault.replace('N', &step.to_string()));
        let untouched = code == Some(0) && !called.stderr.contains(says);
        if code == Some(0) {
            assert_eq!(project.read("runs/quick/copy/policy.json"), project.read("runs/quick/views/policy.json"));
        } else {
            assert_eq!(code, Some(6), "change {step}: {called:?}");
            assert!(called.stderr.contains("error:") && called.stderr.contains(says), "change {step}: {called:?}");
            failed += 1;
        }
        ends_as_undisturbed(&project, &lockfile, &format!("{fault} at {step}"));
        // Past the last change nothing is said. Changes that may fail unseen come before.
        if untouched && step > 150 {
            break;
        }
    }
    assert!(failed > 10, "only {failed} runs failed");
}

#[test]
fn a_failing_change_is_a_clear_error_and_loses_nothing() {
    survives("eio:N", "Input/output error", 3);
}

#[test]
fn a_disk_that_is_full_from_some_moment_on_is_a_clear_error_and_loses_nothing() {
    survives("enospc:N+", "No space left on device", 7);
}

#[test]
fn a_read_only_cache_serves_what_it_has() {
    let project = project(QUICK);
    let (code, called) = run_with(&project, "erofs:1+");
    assert_eq!(code, Some(6), "{called:?}");
    called.says("Read-only file system").says("put the cache on a writable disk with `--cache-dir`");
    project.call(&["run"]).ok();
    project.executed();
    let (code, called) = run_with(&project, "erofs:1+");
    assert_eq!(code, Some(0), "{called:?}");
    called.says("2 restored").says("the run is missing in the history");
    project.edit("pipeline.yaml", "echo copy >>", "echo copy  >>");
    let (code, called) = run_with(&project, "erofs:1+");
    assert_eq!(code, Some(6), "{called:?}");
    called.says("stage `copy` failed: cannot create the lock");
    assert_eq!(project.executed(), [""; 0]);
}

/// A small disk of its own, where this user may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let disk = Self(folder);
        if disk.mount(options) {
            Some(disk)
        } else {
            std::mem::forget(disk);
            None
        }
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_with_room_the_run_goes_on() {
    let pipeline = training();
    let lockfile = undisturbed(&pipeline);
    let project = project(&pipeline);
    let Some(disk) = SmallDisk::new(project.path("disk"), "size=2m") else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let full = project.call(&["run", "--cache-dir", "disk/cache"]).code(6).says("No space left on device");
    full.says("free some space");
    project.call(&["cache", "verify", "--cache-dir", "disk/cache"]).ok();
    assert!(disk.mount("remount,size=64m"));
    project.call(&["run", "--cache-dir", "disk/cache"]).ok().says("restored");
    assert_eq!(project.read("pipeline.lock"), lockfile);
    assert!(disk.mount("remount,ro"));
    let called = project.call(&["run", "--cache-dir", "disk/cache"]).ok();
    assert!(called.stderr.contains("0 ran"), "{}", called.stderr);
}

fn set_time(path: &Path, time: SystemTime) {
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_clock_that_went_back_hides_no_edit_and_runs_nothing() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    // As if all had been made by a clock that was a day ahead.
    let ahead = SystemTime::now() + Duration::from_hours(24);
    for path in all_files(&project.path(".simsiam-pipe")) {
        set_time(&path, ahead);
    }
    set_time(&project.path("data/words.txt"), ahead);
    project.call(&["run"]).ok().says("2 restored");
    assert_eq!(project.executed(), [""; 0]);
    // A source and an output of the same size as before, by a clock that is an hour behind.
    let behind = SystemTime::now() - Duration::from_hours(1);
    let output = project.path("runs/words/words/words.txt");
    let mut permissions = fs::metadata(&output).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&output, permissions).unwrap();
    fs::write(&output, "one two THREE\n").unwrap();
    set_time(&output, behind);
    project.call(&["run"]).ok().says("that copy is now at `runs/words/words.edited-");
    assert_eq!(project.executed(), ["words"]);
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
    project.put("data/words.txt", "one two trees\n");
    set_time(&project.path("data/words.txt"), behind);
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}
