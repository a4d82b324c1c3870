//! Weights that come from elsewhere, and models that leave.

use super::{fixture::Project, predict::TINY};

/// The tiny pipeline, whose pretraining starts from the file `weights`.
fn starting_from(weights: &str) -> String {
    TINY.replace(
        "backbone: { darknet_tiny: {} }\n      projector",
        &format!("backbone: {{ darknet_tiny: {{}} }}\n      init: {weights}\n      projector"),
    )
}

#[test]
fn pretraining_starts_from_weights_whose_content_counts() {
    let project = Project::new().write("pipelines/tiny.yaml", TINY);
    project.call(&["run", "-q", "--stage", "pretrain"]).ok();
    let read = |name: &str| std::fs::read(project.path(name)).unwrap();
    let random = read("runs/tiny/pretrain/encoder.safetensors");
    project.put("weights/a.safetensors", "");
    std::fs::write(project.path("weights/a.safetensors"), &random).unwrap();
    std::fs::write(project.path("weights/b.safetensors"), &random).unwrap();

    project.put("pipelines/tiny.yaml", &starting_from("weights/a.safetensors"));
    project.call(&["run", "--stage", "pretrain"]).ok().says("the backbone starts from `weights/a.safetensors`");
    let trained = read("runs/tiny/pretrain/encoder.safetensors");
    assert_ne!(trained, random);
    assert!(project.read("runs/tiny/pretrain/encoder.json").contains("\"init\": \""));

    // The same bytes under another name are the same weights; other bytes are not.
    project.put("pipelines/tiny.yaml", &starting_from("weights/b.safetensors"));
    project.call(&["plan", "--stage", "pretrain"]).ok().prints("everything is up to date");
    std::fs::write(project.path("weights/b.safetensors"), &trained).unwrap();
    project.call(&["plan", "--stage", "pretrain"]).ok().prints("init");

    // The backbone's part of the whole model does as well.
    let whole = project.path("runs/tiny/pretrain/simsiam.safetensors");
    std::fs::copy(whole, project.path("weights/whole.safetensors")).unwrap();
    project.put("pipelines/tiny.yaml", &starting_from("weights/whole.safetensors"));
    project.call(&["run", "-q", "--stage", "pretrain"]).ok();
}

#[test]
fn weights_that_do_not_fit_are_explained() {
    let project = Project::new().write("pipelines/tiny.yaml", &starting_from("weights.safetensors"));
    let run = || project.call(&["run", "--stage", "pretrain"]).code(4);
    run().says("weights.safetensors");
    project.put("weights.safetensors", "no tensors");
    run().says("`init: weights.safetensors` cannot be used: `weights.safetensors` is not a readable safetensors file");
    // A header for sixteen bytes of which there are four.
    let header = r#"{"conv1.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    std::fs::write(project.path("weights.safetensors"), [&bytes[..], &[0; 4]].concat()).unwrap();
    run().says("is not a readable safetensors file");
    std::fs::write(project.path("weights.safetensors"), [&bytes[..], &[0; 16]].concat()).unwrap();
    run().says("missing `block1.bn1.bias`").says("unexpected `conv1.weight`").says("of the same backbone");
    assert!(!project.path("runs/tiny/pretrain").exists());
}
