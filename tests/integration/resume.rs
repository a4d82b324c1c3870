//! Pretraining that was interrupted ends with the bits of one that was not.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{Called, Project, names},
    stages::pretraining_only,
};

const ENCODER: &str = "runs/tiny/pretrain/encoder.safetensors";

/// Long enough to be interrupted: 12 epochs of 7 steps.
fn project() -> Project {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    project.edit("pipeline.yaml", "epochs: 2", "epochs: 12");
    project.edit("pipeline.yaml", "images_per_class: 4", "images_per_class: 8");
    project.edit("pipeline.yaml", "knn_monitor: { every_epochs: 1, k: 5 }", "knn_monitor: { every_epochs: 6, k: 5 }");
    project
}

/// What an undisturbed run leaves: encoder, both heads, history, lockfile.
fn undisturbed() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let project = project();
        project.call(&["run", "--threads", "1"]).ok();
        files(&project)
    })
}

fn files(project: &Project) -> Vec<Vec<u8>> {
    let others = ["runs/tiny/pretrain/simsiam.safetensors", "runs/tiny/pretrain/history.jsonl", "pipeline.lock"];
    [ENCODER].iter().chain(&others).map(|name| fs::read(project.path(name)).unwrap()).collect()
}

#[track_caller]
fn same_bits(project: &Project) {
    let (found, expected) = (files(project), undisturbed());
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found == expected, "file {idx} differs from the undisturbed run's");
    }
}

fn start(project: &Project) -> Child {
    start_with(project, &["run"])
}

fn start_with(project: &Project, args: &[&str]) -> Child {
    project.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Checkpoints in the work folder, oldest first.
fn checkpoints(project: &Project) -> Vec<PathBuf> {
    let work = project.path(".simsiam-pipe/work");
    let mut found: Vec<PathBuf> = names(&work)
        .iter()
        .flat_map(|name| names(&work.join(name)).into_iter().map(move |file| PathBuf::from(name).join(file)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ckpt"))
        .map(|path| work.join(path))
        .collect();
    found.sort();
    found
}

#[track_caller]
fn wait_for_checkpoints(project: &Project, child: &mut Child, count: usize) {
    let started = Instant::now();
    while checkpoints(project).len() < count {
        assert!(started.elapsed() < Duration::from_mins(1), "no checkpoint appeared");
        assert!(child.try_wait().unwrap().is_none(), "the training ended before it could be interrupted");
        thread::sleep(Duration::from_millis(2));
    }
}

fn interrupt(child: Child, name: &str, project: &Project) -> Called {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    project.finish(child.wait_with_output().unwrap())
}

#[test]
fn a_killed_training_goes_on_and_ends_with_the_same_bits() {
    let project = project();
    let mut child = start(&project);
    wait_for_checkpoints(&project, &mut child, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!project.path("runs/tiny/pretrain").exists(), "half a result is visible");
    project.call(&["run"]).ok().says("resuming after epoch");
    same_bits(&project);
    assert_eq!(checkpoints(&project), [""; 0].map(PathBuf::from), "checkpoints of a finished training are waste");
}

#[test]
fn ctrl_c_in_the_middle_of_an_epoch_goes_on_there() {
    let project = project();
    let mut child = start(&project);
    wait_for_checkpoints(&project, &mut child, 1);
    let called = interrupt(child, "-INT", &project).code(130);
    called.says("stopped on request").says("the same command goes on where this one stopped");
    // Whether it was just the last batch of an epoch is for the scheduler to say; the words are the same.
    let resumed = project.call(&["run", "--threads", "1"]).ok().says("resuming after epoch");
    assert!(resumed.stderr.contains(" batches"), "{}", resumed.stderr);
    same_bits(&project);
}

#[test]
fn a_training_in_its_own_process_stops_at_a_signal_and_goes_on() {
    let project = project();
    let run = ["run", "--isolate", "--threads", "1"];
    let mut child = start_with(&project, &run);
    wait_for_checkpoints(&project, &mut child, 1);
    let called = interrupt(child, "-TERM", &project).code(143);
    called.says("the same command goes on where this one stopped");
    let resumed = project.call(&run).ok().says("resuming after epoch");
    assert!(resumed.stderr.contains(" batches"), "{}", resumed.stderr);
    same_bits(&project);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_taken() {
    let project = project();
    let mut child = start(&project);
    wait_for_checkpoints(&project, &mut child, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let found = checkpoints(&project);
    let newest = found.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(newest, bytes).unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    let called = project.call(&["run"]).ok().says("warning: `pretrain`: checkpoint `").says("resuming after epoch");
    assert!(called.stderr.contains(name) && called.stderr.contains("is left aside"), "{}", called.stderr);
    same_bits(&project);
}

#[test]
fn with_every_checkpoint_damaged_training_begins_anew() {
    let project = project();
    let mut child = start(&project);
    wait_for_checkpoints(&project, &mut child, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    for path in checkpoints(&project) {
        fs::write(path, "").unwrap();
    }
    let called = project.call(&["run"]).ok().says("is left aside");
    assert!(!called.stderr.contains("resuming"), "{}", called.stderr);
    same_bits(&project);
}
