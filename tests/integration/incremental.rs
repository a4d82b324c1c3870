//! New photographs in a folder: only they are read and embedded, and the artifacts are those of a full run.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

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

/// Runs again, where `images` says how many are taken of how many, and once more with an empty cache: the same digest.
fn run_again(project: &Project, images: &str) {
    project.call(&["run"]).ok().says(&format!("{images} images are as before"));
    let after = artifacts(project);
    let fresh = format!("fresh-{}", images.replace(' ', "-"));
    let full = project.call(&["--cache-dir", &fresh, "run"]).ok();
    assert!(!full.stderr.contains("images are as before"), "{}", full.stderr);
    assert_eq!(artifacts(project), after, "{images}");
}

#[test]
fn a_table_that_changes_needs_only_its_new_files() {
    let source = "{ manifest: { path: table.csv, images: data, split: train } }";
    let stage = format!("uses: ingest, with: {{ source: {source}, resize: {{ shorter_side: 9 }} }}");
    let project = Project::new()
        .write("pipeline.yaml", &format!("version: 1\nname: p\nstages:\n  data: {{ {stage} }}\n"))
        .write("table.csv", "path,label,split\nb.png,sea,train\na.png,wood,train\nc.png,sea,test\n");
    for (name, look) in [("a.png", 1), ("b.png", 80), ("c.png", 160)] {
        photo(&project, name, look);
    }
    project.call(&["run"]).ok();

    // Another order, another class, a row of another split that is now of this one, and a new file.
    photo(&project, "d.png", 240);
    let table = "path,label,split\na.png,road,train\nd.png,sea,train\nc.png,sea,train\nb.png,sea,train\n";
    fs::write(project.path("table.csv"), table).unwrap();
    run_again(&project, "2 of 4");

    // Other bytes under the same name, and two files that change names.
    photo(&project, "a.png", 7);
    fs::rename(project.path("data/b.png"), project.path("data/e.png")).unwrap();
    fs::rename(project.path("data/c.png"), project.path("data/b.png")).unwrap();
    fs::write(project.path("table.csv"), table.replace("c.png", "e.png")).unwrap();
    run_again(&project, "3 of 4");
}

#[test]
fn a_list_that_changes_needs_only_its_new_files() {
    let list = "{ file_list: { path: list.txt, keep: listed } }";
    let stage = format!("uses: ingest, with: {{ source: {{ image_folder: data }}, subset: {list} }}");
    let project = Project::new()
        .write("pipeline.yaml", &format!("version: 1\nname: p\nstages:\n  data: {{ {stage} }}\n"))
        .write("list.txt", "sea/1.png\nsea/2.png\n");
    for idx in 0..4 {
        photo(&project, &format!("sea/{idx}.png"), idx * 60);
    }
    project.call(&["run"]).ok();
    fs::write(project.path("list.txt"), "sea/3.png\nsea/2.png\nsea/1.png\n").unwrap();
    run_again(&project, "2 of 3");
    fs::write(project.path("list.txt"), "sea/2.png\n").unwrap();
    run_again(&project, "1 of 1");
}

#[test]
fn what_was_damaged_is_not_taken() {
    let project = photos();
    project.call(&["run"]).ok();
    let artifact = fs::canonicalize(project.path("runs/photos/photos")).unwrap();
    let pixels = artifact.join("pixels/00000.bin");
    // A bit flips on the disk: neither size nor time change.
    let modified = fs::metadata(&pixels).unwrap().modified().unwrap();
    let writable = |path: &std::path::Path| {
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).unwrap();
    };
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

const MANY: &str = "\
version: 1
name: many
stages:
  photos:
    uses: ingest
    with: { source: { image_folder: data } }
";

/// A stage over enough photographs for several files of pixels.
fn many() -> Project {
    let project = Project::new().write("pipeline.yaml", MANY);
    for idx in 0..150_u32 {
        let path = project.path(&format!("data/{}/{idx:03}.png", ["sea", "wood"][idx as usize % 2]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(6, 5, |x, y| image::Rgb([(idx * 9 + x) as u8, (idx + y * 7) as u8, 3]))
            .save(path)
            .unwrap();
    }
    project
}

/// Number and names of each file of pixels of the last run, by name.
fn pixel_files(project: &Project) -> BTreeMap<String, (u64, u64)> {
    let list = fs::read_dir(project.path("runs/many/photos/pixels")).unwrap().map(Result::unwrap);
    list.map(|file| {
        let meta = file.metadata().unwrap();
        (file.file_name().into_string().unwrap(), (meta.ino(), meta.nlink()))
    })
    .collect()
}

#[test]
fn files_that_are_as_before_are_shared_and_both_artifacts_stay_whole() {
    let project = many();
    project.call(&["run"]).ok();
    let before = pixel_files(&project);
    photo(&project, "wood/149a.png", 7);
    project.call(&["run"]).ok().says("150 of 151 images are as before, 1 new");
    let after = pixel_files(&project);
    let shared = after.values().filter(|(_, names)| *names == 2).count();
    assert!(after.len() >= 5 && shared + 2 >= after.len(), "{before:?} {after:?}");
    project.call(&["cache", "verify"]).ok();
    project.call(&["run"]).ok().says("0 ran");

    // Going back is a hit, and what is deleted does not take what the other needs.
    fs::remove_file(project.path("data/wood/149a.png")).unwrap();
    project.call(&["run"]).ok().says("0 ran");
    project.call(&["cache", "gc"]).ok();
    let alike = fs::read_dir(project.path(".simsiam-pipe/alike")).unwrap().map(|file| file.unwrap().path());
    let listed: Vec<String> = alike
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(listed.len(), 1, "one entry is left: {listed:?}");
    assert!(project.path(&format!(".simsiam-pipe/entries/{}.json", listed[0])).exists());
    assert!(pixel_files(&project).values().all(|(_, names)| *names == 1));
    project.call(&["cache", "verify"]).ok();
    let ours = artifacts(&project);
    project.call(&["--cache-dir", "fresh", "run"]).ok();
    assert_eq!(artifacts(&project), ours);
}

#[test]
fn an_edit_shows_in_every_artifact_that_shares_the_file() {
    let project = many();
    project.call(&["run"]).ok();
    photo(&project, "wood/149a.png", 7);
    project.call(&["run"]).ok();
    let shared = pixel_files(&project).into_iter().find(|(_, (_, names))| *names == 2).unwrap().0;
    let path = fs::canonicalize(project.path("runs/many/photos/pixels")).unwrap().join(shared);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
    permissions.set_readonly(false);
    fs::set_permissions(&path, permissions).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();

    let verify = project.call(&["cache", "verify"]).code(5);
    assert_eq!(verify.stdout.matches("has other bytes").count() + verify.stderr.matches("has other bytes").count(), 2);
    project.call(&["run"]).ok().says("was changed by somebody").says("1 ran");
    // The other artifact is damaged still; who takes from it notices.
    photo(&project, "wood/149b.png", 8);
    project.call(&["run"]).ok().says("151 of 152 images are as before, 1 new");
    let ours = artifacts(&project);
    project.call(&["--cache-dir", "fresh", "run"]).ok();
    assert_eq!(artifacts(&project), ours);
    fs::remove_file(project.path("data/wood/149a.png")).unwrap();
    fs::remove_file(project.path("data/wood/149b.png")).unwrap();
    project.call(&["run"]).ok().says("was changed by somebody").says("1 ran");
    project.call(&["cache", "verify"]).ok();
}
