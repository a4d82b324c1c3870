//! The whole way from text to pipeline, as a user sees it.

mod errors;
mod limits;
mod matrix;
mod overrides;
mod schema;
mod values;

use std::path::Path;

use super::{ConfigErrors, LoadedPipeline, Pipeline, load_pipeline};

/// The example of the documentation.
const INTEL: &str = include_str!("../../../tests/fixtures/config/intel.yaml");

/// The smallest pipeline that learns something.
const SMALL: &str = "\
version: 1
stages:
  train:
    uses: ingest
    with: { source: { image_folder: data/train } }
  views:
    uses: augment
    with:
      image_size: 32
      ops:
        - random_resized_crop: { scale: [0.2, 1.0] }
        - grayscale: { p: 0.2 }
  pretrain:
    uses: pretrain
    inputs: { dataset: train, augmentation: views }
    with:
      backbone: { resnet18: { stem: cifar } }
      epochs: 10
";

fn no_env(_: &str) -> Option<String> {
    None
}

fn load_with(text: &str, overrides: &[&str]) -> Result<LoadedPipeline, ConfigErrors> {
    let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
    load_pipeline(Path::new("small.yaml"), text.as_bytes(), &overrides, &no_env)
}

fn load(text: &str) -> Result<LoadedPipeline, ConfigErrors> {
    load_with(text, &[])
}

fn pipeline(text: &str) -> Pipeline {
    match load(text) {
        Ok(loaded) => loaded.pipeline,
        Err(errors) => panic!("{}", errors.render(false, 100)),
    }
}

/// The text after one replacement, which must apply.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the text");
    text.replacen(from, to, 1)
}

/// Everything that is wrong, as a terminal of 100 columns shows it.
fn complaints(text: &str) -> String {
    complaints_with(text, &[])
}

fn complaints_with(text: &str, overrides: &[&str]) -> String {
    match load_with(text, overrides) {
        Ok(_) => panic!("this should be refused:\n{text}"),
        Err(errors) => errors.render(false, 100),
    }
}

/// Codes of everything that is wrong.
fn codes(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => vec![],
        Err(errors) => errors.records().into_iter().map(|record| record.code).collect(),
    }
}
