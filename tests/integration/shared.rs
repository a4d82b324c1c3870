//! A cache that several users share. Only root may become somebody else: elsewhere these say so and end.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
};

use crate::fixture::{Called, Project, names};

const TEAM: u32 = 54_321;

fn hand_over(path: &Path, user: u32, group: u32) {
    chown(path, Some(user), Some(group)).unwrap();
    for name in names(path) {
        let path = path.join(name);
        if path.is_dir() { hand_over(&path, user, group) } else { chown(&path, Some(user), Some(group)).unwrap() }
    }
}

/// Calls the program as somebody with a strict umask.
fn call_as(user: u32, project: &Project, args: &[&str]) -> Called {
    let program = project.command(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(program).args(args);
    command.current_dir(project.root()).env_remove("SIMSIAM_PIPE_CACHE").env("HOME", "/");
    command.uid(user).gid(TEAM);
    project.finish(command.output().unwrap())
}

#[test]
fn another_user_of_the_group_uses_and_extends_a_shared_cache() {
    let shared = Project::new();
    let cache = shared.path("cache");
    fs::create_dir(&cache).unwrap();
    let root = shared.root();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    if chown(&cache, Some(0), Some(TEAM)).is_err() {
        eprintln!("skipped: this user cannot become another");
        return;
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o2775)).unwrap();
    let project = |user: u32| {
        let project = Project::with_two_stages();
        hand_over(&project.root(), user, user);
        project
    };
    let (one, other) = (project(12_001), project(12_002));
    let cache = cache.to_str().unwrap();
    let run = ["run", "--cache-dir", cache];
    let first = call_as(12_001, &one, &run);
    if first.stderr.contains("Permission denied") && first.code == 126 {
        eprintln!("skipped: other users cannot read this program");
        return;
    }
    first.ok();
    assert_eq!(one.executed(), ["words", "count"]);
    call_as(12_002, &other, &run).ok().says("2 restored");
    assert_eq!(other.executed(), [""; 0]);
    assert_eq!(other.read("runs/words/words/words.txt"), "one two three\n");
    fs::write(other.path("data/words.txt"), "one\n").unwrap();
    call_as(12_002, &other, &run).ok();
    assert_eq!(other.executed(), ["words", "count"]);
    call_as(12_001, &one, &["cache", "verify", "--cache-dir", cache]).ok().says("4 artifacts read, 0 problems");

    // Who leaves takes nothing along: each user can delete what is his.
    for project in [&one, &other] {
        fs::remove_dir_all(project.path("runs")).unwrap();
        fs::remove_file(project.path("pipelines/words.lock")).unwrap();
    }
    let gc = ["cache", "gc", "--cache-dir", cache];
    call_as(12_001, &one, &gc).ok().says("2 artifacts of other users stay").says("2 artifacts, ");
    call_as(12_002, &other, &["cache", "verify", "--cache-dir", cache]).ok().says("2 artifacts read, 0 problems");
    call_as(12_002, &other, &run).ok().says("2 restored");
}

#[test]
fn a_cache_of_another_user_can_be_read_but_not_written() {
    let owner = Project::with_two_stages();
    owner.call(&["run"]).ok();
    owner.executed();
    if chown(owner.path("data"), Some(0), Some(0)).is_err() {
        eprintln!("skipped: this user cannot become another");
        return;
    }
    fs::set_permissions(owner.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let project = Project::with_two_stages();
    hand_over(&project.root(), 12_003, 12_003);
    let cache = owner.path(".simsiam-pipe");
    let run = ["run", "--cache-dir", cache.to_str().unwrap()];
    let called = call_as(12_003, &project, &run);
    if called.stderr.contains("Permission denied") && called.code == 126 {
        eprintln!("skipped: other users cannot read this program");
        return;
    }
    called.ok().says("2 restored").says("the run is missing in the history");
    fs::write(project.path("data/words.txt"), "one\n").unwrap();
    let called = call_as(12_003, &project, &run).code(6);
    called.says("cannot create the lock").says("Permission denied").says("put the cache elsewhere with `--cache-dir`");
}
