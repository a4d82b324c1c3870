//! The published schema: equal to the code, and right about pipelines.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{INTEL, SMALL, load, pipeline};
use crate::config::{editor_schema, render_schema};

fn schema_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pipeline.schema.json")
}

/// Rewrites the file where `UPDATE_SCHEMAS` is set.
#[test]
fn the_published_schema_equals_the_code() {
    let path = schema_path();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, render_schema()).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == render_schema(), "schemas/pipeline.schema.json is old: run the tests with UPDATE_SCHEMAS=1");
}

/// Complaints of an independent validator about a pipeline.
fn complaints(text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&editor_schema()).unwrap();
    let value: Value = serde_yaml::from_str(text).unwrap();
    validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn right_pipelines_fit_the_schema() {
    assert_eq!(complaints(INTEL), [""; 0]);
    assert_eq!(complaints(SMALL), [""; 0]);
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for entry in std::fs::read_dir(pipelines).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert_eq!(complaints(&text), [""; 0], "{}", entry.path().display());
            let loaded = super::load_pipeline(&entry.path(), text.as_bytes(), &[], &super::no_env);
            assert!(loaded.is_ok(), "{}", loaded.unwrap_err().render(false, 100));
        }
    }
}

#[test]
fn references_fit_wherever_a_number_or_choice_is_expected() {
    let text = SMALL.replace("p: 0.2", "p: \"${vars.p}\"").replace("stem: cifar", "stem: \"${vars.stem}\"");
    let text = text.replace("version: 1", "version: 1\nname: ${vars.name}");
    let text = text.replace("[0.2, 1.0]", "\"${vars.scale}\"").replace("epochs: 10", "epochs: ${env.EPOCHS:-3}");
    assert_eq!(complaints(&text), [""; 0]);
}

#[test]
fn the_inputs_of_a_probe_depend_on_how_it_is_fitted() {
    let stage = |inputs: &str, with: &str| {
        format!("{SMALL}  probe:\n    uses: fit\n    inputs: {inputs}\n    with: {{ linear_probe: {with} }}\n")
    };
    let images = "{ encoder: pretrain, train: train, test: train, augmentation: views }";
    let text = stage(images, "{ sgd: { epochs: 3 } }");
    pipeline(&text);
    assert_eq!(complaints(&text), [""; 0]);
    for (inputs, with) in [(images, "{}"), ("{ embeddings: pretrain }", "{ sgd: {} }")] {
        assert!(load(&stage(inputs, with)).is_err() && !complaints(&stage(inputs, with)).is_empty(), "{inputs} {with}");
    }
}

#[test]
fn wrong_pipelines_do_not_fit_the_schema() {
    for (from, to) in [
        ("version: 1", "version: 2"),
        ("epochs: 10", "epoch: 10"),
        ("epochs: 10", "epochs: ten"),
        ("p: 0.2", "p: 1.2"),
        ("uses: augment", "uses: augmentation"),
        ("dataset: train, ", ""),
        ("dataset: train", "datasets: train"),
        ("image_size: 32", "image_size: 4"),
        ("resnet18", "resnet19"),
        ("  train:\n", "  ../train:\n"),
    ] {
        assert!(!complaints(&super::with(SMALL, from, to)).is_empty(), "{from} -> {to}");
    }
    assert!(
        !complaints(&super::with(
            INTEL,
            "embeddings: embeddings }\n    with: { knn",
            "encoder: pretrain }\n    with: { knn"
        ))
        .is_empty()
    );
}

#[test]
fn matrices_fit_the_schema_or_do_not() {
    let sweep = super::matrix::SWEEP;
    let changed = |to: &str| super::with(sweep, "{ lr: [3e-2, 0.05], seed: [0, 1] }", to);
    for right in ["{ lr: [3e-2, fast, true], seed: [0, 1] }", "{ lr: \"${vars.rates}\" }", "{ s: [[0.2, 1], [0, 1]] }"]
    {
        assert_eq!(complaints(&changed(right)), [""; 0], "{right}");
    }
    for wrong in ["{}", "[1]", "{ lr: [] }", "{ lr: 0.1 }", "{ lr: [{ a: 1 }] }", "{ my-lr: [1] }", "{ lr: [1, 1.0] }"]
    {
        assert!(!complaints(&changed(wrong)).is_empty(), "{wrong}");
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // Variants are described beside their only key.
            let is_variant = schema.get("description").is_some() && schema["required"] == json!([name]);
            if property.get("description").is_none() && !is_variant {
                missing.push(path.clone());
            }
            walk(&path, property, missing);
        }
    }
    let schema = editor_schema();
    let mut missing = vec![];
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(name, definition, &mut missing);
    }
    assert_eq!(missing, [""; 0]);
}
