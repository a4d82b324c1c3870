//! Equal meaning, equal fingerprint, and nothing else: random texts of pipelines of every kind of stage.
//!
//! `SIMSIAM_PIPE_MODEL_CASES` sets the number of cases, 48 without it.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

use super::{StageFingerprint, canonical::to_canonical_json};
use crate::{
    config::{Stage, load_pipeline},
    digest::Digest,
};

/// A source of choices that shrinks: bytes, then zeros.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn pick(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for idx in (1..items.len()).rev() {
            let other = self.pick(idx + 1);
            items.swap(idx, other);
        }
    }
}

/// One stage of every kind and of the choices within it: `uses` and `with`, defaults left out.
fn stages() -> Vec<(&'static str, Value)> {
    vec![
        ("ingest", json!({"source": {"image_folder": "data/x"}, "max_per_class": 40})),
        (
            "ingest",
            json!({"source": {"synthetic_scenes": {"images_per_class": 30, "image_size": 48, "split": "train"}}}),
        ),
        (
            "augment",
            json!({"image_size": 32, "ops": [
                {"random_resized_crop": {"scale": [0.2, 1.0]}},
                {"color_jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
                {"gaussian_blur": {"p": 0.5}}, {"horizontal_flip": {}}, {"grayscale": {"p": 0.2}},
            ]}),
        ),
        ("pretrain", json!({"backbone": {"resnet18": {"stem": "cifar"}}, "epochs": 10, "batch_size": 64})),
        ("pretrain", json!({"backbone": {"darknet_tiny": {}}, "optimizer": {"sgd": {"base_lr": 0.03}}})),
        ("extract", json!({})),
        ("knn", json!({"knn": {"k": 20}})),
        ("linear_probe", json!({"linear_probe": {"max_iter": 200}})),
        ("report", json!({"title": "a page"})),
        ("command", json!({"run": ["make", "all"], "outputs": ["out"], "env": {"A": "1"}})),
    ]
}

/// What comes before `with` in a stage of a kind, besides `uses`.
fn inputs(uses: &str) -> &'static str {
    match uses {
        "pretrain" => "{ dataset: train, augmentation: views }",
        "extract" => "{ encoder: encoder, train: train }",
        "knn" | "linear_probe" => "{ embeddings: features }",
        "report" => "{ datasets: [train] }",
        _ => "{}",
    }
}

/// The stage `name` of a kind in a whole pipeline, its parameters written in one of many ways.
fn text(name: &str, uses: &str, with: &Value, seed: u64, choices: &mut Choices<'_>) -> String {
    let uses = if matches!(uses, "knn" | "linear_probe") { ("fit", inputs(uses)) } else { (uses, inputs(uses)) };
    let mut parts = vec![
        format!("    uses: {}\n", uses.0),
        format!("    inputs: {}\n", uses.1),
        format!("    seed: {}\n", number(&Number::from(seed), choices)),
        format!("    with: {}\n", yaml(with, 6, choices)),
    ];
    choices.shuffle(&mut parts);
    let comment = ["", "# a comment\n", "\n\n"][choices.pick(3)];
    format!(
        "{comment}version: 1\nstages:\n  train: {{ uses: ingest, with: {{ source: {{ image_folder: data/y }} }} }}\n  \
         views: {{ uses: augment, with: {{ image_size: 32, ops: [random_resized_crop: {{}}] }} }}\n  \
         encoder: {{ uses: pretrain, inputs: {{ dataset: train, augmentation: views }}, with: {{ backbone: {{ resnet18: {{}} }} }} }}\n  \
         features: {{ uses: extract, inputs: {{ encoder: encoder, train: train }} }}\n  {name}:\n{}",
        parts.concat()
    )
}

/// A value as YAML: block or flow, keys in any order, numbers in any spelling.
fn yaml(value: &Value, indent: usize, choices: &mut Choices<'_>) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            choices.shuffle(&mut fields);
            let block = !fields.is_empty() && indent < 40 && choices.pick(2) == 0;
            let mut out = String::new();
            for (key, value) in fields {
                let key = if choices.pick(4) == 0 { format!("\"{key}\"") } else { key.clone() };
                if block {
                    let comment = if choices.pick(4) == 0 { format!("\n{pad}# {key}") } else { String::new() };
                    let _ = write!(out, "{comment}\n{pad}{key}: {}", yaml(value, indent + 2, choices));
                } else {
                    let value = yaml(value, 100, choices);
                    let comma = if out.is_empty() { "" } else { ", " };
                    let _ = write!(out, "{comma}{key}: {value}");
                }
            }
            if block { out } else { format!("{{ {out} }}") }
        }
        Value::Array(items) => {
            if !items.is_empty() && indent < 40 && choices.pick(2) == 0 {
                let items = items.iter().map(|item| format!("\n{pad}- {}", yaml(item, 100, choices)));
                return items.collect();
            }
            let items: Vec<String> = items.iter().map(|item| yaml(item, 100, choices)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Number(value) => number(value, choices),
        Value::String(text) if choices.pick(2) == 0 && !text.contains('\'') => format!("'{text}'"),
        Value::Null => ["null", "~"][choices.pick(2)].into(),
        other => other.to_string(),
    }
}

fn number(value: &Number, choices: &mut Choices<'_>) -> String {
    let plain = value.to_string();
    match (value.as_u64(), value.as_f64()) {
        (Some(int), _) => [plain, format!("{int:#x}"), format!("+{int}"), format!("{int}.0")][choices.pick(4)].clone(),
        (None, Some(float)) => {
            let padded = if plain.contains('.') && !plain.contains('e') { format!("{plain}00") } else { plain.clone() };
            [plain, format!("{float:e}"), format!("{float:E}"), padded][choices.pick(4)].clone()
        }
        _ => plain,
    }
}

fn load(name: &str, text: &str) -> Result<Stage, String> {
    match load_pipeline(Path::new("some/where.yaml"), text.as_bytes(), &[], &|_| None) {
        Ok(loaded) => Ok(loaded.pipeline.stage(name).unwrap().clone()),
        Err(errors) => Err(errors.render(false, 100)),
    }
}

fn fingerprint(stage: &Stage) -> StageFingerprint {
    let inputs = stage.inputs.keys().map(|name| (name.clone(), vec![Digest::of(name.as_bytes())]));
    let sources = BTreeMap::from([("source".to_owned(), Digest::of(b"content"))]);
    StageFingerprint::new(stage, inputs.collect(), sources).unwrap()
}

/// Another value in the place of one leaf, or none where there is no such leaf.
fn mutate(value: &Value, leaf: &mut usize, by: u8) -> Option<Value> {
    let here = |leaf: &mut usize| {
        let is_it = *leaf == 0;
        *leaf = leaf.wrapping_sub(1);
        is_it
    };
    match value {
        Value::Object(fields) => {
            let mut found = None;
            let mut changed = Map::new();
            for (key, field) in fields {
                let other = if found.is_none() { mutate(field, leaf, by) } else { None };
                found = found.or(other.is_some().then_some(()));
                changed.insert(key.clone(), other.unwrap_or_else(|| field.clone()));
            }
            found.map(|()| Value::Object(changed))
        }
        Value::Array(items) => {
            let (idx, item) = items.iter().enumerate().find_map(|(idx, item)| Some((idx, mutate(item, leaf, by)?)))?;
            let mut items = items.clone();
            items[idx] = item;
            Some(Value::Array(items))
        }
        Value::Number(number) if here(leaf) => Some(match number.as_u64() {
            Some(int) => json!(int + 1 + u64::from(by)),
            None => json!(number.as_f64()? * (1.0 + f64::from(by) / 512.0) + 0.001),
        }),
        Value::Bool(value) if here(leaf) => Some(json!(!value)),
        Value::String(text) if here(leaf) => Some(json!(format!("{text}{by}"))),
        _ => None,
    }
}

fn num_cases() -> u32 {
    std::env::var("SIMSIAM_PIPE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: num_cases(), ..ProptestConfig::default() })]

    #[test]
    fn what_means_the_same_has_the_same_fingerprint(
        one in prop::collection::vec(any::<u8>(), 0..120),
        other in prop::collection::vec(any::<u8>(), 0..120),
        seed in 0_u64..1000,
    ) {
        for (uses, with) in stages() {
            let first = text("one", uses, &with, seed, &mut Choices(one.iter()));
            let first = load("one", &first).map_err(|error| TestCaseError::fail(format!("{error}\n{first}")))?;
            // Under another name, with every default spelled out.
            let spelled = first.config.to_json().unwrap();
            let second = text("renamed", uses, &spelled, seed, &mut Choices(other.iter()));
            let second = load("renamed", &second).map_err(|error| TestCaseError::fail(format!("{error}\n{second}")))?;
            let (first, second) = (fingerprint(&first), fingerprint(&second));
            prop_assert_eq!(first.digest().unwrap(), second.digest().unwrap(), "{}", to_canonical_json(&spelled));
            // What was stored and read again is the same, too.
            let stored: StageFingerprint = serde_json::from_str(&first.canonical_json().unwrap()).unwrap();
            prop_assert_eq!(stored.digest().unwrap(), first.digest().unwrap());
        }
    }

    #[test]
    fn any_changed_field_input_source_seed_or_revision_changes_it(
        leaf in 0_usize..60,
        by in any::<u8>(),
        style in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        for (uses, with) in stages() {
            let base = load("one", &text("one", uses, &with, 3, &mut Choices(style.iter()))).unwrap();
            let before = fingerprint(&base);
            let spelled = base.config.to_json().unwrap();
            // Where a source lies does not count, only what it holds.
            let is_path = |value: &Value| spelled["source"]["image_folder"] != value["source"]["image_folder"];
            if let Some(changed) = mutate(&spelled, &mut leaf.clone(), by).filter(|changed| !is_path(changed))
                && let Ok(changed) = load("one", &text("one", uses, &changed, 3, &mut Choices(style.iter())))
            {
                prop_assert_ne!(fingerprint(&changed).digest().unwrap(), before.digest().unwrap(), "{}", uses);
            }
            let mut others = vec![];
            for name in before.inputs.keys() {
                let mut other = before.clone();
                other.inputs.insert(name.clone(), vec![Digest::of(&[by])]);
                others.push(other);
                let mut other = before.clone();
                other.inputs.entry(name.clone()).or_default().push(Digest::of(&[by]));
                others.push(other);
            }
            let mut other = before.clone();
            other.sources.insert("source".into(), Digest::of(&[by]));
            others.push(other);
            let mut other = before.clone();
            other.implementation_revision += 1;
            others.push(other);
            let mut other = before.clone();
            other.version += 1;
            others.push(other);
            let seeded = fingerprint(&Stage { seed: 4 + u64::from(by), ..base.clone() });
            if before.seed.is_some() {
                others.push(seeded);
            } else {
                prop_assert_eq!(seeded.digest().unwrap(), before.digest().unwrap());
            }
            for other in others {
                prop_assert_ne!(other.digest().unwrap(), before.digest().unwrap());
            }
        }
    }
}

#[test]
fn most_mutations_are_right_and_reach_every_field() {
    // The property above would hold if nothing could be changed.
    let mut changed = 0;
    for (uses, with) in stages() {
        let base = load("one", &text("one", uses, &with, 3, &mut Choices([].iter()))).unwrap();
        let spelled = base.config.to_json().unwrap();
        for leaf in 0..60 {
            let Some(other) = mutate(&spelled, &mut leaf.clone(), 0) else { break };
            changed += usize::from(load("one", &text("one", uses, &other, 3, &mut Choices([].iter()))).is_ok());
        }
    }
    assert!(changed > 60, "{changed}");
}
