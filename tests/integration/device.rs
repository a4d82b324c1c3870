//! Where to compute: what a pipeline and the command line may say, and what is said where there is no such device.

use super::fixture::Project;

#[test]
fn a_device_that_is_not_there_stops_a_run_before_it_begins() {
    let project = Project::with_two_stages();
    let refused = |called: super::fixture::Called| {
        called.code(2).says("`cuda:7` cannot be used: ").says("`simsiam-pipe doctor`").says("--device cpu");
    };
    refused(project.call(&["run", "--device", "cuda:7"]));
    project.edit("pipelines/words.yaml", "stages:\n", "device: cuda:7\nstages:\n");
    refused(project.call(&["run"]));
    assert!(!project.path("executed.txt").exists());
    project.call(&["run", "--device", "cpu"]).ok();
    project.call(&["run", "--device", "gpu"]).code(2).says("`gpu` is no device: write `auto`, `cpu` or `cuda:N`");
    project.call(&["run", "--precision", "fp16"]).code(2).says("write `f32`, `tf32`, `bf16` or `f16`");
}

#[test]
fn devices_and_precisions_are_words_and_decide_no_result() {
    let project = Project::with_two_stages();
    project.call(&["run"]).ok();
    project.edit("pipelines/words.yaml", "stages:\n", "device: cpu\nprecision: f32\nstages:\n");
    project.call(&["plan"]).ok().prints("everything is up to date");
    project.call(&["plan", "--set", "device=auto", "--set", "precision=tf32"]).ok().prints("everything is up to date");
    project.edit("pipelines/words.yaml", "device: cpu\nprecision: f32\n", "device: [cpu]\nprecision: 16\n");
    let called = project.call(&["plan"]).code(3);
    called.says("`device` must be a word").says("`16` is no precision: write `f32`, `tf32`, `bf16` or `f16`");
}

#[test]
fn doctor_says_what_computes() {
    let project = Project::new();
    let health = project.call(&["doctor", "--json"]).ok();
    let health: serde_json::Value = serde_json::from_str(&health.stdout).unwrap();
    let gpus = health["gpus"].as_array().unwrap();
    assert_eq!(gpus.iter().any(|gpu| gpu["usable"] == true), health.get("no_gpu_because").is_none(), "{health}");
    if cfg!(not(feature = "cuda")) {
        project.call(&["doctor"]).ok().prints("none that can be used: this program was built without CUDA");
    }
}
