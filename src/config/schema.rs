//! The JSON schema of the pipeline file, generated from the configuration types.
//!
//! Two forms of the same schema: the strict one, against which `walk` checks a file after its
//! references are resolved, and the one for editors, which also accepts `${…}` where a number, a truth value
//! or a choice is expected.

use std::sync::LazyLock;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    augment::preset::AugmentSpec,
    data::IngestConfig,
    eval::{ExtractConfig, FitConfig},
    stage::{CommandConfig, InputDecl, ReportConfig, StageKind},
    train::PretrainConfig,
};

/// The version of the file format that this program reads.
pub const FORMAT_VERSION: u32 = 1;
/// What pipelines and stages may be called.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$";

/// What axes of a matrix may be called.
const AXIS_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]{0,39}$";

static STRICT: LazyLock<StrictSchemas> = LazyLock::new(|| {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let with = StageKind::ALL.map(|kind| {
        let schema = match kind {
            StageKind::Ingest => subschema::<IngestConfig>(&mut generator),
            StageKind::Augment => subschema::<AugmentSpec>(&mut generator),
            StageKind::Pretrain => subschema::<PretrainConfig>(&mut generator),
            StageKind::Extract => subschema::<ExtractConfig>(&mut generator),
            StageKind::Fit => subschema::<FitConfig>(&mut generator),
            StageKind::Report => subschema::<ReportConfig>(&mut generator),
            StageKind::Command => subschema::<CommandConfig>(&mut generator),
        };
        (kind, schema)
    });
    StrictSchemas { with, definitions: generator.take_definitions(true) }
});

fn subschema<T: JsonSchema>(generator: &mut schemars::SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The schemas of every kind's `with`.
struct StrictSchemas {
    with: [(StageKind, Value); 7],
    definitions: Map<String, Value>,
}

/// The schema of a kind's `with`.
pub(crate) fn with_schema(kind: StageKind) -> &'static Value {
    STRICT.with.iter().find(|(of, _)| *of == kind).map_or(&Value::Null, |(_, schema)| schema)
}

/// The type that a schema's `type` names, beside null where that is allowed, too.
pub(crate) fn type_name(kind: &Value) -> Option<&str> {
    match kind {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

/// What a schema refers to, or itself.
pub(crate) fn resolve(schema: &'static Value) -> &'static Value {
    let mut schema = schema;
    while let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        match STRICT.definitions.get(name) {
            Some(definition) => schema = definition,
            None => break,
        }
    }
    schema
}

/// The schema of the whole file for editors (JSON Schema draft 2020-12).
pub fn editor_schema() -> Value {
    let mut definitions = STRICT.definitions.clone();
    for schema in definitions.values_mut() {
        accept_references(schema);
    }
    definitions.insert("Reference".into(), reference_schema());
    definitions.insert("Stage".into(), stage_schema());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "simsiam-pipe pipeline",
        "description": "A pipeline of stages for self-supervised image pretraining.",
        "type": "object",
        "required": ["version", "stages"],
        "additionalProperties": false,
        "properties": {
            "version": { "description": "Version of the file format.", "const": FORMAT_VERSION },
            "name": {
                "description": "Name of the pipeline; without it the file's name. Results go to `runs/<name>`.",
                "anyOf": [{ "type": "string", "pattern": NAME_PATTERN }, { "$ref": "#/$defs/Reference" }]
            },
            "seed": seed_schema("Seed of everything random; a stage may have its own.", Some(0)),
            "device": {
                "description": "What computes: `auto` (the first GPU that can be used, or else the CPU), `cpu` or `cuda:N`. Results are cached for all devices alike.",
                "default": "auto",
                "anyOf": [{ "type": "string", "pattern": r"^(auto|cpu|cuda(:[0-9]+)?)$" }, { "$ref": "#/$defs/Reference" }]
            },
            "precision": {
                "description": "How a GPU computes: numbers of 32 bits, the same with products of 19 bits, or of 16 bits. The CPU always computes with 32 bits.",
                "default": "bf16",
                "anyOf": [{ "enum": ["f32", "tf32", "bf16", "f16"] }, { "$ref": "#/$defs/Reference" }]
            },
            "vars": {
                "description": "Values to use elsewhere as `${vars.name}` and to change with `--set vars.name=value`.",
                "type": ["object", "null"]
            },
            "stages": {
                "description": "The stages by name, in any order: `inputs` decide what runs before what.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": NAME_PATTERN },
                "additionalProperties": { "$ref": "#/$defs/Stage" }
            }
        },
        "$defs": definitions
    })
}

/// [`editor_schema`] as the text of `schemas/pipeline.schema.json`.
pub fn render_schema() -> String {
    format!("{:#}\n", editor_schema())
}

/// The strict schema of a seed.
pub(crate) fn strict_seed_schema() -> &'static Value {
    static SEED: LazyLock<Value> = LazyLock::new(|| json!({ "type": "integer", "format": "uint64", "minimum": 0 }));
    &SEED
}

fn seed_schema(description: &str, default: Option<u64>) -> Value {
    let mut schema = json!({
        "description": description,
        "anyOf": [{ "type": "integer", "minimum": 0 }, { "$ref": "#/$defs/Reference" }]
    });
    if let Some(default) = default {
        schema["default"] = json!(default);
    }
    schema
}

fn reference_schema() -> Value {
    json!({
        "description": "A reference: `${vars.name}`, `${env.NAME:-default}` or `${matrix.axis}`.",
        "type": "string",
        "pattern": r"^\$\{.*\}$"
    })
}

/// One stage: `uses` decides what `with` and `inputs` may hold.
fn stage_schema() -> Value {
    let kinds: Vec<Value> =
        StageKind::ALL.iter().map(|kind| json!({ "const": kind.name(), "description": kind_doc(*kind) })).collect();
    let branches: Vec<Value> = StageKind::ALL.iter().map(|kind| branch(*kind)).collect();
    json!({
        "description": "A stage.",
        "type": "object",
        "required": ["uses"],
        "additionalProperties": false,
        "properties": {
            "uses": { "description": "The kind of stage.", "oneOf": kinds },
            "inputs": { "description": "The stages whose results this one reads, by the name of the input." },
            "with": { "description": "The parameters." },
            "seed": seed_schema("Seed of this stage; without it that of an axis `seed`, or else the pipeline's.", None),
            "matrix": matrix_schema()
        },
        "allOf": branches
    })
}

/// Axes and their values.
fn matrix_schema() -> Value {
    let scalar = json!(["number", "string", "boolean"]);
    json!({
        "description": "Multiplies the stage and what follows from it: one cell for each combination of values, used as `${matrix.axis}`; an axis `seed` is the cell's seed.",
        "anyOf": [
            {
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": AXIS_PATTERN },
                "additionalProperties": {
                    "anyOf": [
                        {
                            "type": "array",
                            "minItems": 1,
                            "uniqueItems": true,
                            "items": {
                                "anyOf": [{ "type": scalar }, { "type": "array", "minItems": 1, "items": { "type": scalar } }]
                            }
                        },
                        { "$ref": "#/$defs/Reference" }
                    ]
                }
            },
            { "$ref": "#/$defs/Reference" }
        ]
    })
}

/// `if` this kind is used `then` these are its parameters and inputs.
fn branch(kind: StageKind) -> Value {
    let with = with_schema(kind);
    let mut required = vec![];
    if needs_with(kind) {
        required.push("with");
    }
    let protocols = kind.protocols();
    let mut then = json!({ "properties": { "with": with } });
    match protocols {
        [(_, inputs)] => {
            then["properties"]["inputs"] = inputs_schema(kind, inputs);
            if inputs.iter().any(|input| input.required) {
                required.push("inputs");
            }
        }
        protocols => {
            required.push("inputs");
            let by_protocol: Vec<Value> = protocols
                .iter()
                .map(|(name, inputs)| {
                    json!({
                        "if": { "required": ["with"], "properties": { "with": chosen(name, protocols) } },
                        "then": { "properties": { "inputs": inputs_schema(kind, inputs) } }
                    })
                })
                .collect();
            then["allOf"] = json!(by_protocol);
        }
    }
    then["required"] = json!(required);
    json!({
        "if": { "required": ["uses"], "properties": { "uses": { "const": kind.name() } } },
        "then": then
    })
}

/// What `with` looks like where it chooses this protocol and no other one.
fn chosen(name: &str, protocols: &[(&str, &[InputDecl])]) -> Value {
    let holds = |word: &str, key: &str| json!({ "properties": { word: { "type": "object", "required": [key] } } });
    if let Some((word, key)) = name.split_once('.') {
        let mut chosen = holds(word, key);
        chosen["type"] = json!("object");
        chosen["required"] = json!([word]);
        return chosen;
    }
    let mut chosen = json!({ "type": "object", "required": [name] });
    let narrower = protocols.iter().filter_map(|(other, _)| other.strip_prefix(name)?.strip_prefix('.'));
    for key in narrower {
        chosen["not"] = holds(name, key);
    }
    chosen
}

/// Whether a stage of this kind has parameters without a default.
pub(crate) fn needs_with(kind: StageKind) -> bool {
    let schema = resolve(with_schema(kind));
    schema.get("oneOf").is_some() || schema["required"].as_array().is_some_and(|required| !required.is_empty())
}

fn inputs_schema(kind: StageKind, inputs: &[InputDecl]) -> Value {
    let stage =
        json!({ "type": "string", "description": "Name of a stage; `STAGE@*` or `STAGE@axis=value` for cells." });
    let many = json!({ "anyOf": [{ "type": "array", "items": stage }, stage] });
    if kind.takes_any_input() {
        return json!({
            "description": "The stages whose results the program reads, by names of your choice.",
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": many
        });
    }
    let properties: Map<String, Value> = inputs
        .iter()
        .map(|input| {
            let mut schema = if input.many { many.clone() } else { json!({ "type": "string" }) };
            schema["description"] = json!(input.doc);
            (input.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = inputs.iter().filter(|input| input.required).map(|input| input.name).collect();
    let kinds = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    json!({ "type": kinds, "properties": properties, "required": required, "additionalProperties": false })
}

/// One sentence about a kind.
pub(crate) fn kind_doc(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Ingest => "Reads images once and stores them decoded: a dataset.",
        StageKind::Augment => "How one image becomes one view, with a contact sheet: an augmentation policy.",
        StageKind::Pretrain => "SimSiam pretraining: an encoder.",
        StageKind::Extract => "Features of every image from the frozen backbone: embeddings.",
        StageKind::Fit => "A classifier on embeddings or on images, with its metrics.",
        StageKind::Report => "One page about the run.",
        StageKind::Command => "Any program of your own.",
    }
}

/// Lets a reference stand where a number, a truth value, a choice or a list of numbers is expected.
fn accept_references(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for key in ["properties", "$defs"] {
        if let Some(Value::Object(children)) = object.get_mut(key) {
            children.values_mut().for_each(accept_references);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key) {
            accept_references(child);
        }
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(Value::Array(children)) = object.get_mut(key) {
            // Constants stay constants: the reference stands beside all of them.
            children.iter_mut().filter(|child| child.get("const").is_none()).for_each(accept_references);
        }
    }
    let is_number = |schema: &Map<String, Value>| {
        let kind = schema.get("type").and_then(type_name);
        matches!(kind, Some("number" | "integer" | "boolean"))
    };
    let is_number_list = object.get("type").and_then(Value::as_str) == Some("array")
        && object.get("items").is_some_and(|items| items.get("anyOf").is_some());
    let is_choice = object
        .get("oneOf")
        .and_then(Value::as_array)
        .is_some_and(|variants| variants.iter().any(|variant| variant.get("const").is_some()));
    if !(is_number(object) || is_number_list || is_choice || object.contains_key("enum")) {
        return;
    }
    // Description and default stay outside, where editors look for them.
    let mut outer = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = object.remove(key) {
            outer.insert(key.into(), value);
        }
    }
    let inner = std::mem::take(object);
    outer.insert("anyOf".into(), json!([inner, { "$ref": "#/$defs/Reference" }]));
    *object = outer;
}
