//! What users get wrong, through the real stages: each has its exit code, names its place, and says what to do.

use std::{fs, io::Write as _, path::Path};

use crate::{
    fixture::{Called, Project, names},
    stages::{TINY, pretraining_only, tiny},
};

/// An error that is no panic, with its code, its place and its way out.
#[track_caller]
fn fails(called: Called, code: i32, place: &str, way_out: &str) {
    let called = called.code(code).says(place).says(way_out);
    assert!(called.stderr.contains("help:"), "{}", called.stderr);
    assert!(!called.stderr.contains("panicked"), "{}", called.stderr);
}

/// A tiny pipeline with one text in place of another.
#[track_caller]
fn edited(from: &str, to: &str) -> Project {
    let project = tiny();
    project.edit("pipeline.yaml", from, to);
    project
}

/// One `ingest` stage over `images`, with more parameters after a comma.
fn ingest(more: &str) -> Project {
    Project::new().write(
        "pipeline.yaml",
        &format!(
            "version: 1\nname: x\nstages:\n  train:\n    uses: ingest\n    with: {{ source: {{ image_folder: images }}{more} }}\n"
        ),
    )
}

/// The tiny pipeline over folders of images instead of drawn scenes.
fn tiny_over_images() -> Project {
    let project = tiny();
    for (count, split) in [(4, "train"), (2, "test")] {
        project.edit(
            "pipeline.yaml",
            &format!("{{ synthetic_scenes: {{ images_per_class: {count}, image_size: 16, split: {split} }} }}"),
            "{ image_folder: images }",
        );
    }
    project
}

fn image(project: &Project, name: &str) {
    let path = project.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let shade = names(path.parent().unwrap()).len() as u8 * 20;
    image::RgbImage::from_fn(20, 16, |x, y| image::Rgb([shade, x as u8 * 12, y as u8 * 15])).save(path).unwrap();
}

fn images(project: &Project, classes: &[&str], count: usize) {
    for class in classes {
        (0..count).for_each(|idx| image(project, &format!("images/{class}/{idx}.png")));
    }
}

/// Two good classes and one more file.
fn with_file(more: &str, name: &str, content: &[u8]) -> Project {
    let project = ingest(more);
    images(&project, &["a", "b"], 3);
    fs::write(project.path(name), content).unwrap();
    project
}

/// A PNG whose header claims a size.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(&header);
    file.extend(crc32(&header).to_be_bytes());
    // The decoder wants to see where the pixels begin.
    file.extend(b"\0\0\0\0IDAT");
    file.extend(crc32(b"IDAT").to_be_bytes());
    file
}

/// The checksum of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Names of cached entries.
fn num_entries(project: &Project) -> usize {
    names(&project.path(".simsiam-pipe/entries")).len()
}

#[test]
fn an_unknown_key() {
    let project = edited("batch_size: 8\n      optim", "batchsize: 8\n      optim");
    fails(project.call(&["run"]), 3, "pipeline.yaml:30:7", "did you mean `batch_size`?");
    assert!(!project.path("runs").exists());
}

#[test]
fn a_wrong_type() {
    let project = edited("base_lr: 0.5", "base_lr: fast");
    fails(project.call(&["run"]), 3, "pipeline.yaml:31:36", "`base_lr`: learning rate at a batch size of 256");
}

#[test]
fn a_value_out_of_range() {
    let project = edited("batch_size: 8\n      optim", "batch_size: 1\n      optim");
    fails(project.call(&["run"]), 3, "pipeline.yaml:30:19", "between 2 and 65536");
}

#[test]
fn a_stage_that_is_not_there() {
    let project = edited("{ dataset: train, aug", "{ dataset: trian, aug");
    fails(project.call(&["run"]), 3, "there is no stage `trian`", "did you mean `train`?");
}

#[test]
fn an_artifact_of_the_wrong_type() {
    let project = edited(
        "{ encoder: pretrain, train: train, test: test }\n  probe",
        "{ encoder: views, train: train, test: test }\n  probe",
    );
    fails(project.call(&["run"]), 3, "`encoder` takes an encoder, but `views` is an augmentation", "`pretrain`");
}

#[test]
fn a_cycle() {
    let project = Project::new().write(
        "pipeline.yaml",
        "version: 1\nname: x\nstages:\n  a: { uses: command, inputs: { x: b }, with: { run: [\"true\"], outputs: [o] } }\n  \
         b: { uses: command, inputs: { x: a }, with: { run: [\"true\"], outputs: [o] } }\n",
    );
    fails(project.call(&["run"]), 3, "a -> b -> a", "take one of these inputs away");
}

#[test]
fn missing_vars() {
    let project = edited("vars: { epochs: 2 }\n", "");
    fails(project.call(&["run"]), 3, "there is no `vars.epochs`", "--set vars.epochs=");
}

#[test]
fn a_missing_variable_of_the_environment() {
    let project = edited("${vars.epochs}", "${env.SIMSIAM_PIPE_TEST_NOT_SET}");
    fails(project.call(&["run"]), 3, "pipeline.yaml:29:15", ":-default}");
}

#[test]
fn a_missing_folder_of_images() {
    fails(ingest("").call(&["run"]), 4, "pipeline.yaml:6: `stages.train.with.source.image_folder`", "project root");
}

#[test]
fn an_empty_folder() {
    let project = ingest("");
    fs::create_dir(project.path("images")).unwrap();
    fails(project.call(&["run"]), 4, "`images` holds no files", "put the files there");
}

#[test]
fn a_folder_without_images() {
    let project = ingest("").write("images/notes.txt", "nothing to see");
    fails(project.call(&["run"]), 4, "images` holds no images", "put files that end in .jpg");
}

#[test]
fn a_class_with_one_image_works_with_a_warning() {
    let project = ingest("");
    images(&project, &["a", "b"], 3);
    image(&project, "images/c/0.png");
    project.call(&["run"]).ok().says("warning: `train`: class `c` has only one image").says("7 images  3 classes");
}

#[test]
fn a_truncated_jpeg() {
    let mut jpeg = std::io::Cursor::new(vec![]);
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, (x * y) as u8]));
    picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    let half = &jpeg[..jpeg.len() / 2];
    let project = with_file("", "images/a/t.jpg", half);
    fails(project.call(&["run"]), 4, "`a/t.jpg` in `images` cannot be used: the file is cut off", "`on_error: skip`");
    let project = with_file(", on_error: skip", "images/a/t.jpg", half);
    project.call(&["run"]).ok().says("1 of 7 files was left out; the first is `a/t.jpg`").says("1 skipped");
}

#[test]
fn text_named_as_an_image() {
    let project = with_file("", "images/b/t.png", b"this is no image");
    fails(project.call(&["run"]), 4, "`b/t.png` in `images`", "repair or remove the file");
}

#[test]
fn an_image_of_one_pixel_works() {
    let project = tiny_over_images();
    images(&project, &["a", "b"], 6);
    image::RgbImage::from_pixel(1, 1, image::Rgb([9, 9, 9])).save(project.path("images/a/dot.png")).unwrap();
    project.call(&["run"]).ok().says("13 images  2 classes");
}

#[test]
fn a_header_that_claims_sixty_megapixels() {
    let project = with_file("", "images/a/big.png", &png_claiming(10_000, 6000));
    fails(
        project.call(&["run"]),
        4,
        "`a/big.png` in `images` cannot be used: its header says 10000×6000",
        "raise `max_pixels`",
    );
    // Within the limit the lie comes out at the pixels, without memory for them all.
    let project = with_file(", max_pixels: 100000000", "images/a/big.png", &png_claiming(10_000, 6000));
    fails(project.call(&["run"]), 4, "`a/big.png` in `images`", "repair or remove the file");
}

#[test]
fn every_file_broken_and_skipped() {
    let project = ingest(", on_error: skip").write("images/a/1.png", "x").write("images/a/2.png", "y");
    fails(project.call(&["run"]), 4, "none of the 2 images can be used; the first is `a/1.png`", "a viewer opens");
    assert_eq!(num_entries(&project), 0);
}

#[test]
fn a_pipeline_that_is_not_utf8() {
    let project = Project::new();
    fs::write(project.path("pipeline.yaml"), b"version: 1\nname: \xff\xfe\nstages: {}\n").unwrap();
    fails(project.call(&["run"]), 3, "pipeline.yaml:2:7", "save the file as UTF-8");
}

#[test]
fn an_alias_bomb() {
    let mut text = b"version: 1\nname: b\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_vec();
    for idx in 1..12 {
        let inner = vec![format!("*a{}", idx - 1); 9].join(", ");
        writeln!(text, "  a{idx}: &a{idx} [{inner}]").unwrap();
    }
    text.extend(b"stages: {}\n");
    let project = Project::new().write("pipeline.yaml", &String::from_utf8(text).unwrap());
    fails(project.call(&["run"]), 3, "pipeline.yaml:8:7", "remove aliases");
}

#[test]
fn an_empty_pipeline() {
    fails(Project::new().write("pipeline.yaml", "").call(&["run"]), 3, "pipeline.yaml:1:1", "simsiam-pipe init");
}

#[test]
fn a_file_where_the_cache_belongs() {
    let project = tiny().write(".simsiam-pipe", "");
    fails(project.call(&["run"]), 6, "<root>/.simsiam-pipe", "move that file away");
    let project = tiny().write("file", "");
    fails(project.call(&["--cache-dir", "file/cache", "run"]), 6, "file/cache", "--cache-dir");
}

#[test]
fn a_place_that_takes_no_folders() {
    if Path::new("/proc/self").exists() {
        fails(tiny().call(&["--cache-dir", "/proc/simsiam", "run"]), 6, "/proc/simsiam", "--cache-dir");
    }
}

#[test]
fn a_file_where_the_results_belong() {
    let project = tiny().write("runs", "");
    fails(project.call(&["run"]), 6, "<root>/runs", "move that file away");
}

#[test]
fn a_folder_where_the_lockfile_belongs() {
    let project = tiny();
    fs::create_dir(project.path("pipeline.lock")).unwrap();
    fails(project.call(&["run"]), 6, "`pipeline.lock`", "move it away");
}

#[test]
fn a_batch_larger_than_the_dataset() {
    let project = edited("batch_size: 8\n      optim", "batch_size: 64\n      optim");
    fails(project.call(&["run"]), 1, "stage `pretrain` failed: 28 images", "set `batch_size` to at most 28");
}

#[test]
fn one_class_is_nothing_to_fit() {
    let project = tiny_over_images();
    images(&project, &["a"], 10);
    fails(project.call(&["run"]), 4, "all training images are of one class, `a`", "at least two classes");
}

#[test]
fn a_monitor_without_labels_is_left_out_with_a_warning() {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    project.edit(
        "pipeline.yaml",
        "{ synthetic_scenes: { images_per_class: 2, image_size: 16, split: test } }",
        "{ image_folder: images }",
    );
    (0..3).for_each(|idx| image(&project, &format!("images/{idx}.png")));
    let called = project.call(&["run"]).ok().says("warning: `pretrain`: no kNN accuracy while training");
    assert!(called.stderr.contains("no labels"), "{}", called.stderr);
}

#[test]
fn the_smallest_views_train_a_resnet_and_smaller_ones_are_refused() {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    project.edit("pipeline.yaml", "{ darknet_tiny: {} }", "{ resnet18: { stem: imagenet } }");
    project.edit("pipeline.yaml", "      image_size: 16\n", "      image_size: 8\n");
    project.edit("pipeline.yaml", "epochs: 2", "epochs: 1");
    project.call(&["run"]).ok();
    project.edit("pipeline.yaml", "      image_size: 8\n", "      image_size: 4\n");
    fails(project.call(&["run"]), 3, "`image_size` must be a whole number between 8", "width and height of a view");
}

#[test]
fn a_training_that_diverges_fails_and_caches_nothing() {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    project.edit("pipeline.yaml", "base_lr: 0.5", "base_lr: 1000, weight_decay: 1.0");
    project.edit("pipeline.yaml", "epochs: 2", "epochs: 9");
    fails(project.call(&["run"]), 1, "stage `pretrain` failed: the training diverged", "lower `optimizer.sgd.base_lr`");
    assert_eq!(num_entries(&project), 3, "only what came before is cached");
    assert!(!project.path("runs/tiny/pretrain").exists());
    // Again, from its last checkpoint, with the same words.
    fails(project.call(&["run"]), 1, "stage `pretrain` failed: the training diverged", "lower `optimizer.sgd.base_lr`");
}

#[test]
fn a_rate_far_above_the_papers_is_a_warning_that_ends_the_output() {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    let high = "the learning rate is high for the batch: `base_lr: 0.5` makes";
    let called = project.call(&["run"]).ok();
    assert_eq!(called.stderr.matches(high).count(), 2, "when it is noticed and at the end: {}", called.stderr);
    project.edit("pipeline.yaml", "base_lr: 0.5", "base_lr: 0.4");
    let called = project.call(&["run"]).ok();
    assert!(!called.stderr.contains("the learning rate is high"), "{}", called.stderr);
}

#[test]
fn a_collapse_stops_where_the_pipeline_says_so() {
    let project = Project::new().write("pipeline.yaml", &pretraining_only());
    project.edit("pipeline.yaml", "num_layers: 2 }", "num_layers: 2, output_bn: false }");
    project.edit(
        "pipeline.yaml",
        "      knn_monitor:",
        "      collapse: { std_below: 1.0, action: stop }\n      knn_monitor:",
    );
    fails(project.call(&["run"]), 1, "representation collapsed in epoch 1", "`base_lr`");
    assert_eq!(num_entries(&project), 3);
    project.edit("pipeline.yaml", "action: stop", "action: warn");
    project.call(&["run"]).ok().says("warning: `pretrain`: representation collapsed in epoch 1");
}

#[test]
fn nothing_here_is_named_with_its_folder() {
    fails(Project::new().call(&["run"]), 2, "`<root>`", "simsiam-pipe init");
    // A project around the folder does not hide the pipeline beside the user.
    let project = Project::new().write("sub/pipeline.yaml", TINY);
    fs::create_dir(project.path(".simsiam-pipe")).unwrap();
    project.call(&["-C", "sub", "plan"]).ok();
}
