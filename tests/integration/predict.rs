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
  sgd_probe:
    uses: fit
    inputs: { encoder: pretrain, train: train, test: test, augmentation: views }
    with: { linear_probe: { sgd: { epochs: 2, batch_size: 4 } } }
  last_block:
    uses: fit
    inputs: { encoder: pretrain, train: train, test: test, augmentation: views }
    with: { fine_tune: { layers: { last_blocks: 1 }, train: { epochs: 1, batch_size: 4, optimizer: { adamw: {} } } } }
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
    for stage in ["probe", "knn", "tuned", "sgd_probe", "last_block", "scratch"] {
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

    // The probe leaves the backbone as it is, the last block leaves what comes before it.
    let weights =
        |folder: &str, file: &str| std::fs::read(project.path(&format!("runs/tiny/{folder}/{file}"))).unwrap();
    let encoder = weights("pretrain", "encoder.safetensors");
    assert_eq!(weights("sgd_probe", "backbone.safetensors"), encoder);
    assert_ne!(weights("last_block", "backbone.safetensors"), encoder);
    assert!(project.read("runs/tiny/sgd_probe/metrics.json").contains("\"pretrained\""));

    project.put("photos/broken.png", "no picture");
    let called = project.call(&["predict", "--model", "runs/tiny/probe", "photos"]).code(4);
    assert_eq!(called.stdout.lines().count(), 2);
    called.says("`photos/broken.png`: ").says("1 of 3 images could not be used");
    project
        .call(&["predict", "--model", "runs/tiny/pretrain", "photos"])
        .code(2)
        .says("is not the artifact of a `fit` stage");
}

/// The same with photographs that `ingest` resizes.
pub(crate) fn photographs(project: &Project) {
    for (split, count, salt) in [("train", 4_u32, 0), ("test", 2, 5)] {
        for (class, tint) in [("dusk", [200, 80, 90]), ("sea", [20, 90, 210])] {
            for idx in 0..count {
                let path = project.path(&format!("data/{split}/{class}/{idx}.jpg"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let (width, height) = (61 + 7 * idx, 47 + 3 * idx);
                let shade = |x: u32, y: u32, channel: usize| {
                    let wave = (x * (3 + idx + salt) + y * (5 + channel as u32)) % 41;
                    (tint[channel] + wave).min(255) as u8
                };
                image::RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| shade(x, y, c))))
                    .save(path)
                    .unwrap();
            }
        }
    }
    let source =
        |split: &str| format!("{{ source: {{ image_folder: data/{split} }}, resize: {{ shorter_side: 20 }} }}");
    let lines = TINY.lines().map(|line| match line.trim_start().split(':').next() {
        Some(split @ ("train" | "test")) if line.contains("ingest") => {
            format!("  {split}: {{ uses: ingest, with: {} }}", source(split))
        }
        _ => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    project.put("pipelines/tiny.yaml", &text);
}

#[test]
fn test_images_get_the_probabilities_of_the_pipeline() {
    let project = Project::new();
    photographs(&project);
    project.call(&["run", "-q"]).ok();
    for stage in ["probe", "knn", "tuned", "sgd_probe", "last_block", "scratch"] {
        assert_predicts_as_the_pipeline(&project, stage);
    }
}

#[test]
fn transparency_lies_over_the_background_of_the_dataset() {
    let (white, coloured) = (Project::new(), Project::new());
    for project in [&white, &coloured] {
        photographs(project);
        for (split, count) in [("train", 4), ("test", 2)] {
            for (class, idx) in ["dusk", "sea"].into_iter().flat_map(|class| (0..count).map(move |idx| (class, idx))) {
                let path = project.path(&format!("data/{split}/{class}/{idx}.jpg"));
                let mut picture = image::open(&path).unwrap().into_rgba8();
                picture.enumerate_pixels_mut().for_each(|(x, y, pixel)| pixel[3] = (3 * x + 4 * y).min(255) as u8);
                picture.save(path.with_extension("png")).unwrap();
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let text = coloured.read("pipelines/tiny.yaml");
    coloured.put(
        "pipelines/tiny.yaml",
        &text.replace("shorter_side: 20 }", "shorter_side: 20 }, background: [200, 10, 60]"),
    );
    for project in [&white, &coloured] {
        project.call(&["run", "-q", "--stage", "probe"]).ok();
        assert_predicts_as_the_pipeline(project, "probe");
    }
    let predictions = |project: &Project| project.read("runs/tiny/probe/predictions.csv");
    assert_ne!(predictions(&white), predictions(&coloured));
}

/// `predict` says of the test images what the stage said.
fn assert_predicts_as_the_pipeline(project: &Project, stage: &str) {
    let model = format!("runs/tiny/{stage}");
    let called = project.call(&["predict", "--model", &model, "--csv", "data/test"]).ok();
    // file,label,predicted,probability,correct and file,rank,class,probability
    let expected: Vec<(String, String, String)> = project
        .read(&format!("{model}/predictions.csv"))
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>())
        .map(|row| (format!("data/test/{}", row[0]), row[2].clone(), row[3].clone()))
        .collect();
    let found: Vec<(String, String, String)> = called
        .stdout
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>())
        .map(|row| (row[0].clone(), row[2].clone(), row[3].clone()))
        .collect();
    assert_eq!(found, expected, "{stage}");
    assert_eq!(found.len(), 4);
}

/// Values of a `.npy` file of f32.
fn npy(bytes: &[u8]) -> Vec<f32> {
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn images_are_embedded_and_found_again_from_the_artifact_alone() {
    let project = Project::new();
    photographs(&project);
    project.call(&["run", "-q", "--stage", "probe"]).ok();
    // A copy, far from the cache and from the images.
    let copy = project.path("elsewhere");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(project.path("runs/tiny/embeddings")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let test_rows = npy(&std::fs::read(copy.join("test_features.npy")).unwrap());
    for model in ["elsewhere", "runs/tiny/pretrain", "runs/tiny/probe"] {
        let called = project.call(&["embed", "--model", model, "data/test", "--out", "x.npy"]).ok();
        let files: Vec<&str> = called.stdout.lines().collect();
        assert_eq!((files.len(), files[0]), (4, "data/test/dusk/0.jpg"));
        assert_eq!(npy(&std::fs::read(project.path("x.npy")).unwrap()), test_rows, "{model}");
    }
    project.call(&["embed", "--model", "elsewhere", "data/test", "--out", "x.csv", "--json"]).ok().prints("\"row\":3");
    assert!(project.read("x.csv").lines().nth(1).unwrap().starts_with("data/test/dusk/0.jpg,"));

    let sheet = project.path("sheet.png");
    let args = ["similar", "data/test/sea/1.jpg", "--in", "elsewhere", "--top", "3", "--sheet", "sheet.png", "--csv"];
    let called = project.call(&args).ok();
    let lines: Vec<&str> = called.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "file,rank,similarity,split,class,neighbour"));
    assert_eq!(lines[1], "data/test/sea/1.jpg,1,1.000000,test,sea,sea/1.jpg");
    let sheet = image::open(sheet).unwrap().into_rgb8();
    assert_eq!(sheet.dimensions(), (4 + 8 + 4 * 68, 4 + 68));
    // The image itself, and its thumbnail from the artifact beside it.
    let difference = |x: u32, y: u32| {
        let (a, b) = (sheet.get_pixel(4 + x, 4 + y).0, sheet.get_pixel(80 + x, 4 + y).0);
        (0..3).map(|c| u32::from(a[c].abs_diff(b[c]))).sum::<u32>()
    };
    let mean = (0..64).flat_map(|y| (0..64).map(move |x| (x, y))).map(|(x, y)| difference(x, y)).sum::<u32>() / 4096;
    assert!(mean < 30, "{mean}");

    project.call(&["embed", "--model", "elsewhere", "data", "--out", "x.txt"]).code(2).says("says no format");
    project.call(&["embed", "--model", "data", "data", "--out", "x.npy"]).code(2).says("holds no network");
    project.call(&["similar", "x.jpg", "--in", "runs/tiny/pretrain"]).code(2).says("of an `extract` stage");
    let called = project.call(&["embed", "--model", "elsewhere", "absent.jpg", "--out", "none.npy"]).code(4);
    called.says("`absent.jpg`: ");
    assert!(npy(&std::fs::read(project.path("none.npy")).unwrap()).is_empty());
    // Weights of another network, and those that are no numbers.
    std::fs::write(copy.join("backbone.safetensors"), "no tensors").unwrap();
    project
        .call(&["embed", "--model", "elsewhere", "data", "--out", "y.npy"])
        .code(4)
        .says("not a readable safetensors");
    assert!(!project.path("y.npy").exists());
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

#[test]
fn a_stage_is_measured_with_its_own_parameters() {
    let project = Project::new().write("pipelines/tiny.yaml", TINY);
    let figures = |stage: &str| -> Value {
        let called = project.call(&["bench", "stage", stage, "--steps", "2", "--threads", "1", "--json"]).ok();
        // Warnings come before.
        serde_json::from_str(called.stdout.lines().last().unwrap()).unwrap()
    };
    let found = figures("pretrain");
    assert_eq!(found["images_per_step"], 8);
    // Nothing has run: how many images there will be is not known.
    assert_eq!(found["forecast"]["seconds"], Value::Null);
    assert_eq!(found["forecast"]["real_images"], false);
    assert_eq!(figures("train")["forecast"]["images"], 28);
    assert!(!project.path("runs").exists());

    project.call(&["run", "--stage", "embeddings", "-q"]).ok();
    let cached = project.call(&["cache", "ls"]).ok().stdout;
    let found = figures("pretrain");
    assert_eq!(found["forecast"]["images"], 28);
    assert_eq!(found["forecast"]["real_images"], true);
    // One epoch of three batches of 8.
    let seconds = found["forecast"]["seconds"].as_f64().unwrap();
    let steps: Vec<f64> = found["step_seconds"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!(steps.iter().any(|step| (seconds - 3.0 * step).abs() < 1e-9), "{found}");
    // 28 and 14 images, with the trained and with the untrained backbone.
    let found = figures("embeddings");
    assert_eq!((&found["forecast"]["images"], &found["forecast"]["passes"]), (&42.into(), &2.into()));
    assert_eq!(project.call(&["cache", "ls"]).ok().stdout, cached);

    project.call(&["bench", "stage", "probe"]).code(2).says("a stage of kind `fit` has no throughput to measure");
    project.call(&["bench", "stage", "prtrain"]).code(2).says("its stages are `train`, `test`");
}

#[test]
fn protocols_have_their_own_inputs_and_limits() {
    let project = Project::new().write("pipelines/tiny.yaml", TINY);
    let with = |from: &str, to: &str| {
        assert!(TINY.contains(from), "{from}");
        project.put("pipelines/tiny.yaml", &TINY.replace(from, to));
        project.call(&["plan"]).code(3)
    };
    let probe = "{ linear_probe: { max_iter: 20 } }";
    with(probe, "{ linear_probe: { sgd: {} } }").says("embeddings").says("encoder");
    with("{ sgd: { epochs: 2, batch_size: 4 } }", "{ max_iter: 9 }").says("encoder").says("embeddings");
    with("{ sgd: { epochs: 2,", "{ cross_validation: {}, sgd: { epochs: 2,").says("both `sgd` and `cross_validation`");
    with("{ sgd: { epochs: 2,", "{ sgd: { early_stopping: { patience: 1 }, epochs: 2,").says("nothing to watch");
    with("{ last_blocks: 1 }", "{ last_blocks: 0 }").says("last_blocks");
    project.put("pipelines/tiny.yaml", &TINY.replace("{ last_blocks: 1 }", "{ last_blocks: 6 }"));
    let called = project.call(&["run", "--stage", "last_block"]).code(1);
    called.says("`layers.last_blocks` is 6, but `darknet_tiny` has 5 blocks");
}
