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

#[test]
fn the_page_about_interchange_is_right_about_its_commands() {
    let project = Project::new();
    for (split, count) in [("train", 12_u32), ("test", 3)] {
        for (class, slope) in [("across", 0), ("diagonal", 1), ("down", 7)] {
            for idx in 0..count {
                let path = project.path(&format!("data/{split}/{class}/{idx}.png"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let shade = |x: u32, y: u32| ((x + slope * y + idx) * 37 % 256) as u8;
                image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([shade(x, y), shade(y, x), 99])).save(path).unwrap();
            }
        }
    }
    let page = include_str!("../../docs/interchange.md");
    let blocks: Vec<(&str, &str)> = page
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').unwrap())
        .filter(|(kind, _)| ["yaml", "console", "python"].contains(kind))
        .collect();
    let pipeline = blocks.iter().find(|(kind, text)| *kind == "yaml" && text.starts_with("version:")).unwrap().1;
    project.put("pipelines/pictures.yaml", pipeline);
    let mut called = 0;
    for line in blocks.iter().filter(|(kind, _)| *kind == "console").flat_map(|(_, text)| text.lines()) {
        let words: Vec<&str> = line.strip_prefix("$ simsiam-pipe ").unwrap().split(' ').collect();
        project.call(&words).ok();
        called += 1;
    }
    assert!(called > 8, "{called}");
    let onnx = std::fs::read(project.path("probe.onnx")).unwrap();
    let encoder = std::fs::read(project.path("encoder.onnx")).unwrap();
    assert!(onnx.len() > encoder.len() && encoder.len() > 40_000_000);
    assert_eq!(project.read("embeddings.csv").lines().count(), 1 + 36 + 9);
    let files = super::fixture::names(&project.path("projector"));
    assert_eq!(files, ["metadata.tsv", "projector_config.pbtxt", "sprite.png", "vectors.tsv"]);
    // Whatever is not an `extract` stage, or is taken already, is refused.
    project
        .call(&["export", "probe", "--format", "csv", "--to", "x.csv"])
        .code(2)
        .says("not the artifact of an `extract`");
    project.call(&["export", "train", "--format", "onnx", "--to", "x.onnx"]).code(2).says("holds no network");
    project.call(&["export", "embeddings", "--format", "projector", "--to", "projector"]).code(6);
}
