//! What people do to files under `runs/`: noticed, kept, said, restored.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use crate::fixture::{Project, names};

fn make_writable(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).unwrap();
}

/// The one name in a folder that says `edited`.
#[track_caller]
fn kept(project: &Project, folder: &str) -> String {
    let kept: Vec<_> = names(&project.path(folder)).into_iter().filter(|name| name.contains("edited")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    format!("{folder}/{}", kept[0])
}

fn done() -> Project {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.executed();
    project
}

#[test]
fn a_deleted_file_of_an_output_is_made_again_and_the_rest_kept() {
    let project = done();
    let folder = project.path("runs/words/words");
    make_writable(&folder);
    fs::remove_file(folder.join("words.txt")).unwrap();
    project.call(&["run"]).ok().says("its artifact in the cache is damaged: `words.txt` is gone");
    assert_eq!(project.executed(), ["words"]);
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
    assert!(project.path(&kept(&project, "runs/words")).join("manifest.json").exists());
}

#[test]
fn files_beside_the_outputs_are_set_aside_and_nothing_runs() {
    let project = done();
    let folder = project.path("runs/words/words");
    make_writable(&folder);
    fs::create_dir(folder.join("notes")).unwrap();
    fs::write(folder.join("notes/mine.txt"), "mine").unwrap();
    project.call(&["cache", "verify"]).code(5).prints("`notes/mine.txt` does not belong there");
    project
        .call(&["run"])
        .ok()
        .says("somebody put files into the output of `words`; they are now at `runs/words/words");
    assert_eq!(project.executed(), [""; 0]);
    let aside = kept(&project, "runs/words");
    assert_eq!(project.read(&format!("{aside}/notes/mine.txt")), "mine");
    project.call(&["cache", "verify"]).ok();
    project.call(&["run"]).ok();
    assert_eq!(kept(&project, "runs/words"), aside);
}

#[test]
fn an_edit_is_kept_where_the_cache_is_on_another_disk() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let project = Project::with_two_stages();
    if fs::metadata(elsewhere.path()).unwrap().dev() == fs::metadata(project.root()).unwrap().dev() {
        return;
    }
    let cache = elsewhere.path().to_str().unwrap();
    let run = ["run", "--cache-dir", cache];
    project.call(&run).ok();
    project.executed();
    let path = project.path("runs/words/words/words.txt");
    make_writable(&path);
    fs::write(&path, "mine\n").unwrap();
    project.call(&run).ok().says("that copy is now at `runs/words/words.edited-");
    assert_eq!(project.executed(), ["words"]);
    assert_eq!(project.read(&format!("{}/words.txt", kept(&project, "runs/words"))), "mine\n");
    assert_eq!(project.read("runs/words/words/words.txt"), "one two three\n");
}

#[test]
fn repair_keeps_what_somebody_has_edited() {
    let project = done();
    let path = project.path("runs/words/words/words.txt");
    make_writable(&path);
    fs::write(&path, "mine\n").unwrap();
    project.call(&["cache", "verify", "--repair"]).ok().says("somebody changed an artifact; that copy is now at");
    let folder = project.path(".simsiam-pipe/edited");
    let kept = names(&folder);
    assert_eq!(fs::read_to_string(folder.join(&kept[0]).join("words.txt")).unwrap(), "mine\n");
    // A disk that loses bytes leaves the time as it was: nobody's work.
    project.call(&["run"]).ok();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    make_writable(&path);
    fs::write(&path, "one two THREE\n").unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    project.call(&["cache", "verify", "--repair"]).ok();
    assert_eq!(names(&folder), kept);
    project.call(&["cache", "verify"]).ok();
}

#[test]
fn gc_and_repair_destroy_nobodys_work() {
    let project = done();
    let folder = project.path("runs/words/words");
    make_writable(&folder);
    fs::write(folder.join("notes.txt"), "notes").unwrap();
    project.call(&["cache", "verify", "--repair"]).ok().says("somebody changed an artifact");
    let edited = project.path(".simsiam-pipe/edited");
    assert_eq!(fs::read_to_string(edited.join(&names(&edited)[0]).join("notes.txt")).unwrap(), "notes");
    project.call(&["cache", "verify"]).ok();
    project.call(&["run"]).ok().says("2 restored");

    let path = folder.join("words.txt");
    make_writable(&path);
    fs::write(&path, "mine\n").unwrap();
    fs::remove_dir_all(project.path("runs")).unwrap();
    fs::remove_file(project.path("pipelines/words.lock")).unwrap();
    project.call(&["cache", "gc"]).ok().says("somebody changed an artifact; that copy is now at").says("2 artifacts");
    let kept: Vec<_> = names(&edited).into_iter().filter(|name| edited.join(name).join("words.txt").exists()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read_to_string(edited.join(&kept[0]).join("words.txt")).unwrap(), "mine\n");
    project.call(&["cache", "verify"]).ok().says("0 artifacts read");
}

#[test]
fn an_input_that_is_edited_while_a_stage_reads_it_fails_the_stage() {
    let project = Project::with_two_stages();
    project.edit(
        "pipelines/words.yaml",
        "echo count >>",
        "f=\"$SIMSIAM_PIPE_INPUT_TEXT/words.txt\"; [ -e done ] || { chmod u+w \"$f\"; echo mine > \"$f\"; }; touch done; echo count >>",
    );
    let failed = project.call(&["run"]).code(1);
    failed.says("the output of `words` was changed while this stage read it").says("run again");
    project.executed();
    project.call(&["run"]).ok().says("that copy is now at");
    assert_eq!(project.executed(), ["words", "count"]);
    assert_eq!(project.read("runs/words/count/metrics.json"), "{\"words\": 3}\n");
}

#[test]
fn what_a_failed_stage_printed_is_kept_until_it_succeeds() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "n=$(wc -w", "echo no luck; [ -e luck ] || exit 3; n=$(wc -w");
    let failed = project.call(&["--json", "run"]).code(1);
    let event = failed.stdout.lines().find(|line| line.contains("stage_failed")).unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    let logs = project.path(".simsiam-pipe/logs");
    let folder = logs.join(&names(&logs)[0]);
    assert!(event["log"].as_str().unwrap().ends_with("/command.log"), "{event}");
    assert_eq!(fs::read_to_string(folder.join("command.log")).unwrap(), "no luck\n");
    assert!(fs::read_to_string(folder.join("stage.log")).unwrap().contains("`sh` ended with exit status: 3"));
    project.call(&["run"]).code(1).says("failed; its log is at `.simsiam-pipe/logs/");
    project.put("luck", "");
    project.call(&["run"]).ok();
    assert_eq!(names(&logs), [""; 0]);
}

#[test]
fn entries_name_the_commit_where_there_is_one() {
    let project = Project::with_two_stages();
    let provenance = |project: &Project| -> Vec<serde_json::Value> {
        let list = project.call(&["--json", "cache", "ls"]).ok().stdout;
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list.as_array().unwrap().iter().map(|entry| entry["entry"]["provenance"]["git"].clone()).collect()
    };
    project.call(&["run"]).ok();
    let artifacts = project.read("pipelines/words.lock");
    assert!(provenance(&project).iter().all(serde_json::Value::is_null));
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").arg("-C").arg(project.root()).args(who).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "data", "pipelines"]);
    git(&["commit", "--quiet", "-m", "first"]);
    let commit = git(&["rev-parse", "HEAD"]);
    fs::remove_dir_all(project.path(".simsiam-pipe/entries")).unwrap();
    project.call(&["run"]).ok();
    // The lockfile, which runs write themselves, makes nothing dirty.
    let expected = serde_json::json!({"commit": commit, "dirty": false});
    assert_eq!(provenance(&project), [expected.clone(), expected]);
    // Where something came from decides nothing.
    assert_eq!(project.read("pipelines/words.lock"), artifacts);
    project.put("data/words.txt", "one\n");
    project.call(&["run"]).ok();
    let dirty = provenance(&project).iter().filter(|git| git["dirty"] == true && git["commit"] == commit).count();
    assert_eq!(dirty, 2);
}

#[test]
fn the_link_of_a_stage_that_is_gone_goes_and_what_is_not_ours_stays() {
    let project = done();
    project.put("runs/words/notes.txt", "mine");
    std::os::unix::fs::symlink("notes.txt", project.path("runs/words/mine")).unwrap();
    project.edit("pipelines/words.yaml", "\n  count:", "\n  number:");
    project.call(&["run"]).ok().says("0 ran, 2 restored");
    assert_eq!(names(&project.path("runs/words")), ["mine", "notes.txt", "number", "words"]);
    // Another run has nothing to do with that name: it may be anybody's.
    fs::rename(project.path("runs/words/number"), project.path("runs/words/count")).unwrap();
    project.call(&["run"]).ok();
    assert_eq!(names(&project.path("runs/words")), ["count", "mine", "notes.txt", "number", "words"]);
}
