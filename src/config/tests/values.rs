//! What means the same and what does not.

use std::{collections::BTreeMap, path::Path};

use super::{INTEL, SMALL, load, load_pipeline, load_with, no_env, pipeline, with};
use crate::{
    augment::{augment_config::OpConfig, preset::Preset},
    config::{Pipeline, Place, render_resolved},
    graph::StageGraph,
    stage::StageConfig,
};

/// The pipeline without the places, which formatting may change.
fn meaning(text: &str) -> Pipeline {
    let mut pipeline = pipeline(text);
    pipeline.stages.sort_by(|a, b| a.name.cmp(&b.name));
    pipeline.stages.iter_mut().for_each(|stage| stage.places.clear());
    pipeline
}

#[test]
fn the_example_loads_without_errors_or_warnings() {
    let loaded = load(INTEL).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.pipeline.name, "intel");
    let order = ["train", "test", "views", "pretrain", "embeddings", "probe", "knn", "report"];
    assert_eq!(StageGraph::build(&loaded.pipeline).unwrap().order(), order);
    let report = loaded.pipeline.stage("report").unwrap();
    assert_eq!(report.inputs["classifiers"], ["probe", "knn"]);
    let Some(StageConfig::Augment(views)) = loaded.pipeline.stage("views").map(|stage| &stage.config) else { panic!() };
    assert_eq!(views.image_size, 64);
}

#[test]
fn without_a_name_the_file_gives_it() {
    assert_eq!(pipeline(SMALL).name, "small");
    let errors = load_pipeline(Path::new("my file.yaml"), SMALL.as_bytes(), &[], &no_env).unwrap_err();
    assert_eq!(errors.errors()[0].code(), "config::name");
}

#[test]
fn numbers_are_equal_however_they_are_written() {
    assert_eq!(meaning(&with(SMALL, "p: 0.2", "p: 2e-1")), meaning(SMALL));
    assert_eq!(meaning(&with(SMALL, "p: 0.2", "p: 0.20")), meaning(SMALL));
    assert_eq!(meaning(&with(SMALL, "epochs: 10", "epochs: 1e1")), meaning(SMALL));
    assert_eq!(meaning(&with(SMALL, "epochs: 10", "epochs: 0xA")), meaning(SMALL));
    assert_eq!(meaning(&with(SMALL, "1.0]", "1]")), meaning(SMALL));
}

#[test]
fn comments_order_and_style_change_nothing() {
    let other = "\
# the same
stages:
  pretrain:
    with: { epochs: 10, backbone: { resnet18: { 'stem': \"cifar\" } } }   # on one line
    inputs:
      augmentation: views
      dataset: train
    uses: pretrain
  views: { with: { ops: [ random_resized_crop: { scale: [0.2, 1.0] }, { grayscale: { p: 0.2 } } ], image_size: 32 }, uses: augment }
  train:
    uses: ingest
    with:
      source:
        image_folder: data/train
version: 1
";
    assert_eq!(meaning(other), meaning(SMALL));
}

#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let windows = format!("\u{feff}{}", SMALL.replace('\n', "\r\n"));
    let (windows, unix) = (pipeline(&windows), pipeline(SMALL));
    assert_eq!(windows, unix);
}

#[test]
fn defaults_written_out_change_nothing() {
    let text = with(
        SMALL,
        "epochs: 10",
        "epochs: 10\n      batch_size: 256\n      predictor: {}\n      projector: { hidden_dim: 2048 }\n      schedule: { cosine: {} }\n      early_stopping: ~\n      optimizer: { sgd: { momentum: 0.9 } }",
    );
    let text = with(&text, "uses: ingest", "uses: ingest\n    seed: 0\n    inputs:");
    assert_eq!(meaning(&text), meaning(SMALL));
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "\
version: 1
vars:
  base: &base { uses: command, with: { run: [make], outputs: [a] } }
stages:
  one: *base
  two: { <<: *base, seed: 3 }
  three: { <<: [*base], uses: report, with: {}, inputs: {} }
";
    let pipeline = pipeline(text);
    assert_eq!(pipeline.stage("one").unwrap().config, pipeline.stage("two").unwrap().config);
    assert_eq!(pipeline.stage("two").unwrap().seed, 3);
    assert!(matches!(pipeline.stage("three").unwrap().config, StageConfig::Report(_)));
}

#[test]
fn references_take_the_type_of_their_value() {
    let text = "\
version: 1
name: ${vars.year}
vars:
  year: 2024
  root: /data
  dir: ${vars.root}/${vars.year}
  p: 1.0e-1
  nested: { size: 32, ops: [ { grayscale: { p: \"${vars.p}\" } } ] }
stages:
  train:
    uses: ingest
    seed: ${env.SEED}
    with:
      source: { image_folder: \"${vars.dir}/$${x}\" }
      max_per_class: ${env.LIMIT:-5}
      classes: [\"${vars.year}\", \"${env.CLASS:-}\"]
  views:
    uses: augment
    with: { image_size: \"${vars.nested.size}\", ops: \"${vars.nested.ops}\" }
";
    let env = |name: &str| (name == "SEED").then(|| String::from("7"));
    let loaded = load_pipeline(Path::new("x.yaml"), text.as_bytes(), &[], &env).unwrap();
    assert_eq!(loaded.pipeline.name, "2024");
    let train = loaded.pipeline.stage("train").unwrap();
    assert_eq!(train.seed, 7);
    let StageConfig::Ingest(config) = &train.config else { panic!() };
    assert_eq!(serde_json::to_value(&config.source).unwrap()["image_folder"], "/data/2024/${x}");
    assert_eq!(config.max_per_class, 5);
    assert_eq!(config.classes, ["2024", ""]);
    let StageConfig::Augment(views) = &loaded.pipeline.stage("views").unwrap().config else { panic!() };
    assert_eq!(views.image_size, 32);
    assert!(matches!(&views.ops[..], [OpConfig::Grayscale(op)] if op.p == 0.1));
}

#[test]
fn places_point_at_keys_and_elements() {
    let pipeline = pipeline(SMALL);
    let place = |stage: &str, path: &str| pipeline.stage(stage).unwrap().places.get(path).copied();
    assert_eq!(place("views", "uses"), Some(Place { line: 7, column: 5 }));
    assert_eq!(place("views", "with.image_size"), Some(Place { line: 9, column: 7 }));
    assert_eq!(place("views", "with.ops[1]"), Some(Place { line: 12, column: 11 }));
    assert_eq!(place("views", "with.ops[1].grayscale.p"), Some(Place { line: 12, column: 24 }));
    assert_eq!(place("pretrain", "inputs.augmentation"), Some(Place { line: 15, column: 31 }));
    assert_eq!(place("pretrain", "with.backbone.resnet18.stem"), Some(Place { line: 17, column: 31 }));
    assert_eq!(place("pretrain", "with.batch_size"), None);
}

#[test]
fn columns_count_characters_not_bytes() {
    let text = with(SMALL, "p: 0.2 }", "\"ü\": 1, p: 2 }");
    let records = load(&text).unwrap_err().records();
    assert_eq!(records.iter().map(|record| (record.line, record.column)).collect::<Vec<_>>(), [(12, 24), (12, 35)]);
}

#[test]
fn resolved_stages_are_written_with_their_defaults_and_load_again() {
    let pipeline = pipeline(SMALL);
    let rendered: BTreeMap<&str, String> =
        pipeline.stages.iter().map(|stage| (stage.name.as_str(), render_resolved(stage).unwrap())).collect();
    insta::assert_snapshot!(rendered["views"]);
    assert!(!rendered["train"].contains("seed"));
    let indent = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat();
    let inputs = "    inputs: { dataset: train, augmentation: views }\n";
    let again = format!(
        "version: 1\nstages:\n  train:\n{}  views:\n{}  pretrain:\n{inputs}{}",
        indent(&rendered["train"]),
        indent(&rendered["views"]),
        indent(&rendered["pretrain"])
    );
    assert_eq!(meaning(&again), meaning(SMALL));
}

#[test]
fn the_same_text_loads_to_the_same_pipeline() {
    assert_eq!(load_with(INTEL, &["seed=3"]).unwrap().pipeline, load_with(INTEL, &["seed=3"]).unwrap().pipeline);
}

#[test]
fn a_preset_means_what_it_is_written_out() {
    let ops = &SMALL[SMALL.find("      ops:").unwrap()..SMALL.find("  pretrain:").unwrap()];
    let preset = with(SMALL, ops, "      preset: simsiam_cifar\n");
    let policy = |text: &str| match pipeline(text).stage("views").map(|stage| stage.config.clone()) {
        Some(StageConfig::Augment(views)) => views,
        other => panic!("{other:?}"),
    };
    assert_eq!(policy(&preset), Preset::SimsiamCifar.config());
    // A key beside it counts.
    let larger = with(&preset, "image_size: 32", "image_size: 48");
    assert_eq!((policy(&larger).image_size, policy(&larger).ops), (48, policy(&preset).ops));
    // The artifact and the fingerprint hold what it stands for.
    let stored = render_resolved(pipeline(&preset).stage("views").unwrap()).unwrap();
    assert!(!stored.contains("preset") && stored.contains("random_resized_crop"), "{stored}");
}

#[test]
fn views_may_have_operations_of_their_own() {
    let each = "      view_ops:
        - [random_resized_crop: {}]
        - [{ random_resized_crop: {} }, { solarize: { p: 0.2 } }]
";
    let ops = &SMALL[SMALL.find("      ops:").unwrap()..SMALL.find("  pretrain:").unwrap()];
    let loaded = load(&with(SMALL, ops, each)).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let stage = loaded.pipeline.stage("views").unwrap();
    let StageConfig::Augment(views) = &stage.config else { panic!() };
    assert_eq!((views.ops.len(), views.view_ops[0].len(), views.view_ops[1].len()), (0, 1, 2));
    assert!(stage.places.contains_key("with.view_ops[1][1].solarize.p"));
}
