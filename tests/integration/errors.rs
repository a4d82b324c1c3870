//! Mistakes of the user: each has its exit code, its place and a way out.

use crate::fixture::Project;

#[test]
fn a_missing_source_names_stage_place_and_root_before_anything_runs() {
    let project = Project::with_two_stages();
    std::fs::remove_file(project.path("data/words.txt")).unwrap();
    let called = project.call(&["run"]).code(4);
    insta::assert_snapshot!("missing_source", called.stderr);
    assert_eq!(project.executed(), [""; 0]);
}

#[test]
fn an_empty_folder_of_images_is_named() {
    let project = Project::new().write(
        "pipeline.yaml",
        "version: 1\nname: x\nstages:\n  train:\n    uses: ingest\n    with: { source: { image_folder: images } }\n",
    );
    std::fs::create_dir(project.path("images")).unwrap();
    project.call(&["plan"]).code(4).says("`stages.train.with.source.image_folder`: `images` holds no files");
}

#[test]
fn a_wrong_key_is_shown_in_the_file() {
    let project = Project::with_two_stages();
    project.edit("pipelines/words.yaml", "outputs: [words.txt]", "output: [words.txt]");
    project.call(&["run"]).code(3).says("pipelines/words.yaml").says("did you mean `outputs`?");
}

#[test]
fn a_missing_or_doubtful_pipeline_is_a_usage_error() {
    let project = Project::new();
    project.call(&["run"]).code(2).says("there is no pipeline here");
    let project = Project::with_two_stages();
    project.call(&["run", "pipelines/wrods.yaml"]).code(2).says("did you mean `pipelines/words.yaml`?");
    project.put("pipelines/other.yaml", "");
    project.call(&["run"]).code(2).says("which pipeline? there are `pipelines/other.yaml`, `pipelines/words.yaml`");
    project.call(&["run", "pipelines"]).code(2).says("is a folder");
    project.call(&["fly"]).code(2);
    project.call(&["-C", "nowhere", "run"]).code(6).says("cannot enter `nowhere`");
}

#[test]
fn a_lockfile_in_conflict_is_a_clear_error() {
    let project = Project::with_two_stages();
    project.put("pipelines/words.lock", "version: 1\nstages:\n<<<<<<< HEAD\n");
    project.call(&["run"]).code(3).says("line 3 begins a merge conflict").says("delete the file");
}
