//! `export` and `audit`.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    fixture::{Project, names},
    stages::tiny,
};

#[test]
fn an_exported_folder_stands_alone_and_can_be_checked() {
    let project = tiny();
    project.call(&["run"]).ok();
    let exported = project.call(&["export", "probe", "--to", "out/probe"]).ok().says("6 artifacts");
    assert_eq!(exported.stdout, "out/probe\n");
    let folder = project.path("out/probe");
    let expected =
        ["B3SUMS", "README.md", "SHA256SUMS", "artifacts", "pipeline.yaml", "provenance.json", "resolved.yaml"];
    assert_eq!(names(&folder), expected);
    let stages = ["embeddings", "pretrain", "probe", "test", "train", "views"];
    assert_eq!(names(&folder.join("artifacts")), stages);
    let mut check = Command::new("sha256sum");
    check.args(["-c", "--quiet", "--strict", "SHA256SUMS"]).current_dir(&folder);
    assert!(check.status().unwrap().success());
    for line in project.read("out/probe/B3SUMS").lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sum, blake3::hash(&fs::read(folder.join(name)).unwrap()).to_hex().as_str(), "{name}");
    }
    let provenance: serde_json::Value = serde_json::from_str(&project.read("out/probe/provenance.json")).unwrap();
    assert_eq!(provenance["stages"]["probe"]["inputs"]["embeddings"][0], "embeddings");
    let pretrain = &provenance["stages"]["pretrain"];
    assert_eq!(pretrain["provenance"]["device"], "cpu");
    assert_eq!(pretrain["decided_by"]["config"]["epochs"], 2);
    assert!(project.read("pipeline.lock").contains(pretrain["fingerprint"].as_str().unwrap()));
    // The resolved pipeline is the same pipeline: everything is in the cache.
    fs::copy(folder.join("resolved.yaml"), project.path("again.yaml")).unwrap();
    project.call(&["run", "again.yaml"]).ok().says("0 ran, 6 restored");
    // Twice the same bytes.
    project.call(&["export", "probe", "--to", "again", "--hard-link"]).ok();
    assert_eq!(project.read("again/SHA256SUMS"), project.read("out/probe/SHA256SUMS"));
}

#[test]
fn export_refuses_what_it_cannot_do_and_leaves_nothing() {
    let project = Project::with_two_stages();
    project.put("mine/notes.txt", "mine");
    project.call(&["export", "count", "--to", "new"]).code(2).says("the cache does not hold what `words`, `count`");
    project.call(&["run"]).ok();
    project.call(&["export", "count", "--to", "mine"]).code(2).says("`mine` is there and is not an empty folder");
    project.call(&["export", "cuont", "--to", "new"]).code(2).says("did you mean `count`?");
    assert_eq!(project.read("mine/notes.txt"), "mine");
    // Damage that sizes and times do not show.
    let path = project.path("runs/words/words/words.txt");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "one two THREE\n").unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    project.call(&["export", "count", "--to", "new"]).code(5).says("it has other bytes");
    project.call(&["cache", "verify", "--repair"]).ok();
    project.call(&["run"]).ok();
    let mut failed = 0;
    for step in 1..40 {
        let mut command = project.command(&["export", "count", "--to", "never"]);
        let output = command.env("SIMSIAM_PIPE_FAULT", format!("enospc:{step}")).output().unwrap();
        if output.status.success() {
            fs::remove_dir_all(project.path("never")).unwrap();
        } else {
            failed += 1;
        }
    }
    assert!(failed > 10, "only {failed} exports failed");
    let left = names(&project.root());
    assert!(!left.iter().any(|name| name.contains("never") || name.contains("new")), "{left:?}");
}

#[test]
fn a_command_with_dollar_braces_is_exported_as_it_was() {
    let project = Project::new().write(
        "pipeline.yaml",
        "version: 1\nname: braces\nstages:\n  a:\n    uses: command\n    with:\n      run: [sh, -c, 'echo \"$${HOME:+x}\" > \
         \"$SIMSIAM_PIPE_OUTPUT/x\"']\n      outputs: [x]\n",
    );
    project.call(&["run"]).ok();
    project.call(&["export", "a", "--to", "out"]).ok();
    project.call(&["plan", "out/resolved.yaml"]).ok().prints("everything is up to date");
}

#[test]
fn an_audit_of_real_stages_finds_the_same_bytes() {
    let project = tiny();
    project.call(&["run"]).ok();
    let lockfile = project.read("pipeline.lock");
    project.call(&["audit", "--threads", "1"]).ok().says("10 stages audited: every byte is the same");
    project.call(&["audit", "pipeline.yaml", "pretrain"]).ok().says("1 stage audited");
    assert_eq!(project.read("pipeline.lock"), lockfile);
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn an_audit_names_what_differs_and_leaves_the_cache_alone() {
    let project = Project::new().write(
        "pipeline.yaml",
        r#"version: 1
name: dice
stages:
  fixed:
    uses: command
    with: { run: [sh, -c, 'echo fixed >> executed.txt; echo 1 > "$SIMSIAM_PIPE_OUTPUT/x"'], outputs: [x] }
  dice:
    uses: command
    inputs: { fixed: fixed }
    with: { run: [sh, -c, 'echo dice >> executed.txt; cd "$SIMSIAM_PIPE_OUTPUT"; mkdir d; echo same > d/same; (echo head; date +%N) > d/other; touch "d/$(date +%N)"'], outputs: [d] }
"#,
    );
    project.call(&["audit"]).code(2).says("the cache does not hold what `fixed`, `dice` would leave now");
    project.call(&["run"]).ok();
    let before = project.read("runs/dice/dice/manifest.json");
    let called = project.call(&["audit"]).code(7).says("1 of 2 audited stages left other bytes");
    let called = called.says("the same bytes").says("differs from the cache").says("`d/other` differs from byte ");
    called.says("was not made this time").says("was made that is not in the cache");
    assert_eq!(project.read("runs/dice/dice/manifest.json"), before);
    project.executed();
    project.call(&["audit", "fixed"]).ok();
    assert_eq!(project.executed(), ["fixed"]);
    project.call(&["run"]).ok().says("2 restored");
    project.call(&["cache", "verify"]).ok();
    let json = project.call(&["--json", "audit"]).code(7).stdout;
    let first = serde_json::Deserializer::from_str(&json).into_iter::<serde_json::Value>().next().unwrap().unwrap();
    assert_eq!(first["stages"][0]["differences"], serde_json::json!([]));
}
