//! New photographs in a folder: only they are read and embedded, and the artifacts are those of a full run.

use std::{collections::BTreeMap, fs};

use crate::fixture::Project;

const PHOTOS: &str = "\
version: 1
name: photos
stages:
  scenes:
    uses: ingest
    with:
      source: { synthetic_scenes: { images_per_class: 2, image_size: 16, split: train } }
  views:
    uses: augment
    with:
      image_size: 16
      ops: [{ random_resized_crop: {} }]
  pretrain:
    uses: pretrain
    inputs: { dataset: scenes, augmentation: views }
    with:
      backbone: { darknet_tiny: {} }
      projector: { hidden_dim: 16, output_dim: 16, num_layers: 2 }
      predictor: { hidden_dim: 8 }
      epochs: 1
      batch_size: 8
  photos:
    uses: ingest
    with:
      source: { image_folder: data }
      resize: { exact: { width: 20, height: 20 } }
      on_error: skip
  embeddings:
    uses: extract
    inputs: { encoder: pretrain, train: photos }
";

fn photo(project: &Project, name: &str, look: u8) {
    let path = project.path(&format!("data/{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_fn(24, 22, |x, y| image::Rgb([(x * 10) as u8, (y * 11) as u8, look])).save(path).unwrap();
}

fn photos() -> Project {
    let project = Project::new().write("pipeline.yaml", PHOTOS);
    for idx in 0..20 {
        photo(&project, &format!("{}/{idx}.png", ["sea", "wood"][idx % 2]), idx as u8 * 12);
    }
    project
}

/// The digest of each stage's artifact, from the lockfile.
fn artifacts(project: &Project) -> BTreeMap<String, String> {
    let lockfile: serde_json::Value = serde_yaml::from_str(&project.read("pipeline.lock")).unwrap();
    let stages = lockfile["stages"].as_object().unwrap();
    stages.iter().map(|(name, stage)| (name.clone(), stage["artifact"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn only_what_is_new_is_worked_on_and_the_result_is_that_of_a_full_run() {
    let project = photos();
    project.call(&["run"]).ok();

    photo(&project, "sea/100.png", 5);
    photo(&project, "road/1.png", 7);
    fs::rename(project.path("data/sea/0.png"), project.path("data/road/0.png")).unwrap();
    fs::remove_file(project.path("data/wood/3.png")).unwrap();
    fs::write(project.path("data/wood/5.png"), "broken").unwrap();
    project
        .call(&["run"])
        .ok()
        .says("18 of 21 images are as before, 3 new")
        .says("18 of 20 images are as before, 2 new");
    let after = artifacts(&project);

    let full = project.call(&["--cache-dir", "fresh", "run"]).ok();
    assert!(!full.stderr.contains("images are as before"), "{}", full.stderr);
    assert_eq!(artifacts(&project), after);

    // Who does not believe the cache gets everything anew.
    let forced = project.call(&["run", "--force", "photos", "--force", "embeddings"]).ok();
    assert!(!forced.stderr.contains("images are as before"), "{}", forced.stderr);
    assert_eq!(artifacts(&project), after);
}

#[test]
fn what_was_damaged_is_not_taken() {
    let project = photos();
    project.call(&["run"]).ok();
    let artifact = fs::canonicalize(project.path("runs/photos/photos")).unwrap();
    let pixels = artifact.join("images.safetensors");
    // A bit flips on the disk: neither size nor time change.
    let modified = fs::metadata(&pixels).unwrap().modified().unwrap();
    let writable = |path: &std::path::Path| {
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).unwrap();
    };
    writable(&artifact);
    writable(&pixels);
    let mut bytes = fs::read(&pixels).unwrap();
    bytes[700] ^= 4;
    fs::write(&pixels, bytes).unwrap();
    fs::File::options().write(true).open(&pixels).unwrap().set_modified(modified).unwrap();

    photo(&project, "sea/100.png", 5);
    project
        .call(&["run"])
        .ok()
        .says("the earlier dataset is damaged: every image is read again")
        .says("the earlier embeddings or their images are damaged: every image is embedded again");
    let after = artifacts(&project);
    project.call(&["--cache-dir", "fresh", "run"]).ok();
    assert_eq!(artifacts(&project), after);
}
