//! `predict` on what a real pipeline leaves, and `bench`.

use serde_json::Value;

use super::fixture::Project;

/// Everything as small as it may be; one classifier of each protocol.
pub(crate) const TINY: &str = "version: 1
name: tiny
stages:
  train: { uses: ingest, with: { source: { synthetic_scenes: { images_per_class: 4, image_size: 16, split: train } } } }
  test: { uses: ingest, with: { source: { synthetic_scenes: { images_per_class: 2, image_size: 16, split: test } } } }
  views: { uses: augment, with: { image_size: 16, ops: [{ horizontal_flip: {} }, { color_jitter: { brightness: 0.4 } }] } }
  pretrain:
    uses: pretrain
    inputs: { dataset: train, augmentation: views }
    with:
      backbone: { darknet_tiny: {} }
      projector: { hidden_dim: 16, output_dim: 16, num_layers: 2 }
      predictor: { hidden_dim: 8 }
      epochs: 1
      batch_size: 8
  embeddings: { uses: extract, inputs: { encoder: pretrain, train: train, test: test } }
  probe: { uses: fit, inputs: { embeddings: embeddings }, with: { linear_probe: { max_iter: 20 } } }
  knn: { uses: fit, inputs: { embeddings: embeddings }, with: { knn: { k: 3 } } }
  tuned:
    uses: fit
    inputs: { encoder: pretrain, train: train, test: test }
    with: { fine_tune: { train: { epochs: 1, batch_size: 4 } } }
  scratch:
    uses: fit
    inputs: { train: train, test: test, augmentation: views }
    with: { supervised: { backbone: { darknet_tiny: {} }, train: { epochs: 1, batch_size: 4 } } }
";

pub(crate) fn put_picture(project: &Project, name: &str, shade: u8) {
    let path = project.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8, 10 * y as u8, shade])).save(path).unwrap();
}

#[test]
fn every_protocol_leaves_a_classifier_that_predicts() {
    let project = Project::new().write("pipelines/tiny.yaml", TINY);
    put_picture(&project, "photos/a.png", 0);
    put_picture(&project, "photos/b.png", 200);
    project.call(&["run", "-q"]).ok();
    for stage in ["probe", "knn", "tuned", "scratch"] {
        let model = format!("runs/tiny/{stage}");
        let called = project.call(&["predict", "--model", &model, "--json", "--top", "2", "photos"]).ok();
        let lines: Vec<Value> = called.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let files: Vec<&str> = lines.iter().filter_map(|line| line["file"].as_str()).collect();
        assert_eq!(files, ["photos/a.png", "photos/b.png"], "{stage}");
        for line in &lines {
            let predictions = line["predictions"].as_array().unwrap();
            let first = predictions[0]["probability"].as_f64().unwrap();
            let second = predictions[1]["probability"].as_f64().unwrap();
            assert!(predictions.len() == 2 && first >= second && first + second <= 1.0 + 1e-6, "{stage}: {line}");
        }
    }

    project.put("photos/broken.png", "no picture");
    let called = project.call(&["predict", "--model", "runs/tiny/probe", "photos"]).code(4);
    assert_eq!(called.stdout.lines().count(), 2);
    called.says("`photos/broken.png`: ").says("1 of 3 images could not be used");
    project
        .call(&["predict", "--model", "runs/tiny/pretrain", "photos"])
        .code(2)
        .says("is not the artifact of a `fit` stage");
}

#[test]
fn throughput_is_measured_anywhere_and_leaves_nothing() {
    let project = Project::new();
    put_picture(&project, "photos/a.png", 0);
    put_picture(&project, "photos/b.png", 200);
    let figures = |args: &[&str]| -> Value {
        let called = project.call(&[&["bench"], args, &["--threads", "1", "--json"]].concat()).ok();
        assert_eq!(called.stdout.lines().count(), 1);
        serde_json::from_str(&called.stdout).unwrap()
    };
    for work in ["augment", "ingest"] {
        let found = figures(&[work, "--images", "photos"]);
        assert!(found["images_per_second"].as_f64().unwrap() > 0.0 && found["images_per_step"] == 2, "{found}");
    }
    let size = ["--backbone", "darknet_tiny", "--image-size", "16", "--batch-size", "4", "--steps", "2"];
    let found = figures(&[&["extract"][..], &size].concat());
    assert_eq!(found["step_seconds"].as_array().unwrap().len(), 2);
    for name in ["peak_rss_mib", "gflop_per_step", "gflops", "gemm_peak_gflops", "share_of_peak"] {
        assert!(found[name].as_f64().unwrap() > 0.0, "{name}: {found}");
    }
    assert!(!project.path(".simsiam-pipe").exists() && !project.path("runs").exists());
    project.call(&["bench", "augment", "--images", "nowhere"]).code(4).says("folder `nowhere` does not exist");
    project.call(&["bench", "extract", "--image-size", "16", "--backbone", "resnet99"]).code(2);
}
