//! The cache under damage, edits and garbage collection.

use std::{fs, os::unix::fs::PermissionsExt as _, thread, time::Duration};

use crate::fixture::{Project, names};

fn damage(project: &Project, name: &str, text: &str) {
    let path = project.path(name);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn an_edited_output_is_kept_aside_and_made_again() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    thread::sleep(Duration::from_millis(20));
    damage(&project, "runs/words/words/words.txt", "one two THREE\n");
    project.call(&["plan"]).ok().prints("its artifact in the cache is damaged: `words.txt` has been changed");
    project.call(&["run"]).ok().says("that copy is now at `runs/words/words.edited-");
    assert_eq!(project.executed(), ["words"]);
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
    let aside = names(&project.path("runs/words")).into_iter().find(|name| name.contains("edited")).unwrap();
    assert_eq!(project.read(&format!("runs/words/{aside}/words.txt")), "one two THREE\n");
}

#[test]
fn a_deleted_link_or_object_is_restored_or_made_again() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    fs::remove_dir_all(project.path("runs")).unwrap();
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
    fs::remove_dir_all(project.path(".simsiam-pipe/objects")).unwrap();
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}

#[test]
fn verify_finds_damage_and_repair_removes_it() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project.call(&["cache", "verify"]).ok().says("2 artifacts read, 0 problems");
    damage(&project, "runs/words/words/words.txt", "one two THREE\n");
    project.call(&["cache", "verify"]).code(5).prints("artifact <digest>: `words.txt` has other bytes");
    project.call(&["cache", "verify", "--repair"]).ok();
    project.call(&["cache", "verify"]).ok();
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words"]);
}

#[test]
fn gc_keeps_what_is_referred_to() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.put("data/words.txt", "one\n");
    project.call(&["run"]).ok();
    project.executed();
    project.call(&["cache", "gc", "--dry-run", "--keep-last", "2"]).ok().says("0 artifacts, 0 B would be freed");
    project.call(&["cache", "gc", "--dry-run"]).ok().says("2 artifacts");
    project.call(&["cache", "gc"]).ok().says("2 artifacts");
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), [""; 0]);
    project.call(&["cache", "verify"]).ok().says("2 artifacts read");
    project.put("data/words.txt", "one two three\n");
    project.call(&["run"]).ok();
    assert_eq!(project.executed(), ["words", "count"]);
}

#[test]
fn a_cache_of_a_newer_version_is_refused() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.put(".simsiam-pipe/format", "99\n");
    project.call(&["run"]).code(5).says("has format 99, this version knows up to 2");
    project.call(&["doctor"]).code(5);
}

#[test]
fn a_damaged_entry_counts_as_a_miss() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    for name in names(&project.path(".simsiam-pipe/entries")) {
        project.put(&format!(".simsiam-pipe/entries/{name}"), "{");
    }
    project.call(&["run"]).ok().says("its artifact in the cache is damaged: its entry");
    assert_eq!(project.executed(), ["words", "count"]);
}

#[test]
fn an_unwritable_lockfile_is_a_warning() {
    let project = Project::with_two_stages();
    fs::create_dir_all(project.path("pipelines/words.lock.d")).unwrap();
    project.call(&["run"]).ok();
    fs::remove_file(project.path("pipelines/words.lock")).unwrap();
    fs::create_dir(project.path("pipelines/words.lock")).unwrap();
    project.call(&["run"]).code(6).says("cannot read `pipelines/words.lock`");
}

#[test]
fn a_cache_that_cannot_be_made_is_a_clear_error() {
    let project = Project::with_two_stages();
    project.put("file", "");
    project.call(&["run", "--cache-dir", "file/cache"]).code(6).says("`<root>/file/cache/");
}

#[test]
fn the_folder_is_marked_as_a_cache() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    assert!(project.read(".simsiam-pipe/CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert_eq!(project.call(&["cache", "path"]).ok().stdout, "<root>/.simsiam-pipe\n");
    let ls = project.call(&["cache", "ls"]).ok();
    assert_eq!(ls.stdout.lines().count(), 3);
}
