//! The real stages, from images to the report.

use std::collections::BTreeMap;

use crate::fixture::{Project, names};

/// Every kind of stage and of protocol, small enough for a second.
pub(crate) const TINY: &str = "\
version: 1
name: tiny
seed: 0
vars: { epochs: 2 }
stages:
  train:
    uses: ingest
    with:
      source: { synthetic_scenes: { images_per_class: 4, image_size: 16, split: train } }
  test:
    uses: ingest
    with:
      source: { synthetic_scenes: { images_per_class: 2, image_size: 16, split: test } }
  views:
    uses: augment
    inputs: { dataset: train }
    with:
      image_size: 16
      ops:
        - random_resized_crop: { scale: [0.2, 1.0] }
        - horizontal_flip: { p: 0.5 }
  pretrain:
    uses: pretrain
    inputs: { dataset: train, augmentation: views, monitor: test }
    with:
      backbone: { darknet_tiny: {} }
      projector: { hidden_dim: 32, output_dim: 32, num_layers: 2 }
      predictor: { hidden_dim: 16 }
      epochs: ${vars.epochs}
      batch_size: 8
      optimizer: { sgd: { base_lr: 0.5 } }
      knn_monitor: { every_epochs: 1, k: 5 }
  embeddings:
    uses: extract
    inputs: { encoder: pretrain, train: train, test: test }
  probe:
    uses: fit
    inputs: { embeddings: embeddings }
    with: { linear_probe: { max_iter: 50 } }
  knn:
    uses: fit
    inputs: { embeddings: embeddings }
    with: { knn: { k: 5 } }
  fine_tuned:
    uses: fit
    inputs: { encoder: pretrain, train: train, test: test }
    with: { fine_tune: { layers: all, train: { epochs: 1, batch_size: 8 } } }
  supervised:
    uses: fit
    inputs: { train: train, test: test, augmentation: views }
    with: { supervised: { backbone: { darknet_tiny: {} }, train: { epochs: 1, batch_size: 8 } } }
  report:
    uses: report
    inputs:
      pretraining: pretrain
      augmentation: views
      embeddings: embeddings
      classifiers: [probe, knn, fine_tuned, supervised]
      datasets: [train, test]
";

/// The stages up to the encoder.
pub(crate) fn pretraining_only() -> String {
    TINY.split("  embeddings:\n").next().unwrap().to_owned()
}

pub(crate) fn tiny() -> Project {
    Project::new().write("pipeline.yaml", TINY)
}

/// What a run did with each stage: `executed` or `restored`.
#[track_caller]
fn actions(project: &Project, args: &[&str]) -> BTreeMap<String, String> {
    let called = project.call(&[&["--json", "run"], args].concat()).ok();
    let mut actions = BTreeMap::new();
    for line in called.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let action = match event["event"].as_str() {
            Some("stage_finished") => "executed",
            Some("stage_restored") => "restored",
            _ => continue,
        };
        actions.insert(event["stage"].as_str().unwrap().to_owned(), action.to_owned());
    }
    assert_eq!(actions.len(), 10, "{}", called.stdout);
    actions
}

/// Names of the stages that a run executed, sorted.
#[track_caller]
fn executed(project: &Project, args: &[&str]) -> Vec<String> {
    let actions = actions(project, args).into_iter();
    actions.filter(|(_, action)| action == "executed").map(|(stage, _)| stage).collect()
}

#[test]
fn the_second_run_executes_nothing_and_a_change_only_what_depends_on_it() {
    let project = tiny();
    assert_eq!(executed(&project, &[]).len(), 10);
    let lockfile = project.read("pipeline.lock");
    assert_eq!(executed(&project, &[]), [""; 0]);
    assert_eq!(project.read("pipeline.lock"), lockfile);

    let set = ["--set", "stages.probe.with.linear_probe.max_iter=40"];
    assert_eq!(executed(&project, &set), ["probe", "report"]);
    assert_ne!(project.read("pipeline.lock"), lockfile);
    // The old value is still in the cache.
    assert_eq!(executed(&project, &[]), [""; 0]);
    assert_eq!(project.read("pipeline.lock"), lockfile);
}

#[test]
fn the_form_of_the_file_never_matters() {
    let project = tiny();
    executed(&project, &[]);
    let lockfile = project.read("pipeline.lock");
    project.edit("pipeline.yaml", "stages:\n", "# the stages\nstages:\n");
    project.edit("pipeline.yaml", "      batch_size: 8\n", "");
    project.edit(
        "pipeline.yaml",
        "    with:\n      backbone:",
        "    with:\n      batch_size: 8 # moved up\n      backbone:",
    );
    project.edit(
        "pipeline.yaml",
        "{ hidden_dim: 32, output_dim: 32, num_layers: 2 }",
        "\n        { output_dim: 32,\n          num_layers: 2, hidden_dim: 32 }",
    );
    // Spelled out defaults.
    project.edit("pipeline.yaml", "base_lr: 0.5", "momentum: 0.90, base_lr: 5.0e-1, weight_decay: 0.0001");
    project.edit(
        "pipeline.yaml",
        "{ dataset: train, augmentation: views, monitor: test }",
        "{ monitor: test, dataset: train, augmentation: views }",
    );
    project.edit(
        "pipeline.yaml",
        "      knn_monitor:",
        "      predictor_lr: fixed\n      collapse: { action: warn }\n      knn_monitor:",
    );
    assert_eq!(executed(&project, &[]), [""; 0]);
    assert_eq!(project.read("pipeline.lock"), lockfile);
}

#[test]
fn the_number_of_threads_and_jobs_changes_no_bit() {
    let (one, two) = (tiny(), tiny());
    one.call(&["run", "--threads", "1"]).ok();
    two.call(&["run", "--threads", "2", "--jobs", "3"]).ok();
    let lockfile = one.read("pipeline.lock");
    assert!(lockfile.contains("\"report\""));
    assert_eq!(lockfile, two.read("pipeline.lock"));
}

#[test]
fn what_never_ran_is_estimated_by_shapes_and_later_by_runs() {
    let project = tiny();
    let bases = |args: &[&str]| -> Vec<(String, String)> {
        let plan = project.call(&[&["plan", "--json"], args].concat()).ok();
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
        let stages = plan["stages"].as_array().unwrap();
        stages.iter().map(|stage| (text(&stage["uses"]), text(&stage["estimate"]["basis"]))).collect()
    };
    for (uses, basis) in bases(&[]) {
        let shapeless = ["augment", "report"].contains(&uses.as_str());
        assert_eq!(basis, if shapeless { "none" } else { "shapes" }, "{uses}");
    }
    project
        .call(&["plan"])
        .ok()
        .prints(" by its shapes")
        .prints("; by shapes about ")
        .prints("nothing is known about 2 of them");
    project.call(&["explain", "pretrain"]).ok().prints("by the shapes of its work and the speed of this machine");
    project.call(&["run"]).ok();
    assert!(bases(&["--no-cache"]).iter().all(|(_, basis)| basis == "earlier_run"));
}

#[test]
fn artifacts_hold_the_files_that_are_promised() {
    let project = tiny();
    project.call(&["run"]).ok().says("report: runs/tiny/report.html");
    let without_report = project.call(&["run", "--stage", "probe"]).ok();
    assert!(!without_report.stderr.contains("report.html"), "{}", without_report.stderr);
    let fit = ["classifier.safetensors", "classifier.json", "metrics.json", "predictions.csv"];
    let promised: [(&str, &[&str]); 10] = [
        ("train", &["images.safetensors", "dataset.json", "pixels"]),
        ("test", &["images.safetensors", "dataset.json", "pixels"]),
        ("views", &["policy.json", "preview.png"]),
        ("pretrain", &["encoder.safetensors", "simsiam.safetensors", "encoder.json", "history.jsonl", "logs"]),
        ("embeddings", &["embeddings.safetensors", "train_features.npy", "train_labels.npy", "test_features.npy"]),
        ("probe", &fit),
        ("knn", &fit),
        ("fine_tuned", &fit),
        ("supervised", &fit),
        ("report", &["report.html", "summary.json", "summary.md"]),
    ];
    for (stage, files) in promised {
        let found = names(&project.path(&format!("runs/tiny/{stage}")));
        for file in files.iter().chain(&["manifest.json", "config.yaml"]) {
            assert!(found.iter().any(|name| name == file), "{stage} lacks {file}: {found:?}");
        }
    }
    assert_eq!(project.read("runs/tiny/pretrain/history.jsonl").lines().count(), 2);
    let logs = names(&project.path("runs/tiny/pretrain/logs"));
    assert!(logs.iter().any(|name| name.starts_with("events.out.tfevents.")), "{logs:?}");
    let metrics: serde_json::Value = serde_json::from_str(&project.read("runs/tiny/probe/metrics.json")).unwrap();
    assert!(metrics.is_object());
    project.call(&["cache", "verify"]).ok();
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn commands_speak_about_a_finished_run() {
    let project = tiny();
    project.call(&["run"]).ok().says("28 images  7 classes").says("std·√d").says("top-1");
    project.call(&["plan"]).ok();
    project.call(&["status"]).ok().prints("current");
    project.call(&["metrics"]).ok().prints("linear_probe/top1");
    project.call(&["log"]).ok().prints("done").prints("probe");
    project.call(&["explain", "pretrain"]).ok();
    project.call(&["graph", "--format", "svg"]).ok().prints("<svg");
    project.call(&["cache", "gc", "--dry-run"]).ok();
}

#[test]
fn a_starter_pipeline_runs_as_it_is_written() {
    let project = Project::new();
    for split in ["train", "test"] {
        for class in ["a", "b"] {
            for idx in 0..8_u8 {
                let path = project.path(&format!("photos/{split}/{class}/{idx}.png"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let shade = if class == "a" { 40 } else { 180 };
                let pixels =
                    image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([shade, (x * 9) as u8, (y * 9) as u8 ^ idx]));
                pixels.save(path).unwrap();
            }
        }
    }
    project.call(&["init", "photos"]).ok().says("training: 16 images, 2 classes").says("--set vars.epochs=2");
    // The network is a large one for a test: smaller, but every stage as written.
    let set = |key: &str| ["--set".to_owned(), format!("stages.{key}")];
    let sets = [
        set("views.with.image_size=16"),
        set("pretrain.with.batch_size=8"),
        ["--set".to_owned(), "vars.epochs=1".to_owned()],
    ];
    project.edit(
        "pipelines/photos.yaml",
        "      epochs: ${",
        "      projector: { hidden_dim: 16, output_dim: 16 }\n      predictor: { hidden_dim: 8 }\n      epochs: ${",
    );
    let sets: Vec<&str> = sets.iter().flatten().map(String::as_str).collect();
    project.call(&[&["run"], &sets[..]].concat()).ok().says("report: runs/photos/report.html");
}

#[test]
fn the_report_shows_what_pretraining_is_worth_at_each_share_of_the_labels() {
    let stages = "  tuned:
    uses: fit
    matrix: { labels: [0.5, 1.0] }
    inputs: { encoder: pretrain, train: train, test: test, augmentation: views }
    with: { fine_tune: { train: { epochs: 1, batch_size: 4, label_fraction: \"${matrix.labels}\" } } }
  scratch:
    uses: fit
    matrix: { labels: [0.5, 1.0] }
    inputs: { train: train, test: test, augmentation: views }
    with: { supervised: { backbone: { darknet_tiny: {} }, train: { epochs: 1, batch_size: 4, label_fraction: \"${matrix.labels}\" } } }
  report: { uses: report, inputs: { classifiers: [\"tuned@*\", \"scratch@*\"] } }
";
    let project = Project::new().write("pipeline.yaml", &(pretraining_only() + stages));
    project.call(&["run", "-q"]).ok();
    let summary: serde_json::Value = serde_json::from_str(&project.read("runs/tiny/report/summary.json")).unwrap();
    let points = summary["label_efficiency"].as_array().unwrap();
    let shares: Vec<f64> = points.iter().map(|point| point["label_fraction"].as_f64().unwrap()).collect();
    assert_eq!(shares, [0.5, 1.0]);
    for point in points {
        let figure = |key: &str| point[key].as_f64().unwrap();
        assert!((figure("gain") - figure("top1") + figure("supervised_top1")).abs() < 1e-12, "{point}");
    }
    assert!(project.read("runs/tiny/report/report.html").contains("What pretraining is worth at each share"));
    assert!(project.read("runs/tiny/report/summary.md").contains("| share of the labels |"));
    project.call(&["metrics"]).ok().prints("fine_tune/gain_over_supervised@0.5");
}
