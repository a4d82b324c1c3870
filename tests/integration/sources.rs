//! Every kind of source through the program: a run, a second one that does nothing, one after a change, and mistakes.

use std::{fs, io::Cursor};

use crate::fixture::{Called, Project};

fn png(look: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    let image = image::RgbImage::from_fn(12, 10, |x, _| image::Rgb([look, x as u8 * 9, 3]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn put(project: &Project, name: &str, bytes: impl AsRef<[u8]>) {
    let path = project.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn ingest(source: &str) -> Project {
    let text = format!("version: 1\nname: p\nstages:\n  data:\n    uses: ingest\n    with: {{ source: {source} }}\n");
    Project::new().write("pipeline.yaml", &text)
}

/// Runs, runs again, and runs after `change`; what the last run said.
fn run_and_change(project: &Project, images: usize, change: impl Fn()) -> Called {
    project.call(&["run"]).ok().says(&format!("{images} images"));
    project.call(&["run"]).ok().says("restored");
    change();
    let planned = project.call(&["plan"]).ok();
    assert!(planned.stdout.contains("run"), "{}", planned.stdout);
    project.call(&["run"]).ok()
}

#[test]
fn a_table_of_files() {
    let project = ingest("{ manifest: { path: lists/t.csv, images: photos, split: train } }");
    (0..4).for_each(|idx| put(&project, &format!("photos/{idx}.png"), png(idx)));
    let table = "path,label,split\n0.png,sea,train\n1.png,wood,train\n2.png,sea,test\n";
    put(&project, "lists/t.csv", table);
    run_and_change(&project, 2, || put(&project, "lists/t.csv", format!("{table}3.png,sea,train\n"))).says("3 images");
    put(&project, "lists/t.csv", "path,label,split\n0.png,sea,train\n../0.png,sea,train\n");
    project.call(&["run"]).code(4).says("row 2 of").says("below the folder of images");
    fs::remove_file(project.path("lists/t.csv")).unwrap();
    project.call(&["run"]).code(4).says("stages.data.with.source.manifest.path").says("does not exist");
    fs::create_dir(project.path("lists/t.csv")).unwrap();
    project.call(&["run"]).code(4).says("is a folder, not a file");
}

#[test]
fn a_folder_without_labels() {
    let project = ingest("{ flat_folder: photos }");
    (0..3).for_each(|idx| put(&project, &format!("photos/{idx}/x.png"), png(idx)));
    let called = run_and_change(&project, 3, || put(&project, "photos/new.png", png(9))).says("4 images");
    // What was there before is taken from the artifact before.
    called.says("3 of 4 images are as before, 1 new");
}

#[test]
fn cifar_100() {
    let project = ingest("{ cifar100: { path: c, split: test, labels: coarse } }");
    let record: Vec<u8> = [3, 50].into_iter().chain([7; 3072]).collect();
    put(&project, "c/test.bin", &record);
    run_and_change(&project, 1, || put(&project, "c/test.bin", record.repeat(2))).says("2 images");
    put(&project, "c/test.bin", &record[1..]);
    project.call(&["run"]).code(4).says("records of 3074 bytes");
}

#[test]
fn idx_and_npy_arrays() {
    let project = ingest("{ idx: { images: i.idx, labels: l.idx } }");
    let head = |kind: &[u8]| [&[0, 0, 8][..], kind].concat();
    put(&project, "i.idx", [head(&[3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2]), (0..12).collect()].concat());
    put(&project, "l.idx", [head(&[1, 0, 0, 0, 2]), vec![4, 5]].concat());
    run_and_change(&project, 2, || put(&project, "l.idx", [head(&[1, 0, 0, 0, 2]), vec![4, 4]].concat()))
        .says("1 class");
    put(&project, "i.idx", b"\x1f\x8b\x08\x00\x00");
    project.call(&["run"]).code(4).says("compressed with gzip").says("unpack it first");

    let project = ingest("{ npy: { images: i.npy } }");
    let mut npy =
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2, 3), }".to_vec();
    npy.resize(10 + 0x46, b' ');
    put(&project, "i.npy", [&npy[..], &[9; 12]].concat());
    project.call(&["run"]).ok().says("1 image");
    put(&project, "i.npy", &npy);
    project.call(&["run"]).code(4).says("does not fit its 80 bytes");
}

#[test]
fn tar_archives() {
    let project = ingest("{ tar_shards: { path: shards } }");
    let shard = |looks: &[u8]| {
        let mut builder = tar::Builder::new(vec![]);
        for look in looks {
            for (name, bytes) in [(format!("{look}.png"), png(*look)), (format!("{look}.cls"), vec![b'0' + look % 2])] {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, &bytes[..]).unwrap();
            }
        }
        builder.into_inner().unwrap()
    };
    put(&project, "shards/a.tar", shard(&[1, 2, 3]));
    run_and_change(&project, 3, || put(&project, "shards/b.tar", shard(&[4]))).says("4 images  2 classes");
    put(&project, "shards/b.tar", &shard(&[4, 6])[..1500]);
    project.call(&["run"]).code(4).says("b.tar` cannot be read as a tar archive");
}

#[test]
fn parts_of_a_folder_share_nothing_and_equal_images_are_told() {
    let project = Project::new().write(
        "pipeline.yaml",
        "\
version: 1
name: p
stages:
  train:
    uses: ingest
    with: { source: { image_folder: photos }, subset: { fraction: { part: train, test_fraction: 0.25 } } }
  test:
    uses: ingest
    inputs: { exclude: train }
    with: { source: { image_folder: photos }, subset: { fraction: { part: test, test_fraction: 0.25 } } }
",
    );
    // Each photograph is there twice, under two names.
    (0..16).for_each(|idx| put(&project, &format!("photos/{}/{idx}.png", ["a", "b"][idx % 2]), png(idx as u8 / 4)));
    project.call(&["run", "--stage", "train"]).ok().says("12 images");
    let called = project.call(&["run"]);
    assert!(called.code == 4 && called.stderr.contains("has the same pixels"), "{}", called.stderr);

    put(&project, "photos/a/100.png", png(200));
    put(&project, "photos/a/102.png", png(201));
    put(&project, "photos/a/104.png", png(202));
    put(&project, "photos/a/106.png", png(203));
    project.edit("pipeline.yaml", "test_fraction: 0.25 } } }\n  test", "test_fraction: 0.25, seed: 3 } } }\n  test");
    project.edit("pipeline.yaml", "part: test, test_fraction: 0.25", "part: test, test_fraction: 0.25, seed: 3");
    project.call(&["run"]).ok().says("are there already and were left out");

    project.put("list.txt", "a/100.png\n");
    project.edit(
        "pipeline.yaml",
        "subset: { fraction: { part: train, test_fraction: 0.25, seed: 3 } }",
        "subset: { file_list: { path: list.txt } }",
    );
    project.call(&["run", "--stage", "train"]).ok().says("1 image");
    project.put("list.txt", "a/100.png\na/102.png\n");
    project.call(&["run", "--stage", "train"]).ok().says("2 images");
    project.edit("pipeline.yaml", "test_fraction: 0.25", "test_fraction: 1.0");
    project.call(&["plan"]).code(3).says("must lie between 0 and 1");
}

#[test]
fn images_in_train_and_test_are_a_warning() {
    let text = "\
version: 1
name: p
stages:
  train: { uses: ingest, with: { source: { image_folder: train } } }
  test: { uses: ingest, with: { source: { image_folder: test } } }
  views: { uses: augment, with: { image_size: 16, ops: [{ random_resized_crop: {} }] } }
  fit:
    uses: fit
    inputs: { train: train, test: test, augmentation: views }
    with: { supervised: { backbone: { darknet_tiny: {} }, train: { epochs: 1, batch_size: 4, optimizer: { adam: {} } } } }
";
    let project = Project::new().write("pipeline.yaml", text);
    for idx in 0..8 {
        put(&project, &format!("train/{}/{idx}.png", ["a", "b"][idx % 2]), png(idx as u8 * 9));
        put(&project, &format!("test/{}/{idx}.png", ["a", "b"][idx % 2]), png(idx as u8 * 9 + u8::from(idx != 6)));
    }
    project.call(&["run"]).ok().says("1 of 8 test images is among the training images, such as `a/6.png`");
}

#[test]
fn a_policy_is_tried_on_an_image() {
    let text = "\
version: 1
stages:
  data: { uses: ingest, with: { source: { image_folder: photos }, resize: { shorter_side: 8 } } }
  views:
    uses: augment
    inputs: { dataset: data }
    with: { preset: simsiam_cifar, preview: { images: 1, views: 3 } }
";
    let project = Project::new().write("pipelines/p.yaml", text);
    put(&project, "cat.png", png(100));
    let sheet = |name: &str| image::open(project.path(name)).unwrap().into_rgb8();
    let try_it = |args: &[&str]| project.call(&[&["augment", "--image", "cat.png", "--policy"][..], args].concat());
    let called = try_it(&["pipelines/p.yaml:views", "--out", "new/sheet.png"]).ok();
    assert_eq!(called.stdout, "new/sheet.png\n");
    assert_eq!(sheet("new/sheet.png").dimensions(), (4 + 32 + 12 + 3 * 36, 4 + 36));
    try_it(&["pipelines/p.yaml:views", "--out", "again.png"]).ok();
    try_it(&["simsiam_cifar", "--out", "no.png", "--set", "stages.views.with.image_size=16"])
        .code(2)
        .says("`--set` changes a pipeline, and `simsiam_cifar` is a preset");
    assert_eq!(sheet("again.png"), sheet("new/sheet.png"));
    try_it(&[
        "pipelines/p.yaml:views",
        "--out",
        "other.png",
        "--seed",
        "5",
        "--set",
        "stages.views.with.image_size=32",
    ])
    .ok();
    assert_ne!(sheet("other.png"), sheet("new/sheet.png"));
    try_it(&["simsiam_tf", "--image", "cat.png", "--views", "1", "--out", "two.png", "--json"])
        .ok()
        .prints("\"images\": 2");
    assert_eq!(sheet("two.png").dimensions(), (4 + 64 + 12 + 68, 4 + 2 * 68));

    // The artifact of a run holds the same policy.
    put(&project, "photos/a/1.png", png(1));
    project.call(&["run", "pipelines/p.yaml"]).ok();
    try_it(&["runs/p/views", "--views", "3", "--out", "artifact.png"]).ok();

    try_it(&["nothing", "--out", "x.png"]).code(2).says("`simsiam_imagenet`");
    try_it(&["pipelines/p.yaml:data", "--out", "x.png"]).code(2).says("its policies are `pipelines/p.yaml:views`");
    try_it(&["pipelines/no.yaml:views", "--out", "x.png"]).code(2).says("did you mean");
    put(&project, "cat.png", b"no image");
    try_it(&["simsiam_tf", "--out", "x.png"]).code(4).says("`cat.png` cannot be used: its content is not JPEG");
}
