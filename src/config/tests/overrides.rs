//! `--set`, right and wrong.

use super::{INTEL, SMALL, complaints_with, load_with, pipeline, with};
use crate::{augment::augment_config::OpConfig, config::Pipeline, eval::FitConfig, stage::StageConfig};

fn set(text: &str, arguments: &[&str]) -> Pipeline {
    match load_with(text, arguments) {
        Ok(loaded) => loaded.pipeline,
        Err(errors) => panic!("{}", errors.render(false, 100)),
    }
}

fn epochs(pipeline: &Pipeline) -> u32 {
    match pipeline.stage("pretrain").map(|stage| &stage.config) {
        Some(StageConfig::Pretrain(config)) => config.epochs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_of_the_file_is_replaced() {
    assert_eq!(epochs(&set(SMALL, &["stages.pretrain.with.epochs=3"])), 3);
    assert_eq!(epochs(&set(SMALL, &["stages.pretrain.with.epochs=3", "stages.pretrain.with.epochs=4"])), 4);
    let same = set(SMALL, &["stages.pretrain.with.epochs=10"]);
    assert_eq!(same, pipeline(SMALL));
}

#[test]
fn elements_of_lists_are_reached_both_ways() {
    for argument in ["stages.views.with.ops.1.grayscale.p=0.5", "stages.views.with.ops[1].grayscale.p=0.5"] {
        let pipeline = set(SMALL, &[argument]);
        let Some(StageConfig::Augment(views)) = pipeline.stage("views").map(|stage| &stage.config) else { panic!() };
        assert!(matches!(views.ops[1], OpConfig::Grayscale(op) if op.p == 0.5));
    }
}

#[test]
fn keys_that_the_schema_knows_are_added() {
    let pipeline = set(INTEL, &["stages.pretrain.seed=3", "stages.probe.with.linear_probe.l2=0.5", "name=other"]);
    assert_eq!(pipeline.stage("pretrain").unwrap().seed, 3);
    assert_eq!(pipeline.name, "other");
    let Some(StageConfig::Fit(FitConfig::LinearProbe(probe))) = pipeline.stage("probe").map(|stage| &stage.config)
    else {
        panic!()
    };
    assert_eq!((probe.l2, probe.max_iter), (0.5, 500));
    let pipeline = set(SMALL, &["stages.pretrain.with.checkpoint.keep=5"]);
    let Some(StageConfig::Pretrain(config)) = pipeline.stage("pretrain").map(|stage| &stage.config) else { panic!() };
    assert_eq!(config.checkpoint.keep, 5);
}

#[test]
fn variables_are_replaced_before_they_are_used() {
    let pipeline = set(INTEL, &["vars.size=96", "vars.data=/mnt/2024"]);
    let Some(StageConfig::Augment(views)) = pipeline.stage("views").map(|stage| &stage.config) else { panic!() };
    assert_eq!(views.image_size, 96);
    let text = with(SMALL, "image_folder: data/train", "image_folder: \"${vars.data}\"");
    let pipeline = set(&text, &["vars.data=2024"]);
    assert!(format!("{:?}", pipeline.stage("train")).contains("\"2024\""));
}

#[test]
fn flow_values_and_empty_ones_are_taken() {
    let pipeline =
        set(SMALL, &["stages.pretrain.with.backbone={ darknet_tiny: {} }", "stages.train.with.classes=[1, b]"]);
    assert!(format!("{:?}", pipeline.stage("pretrain")).contains("DarknetTiny"));
    assert!(format!("{:?}", pipeline.stage("train")).contains("[\"1\", \"b\"]"));
}

#[test]
fn names_with_dots_are_reached() {
    let text = with(SMALL, "  pretrain:", "  pre.train:");
    let pipeline = set(&text, &["stages.pre.train.with.epochs=3"]);
    assert!(format!("{:?}", pipeline.stage("pre.train")).contains("epochs: 3"));
}

#[test]
fn mistakes_point_at_the_argument() {
    insta::assert_snapshot!(complaints_with(
        INTEL,
        &[
            "stages.pretrain.with.epochs=ten",
            "stages.pretrian.seed=3",
            "stages.pretrain.with.epoch=3",
            "vars.sice=3",
            "stages.views.with.ops[9].grayscale.p=0.1",
            "stage.pretrain.seed=3",
            "stages.pretrain.with.epochs",
            "stages.pretrain..epochs=3",
            "stages.pretrain.with.batch_size={",
        ]
    ));
}
