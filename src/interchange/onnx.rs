//! A network, alone or with its classifier, as an ONNX model.
//!
//! The input `images` is [batch, 3, size, size], normalised RGB, as PyTorch has it; `features` is [batch, dim] and, with a
//! classifier, `probabilities` [batch, classes]. Weights keep the names of `encoder.safetensors`; batch norms stay nodes
//! of their own, which runtimes fuse and people can still train. How a file becomes the input stands in the metadata.

use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::json;

use super::{
    onnx_graph::{Attribute, OnnxGraph},
    onnx_proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto},
    preprocessing_text::describe,
};
use crate::{
    eval::{
        EvalError,
        classifier_artifact::{ClassifierCard, Head},
        eval_config::KnnWeights,
        model_artifact::ModelArtifact,
        tensor_file::format_error,
    },
    model::backbone::{
        Backbone, ConvBn, GlobalPool, MaxPool, StateData,
        op::{Op, Residual},
        program::Program,
    },
};

/// Of 2021, and still what every runtime reads.
const OPSET: i64 = 15;
const IR_VERSION: i64 = 8;
/// Added to a variance, as in PyTorch and here.
const BATCH_NORM_EPSILON: f32 = 1e-5;
/// No length counts as less, as in PyTorch's `normalize` and here.
const SMALLEST_NORM: f32 = 1e-12;

/// The model's bytes.
///
/// # Errors
/// Where the weights cannot be read or are not the network's.
pub fn onnx_model(artifact: &ModelArtifact) -> Result<Vec<u8>, EvalError> {
    let network = artifact.backbone()?;
    let mut graph = OnnxGraph::default();
    let size = artifact.preprocessing.image_size as usize;
    let images = graph.input("images", &[3, size, size]);
    let features = backbone(&mut graph, &network, &images);
    graph.output(&features, &[artifact.feature_dim]);
    if let Some((card, head)) = &artifact.classifier {
        let probabilities = match head {
            Head::Linear(linear) => {
                let (classes, dim) = (linear.num_classes(), linear.dim);
                let x = if linear.l2_normalize { unit_length(&mut graph, &features) } else { features };
                let weight = graph.weights("classifier.weight", &[classes, dim], &linear.weight);
                let bias = graph.weights("classifier.bias", &[classes], &linear.bias);
                let logits = graph.node("Gemm", "logits", &[&x, &weight, &bias], &[Attribute::Int("transB", 1)]);
                graph.node("Softmax", "probabilities", &[&logits], &[Attribute::Int("axis", 1)])
            }
            Head::Knn(_) => neighbours(&mut graph, &features, card, head),
        };
        graph.output(&probabilities, &[card.class_names.len()]);
    }
    let metadata = metadata(artifact);
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: metadata["preprocessing"].clone(),
        graph: Some(graph.finish(artifact.backbone.name())),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata
            .into_iter()
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .collect(),
    };
    if model.encoded_len() > i32::MAX as usize {
        return Err(format_error(&artifact.dir, "a model of more than 2 GiB is too large for an ONNX file"));
    }
    Ok(model.encode_to_vec())
}

/// What a user of the file must know: prose for people, JSON for programs.
fn metadata(artifact: &ModelArtifact) -> BTreeMap<&'static str, String> {
    let mut metadata = BTreeMap::from([
        ("preprocessing", describe(&artifact.preprocessing)),
        ("preprocessing_json", json!(artifact.preprocessing).to_string()),
        ("backbone", json!(artifact.backbone).to_string()),
    ]);
    if let Some((card, _)) = &artifact.classifier {
        metadata.insert("class_names", json!(card.class_names).to_string());
        metadata.insert("protocol", card.protocol.clone());
    }
    metadata
}

/// The features of `images`.
fn backbone(graph: &mut OnnxGraph, network: &Backbone, images: &str) -> String {
    for entry in network.state_dict() {
        // Counters of batches play no part.
        if let StateData::F32(values) = &entry.data {
            graph.weights(&entry.name, &entry.shape, values);
        }
    }
    let program = network.program();
    let mut slots = vec![String::new(); program.num_slots];
    images.clone_into(&mut slots[0]);
    for op in &program.ops {
        let output = match op {
            Op::ConvBn { layer, input, residual, relu, pool, output } => {
                let normed = conv_bn(graph, program, layer, &slots[input.0]);
                let after_relu = |graph: &mut OnnxGraph, x: &str| {
                    if *relu { graph.node("Relu", &format!("{x}.relu"), &[x], &[]) } else { x.to_owned() }
                };
                let add = |graph: &mut OnnxGraph, x: &str, added: &str| {
                    graph.node("Add", &format!("{x}.add"), &[x, added], &[])
                };
                let summed = match residual {
                    Residual::None => after_relu(graph, &normed),
                    Residual::BeforeRelu(added) => {
                        let sum = add(graph, &normed, &slots[added.0]);
                        after_relu(graph, &sum)
                    }
                    Residual::AfterRelu(added) => {
                        let activated = after_relu(graph, &normed);
                        add(graph, &activated, &slots[added.0])
                    }
                };
                match pool {
                    Some(pool) => max_pool(graph, *pool, &summed, output.0),
                    None => summed,
                }
            }
            Op::GlobalPool { layer, input, .. } => {
                let kind = match layer {
                    GlobalPool::Average => "GlobalAveragePool",
                    GlobalPool::Maximum => "GlobalMaxPool",
                };
                let pooled = graph.node(kind, "pooled", &[&slots[input.0]], &[]);
                graph.node("Flatten", "features", &[&pooled], &[Attribute::Int("axis", 1)])
            }
        };
        slots[op.output().0] = output;
    }
    slots.swap_remove(program.output.0)
}

fn conv_bn(graph: &mut OnnxGraph, program: &Program, layer: &ConvBn, input: &str) -> String {
    let parameter = |idx: usize| program.parameters[idx].name.as_str();
    let weight = parameter(layer.weight);
    let edge = |size: usize| [size as i64; 2];
    let padding = [layer.padding as i64; 4];
    let (kernel, stride) = (edge(layer.kernel), edge(layer.stride));
    let conv = graph.node(
        "Conv",
        weight.strip_suffix(".weight").unwrap_or(weight),
        &[input, weight],
        &[
            Attribute::Ints("kernel_shape", &kernel),
            Attribute::Ints("strides", &stride),
            Attribute::Ints("pads", &padding),
        ],
    );
    let norm = &program.norms[layer.norm].name;
    let (mean, variance) = (format!("{norm}.running_mean"), format!("{norm}.running_var"));
    let inputs = [&conv, parameter(layer.scale), parameter(layer.shift), &mean, &variance];
    graph.node("BatchNormalization", norm, &inputs, &[Attribute::Float("epsilon", BATCH_NORM_EPSILON)])
}

fn max_pool(graph: &mut OnnxGraph, layer: MaxPool, input: &str, slot: usize) -> String {
    let (kernel, stride) = ([layer.kernel as i64; 2], [layer.stride as i64; 2]);
    graph.node(
        "MaxPool",
        &format!("maxpool{slot}"),
        &[input],
        &[
            Attribute::Ints("kernel_shape", &kernel),
            Attribute::Ints("strides", &stride),
            Attribute::Ints("pads", &[layer.padding as i64; 4]),
        ],
    )
}

/// Rows divided by their length.
fn unit_length(graph: &mut OnnxGraph, features: &str) -> String {
    let length = graph.node("ReduceL2", "length", &[features], &[Attribute::Ints("axes", &[1])]);
    let smallest = graph.weights("smallest_length", &[], &[SMALLEST_NORM]);
    let length = graph.node("Max", "clamped_length", &[&length, &smallest], &[]);
    graph.node("Div", "unit_features", &[features, &length], &[])
}

/// The vote of the nearest rows of the bank: each a row of shares by class, taken by index.
fn neighbours(graph: &mut OnnxGraph, features: &str, card: &ClassifierCard, head: &Head) -> String {
    let Head::Knn(knn) = head else { return String::new() };
    let (classes, dim) = (card.class_names.len(), card.feature_dim as usize);
    let n = knn.labels().len();
    // [dim, n], so that the product needs no transposition.
    let mut bank = vec![0.0; n * dim];
    for (row, values) in knn.bank().chunks_exact(dim).enumerate() {
        for (column, value) in values.iter().enumerate() {
            bank[column * n + row] = *value;
        }
    }
    let mut votes = vec![0.0; n * classes];
    for (row, &label) in knn.labels().iter().enumerate() {
        votes[row * classes + label as usize] = 1.0;
    }
    let x = unit_length(graph, features);
    let bank = graph.weights("bank", &[dim, n], &bank);
    let votes = graph.weights("bank_votes", &[n, classes], &votes);
    let k = graph.integers("k", &[knn.k() as i64]);
    let similarities = graph.node("MatMul", "similarities", &[&x, &bank], &[]);
    graph.node_of("TopK", "topk", &[&similarities, &k], &["nearest", "nearest_rows"], &[Attribute::Int("axis", 1)]);
    let taken = graph.node("Gather", "nearest_votes", &[&votes, "nearest_rows"], &[Attribute::Int("axis", 0)]);
    // exp(s / t) in shares of all is softmax(s / t).
    let temperature = match knn.weights() {
        KnnWeights::Similarity => knn.temperature() as f32,
        KnnWeights::Uniform => f32::INFINITY,
    };
    let temperature = graph.weights("temperature", &[], &[temperature]);
    let scaled = graph.node("Div", "scaled", &["nearest", &temperature], &[]);
    let shares = graph.node("Softmax", "shares", &[&scaled], &[Attribute::Int("axis", 1)]);
    let second = graph.integers("second_axis", &[1]);
    // [batch, 1, k] · [batch, k, classes]
    let rows = graph.node("Unsqueeze", "share_rows", &[&shares, &second], &[]);
    let product = graph.node("MatMul", "vote_rows", &[&rows, &taken], &[]);
    graph.node("Squeeze", "probabilities", &[&product, &second], &[])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        eval::{
            classifier_artifact::CLASSIFIER_FORMAT, embeddings::tests::encoder_card, eval_config::KnnConfig,
            knn::KnnClassifier, linear_classifier::LinearClassifier,
        },
        interchange::onnx_proto::{Dimension, FLOAT},
        model::{
            backbone::{BackboneConfig, ResnetConfig, backbone_config::DarknetTinyConfig},
            state::to_safetensors,
        },
    };

    fn artifact(dir: &std::path::Path, config: BackboneConfig, head: Option<Head>) -> ModelArtifact {
        let backbone = Backbone::build(&config, 3).unwrap();
        let weights = dir.join("backbone.safetensors");
        std::fs::write(&weights, to_safetensors(&backbone.state_dict(), BTreeMap::new()).unwrap()).unwrap();
        let encoder = encoder_card(backbone.feature_dim() as u32);
        let classifier = head.map(|head| {
            let card = ClassifierCard {
                format: CLASSIFIER_FORMAT,
                protocol: "knn".into(),
                class_names: vec!["a".into(), "b".into()],
                feature_dim: encoder.feature_dim,
                head: head.card(),
                backbone: config,
                preprocessing: encoder.preprocessing,
                solver: None,
            };
            (card, head)
        });
        ModelArtifact {
            dir: dir.to_owned(),
            backbone: config,
            weights,
            preprocessing: encoder.preprocessing,
            feature_dim: backbone.feature_dim(),
            classifier,
        }
    }

    /// Every value is made exactly once and before it is used, every weight is used or a statistic, every output is made.
    fn check(bytes: &[u8], outputs: &[&str]) -> ModelProto {
        let model = ModelProto::decode(bytes).unwrap();
        let graph = model.graph.as_ref().unwrap();
        let weights = graph.initializer.iter().map(|tensor| &tensor.name);
        let mut made: BTreeSet<&String> = BTreeSet::new();
        for name in graph.input.iter().map(|input| &input.name).chain(weights) {
            assert!(made.insert(name), "`{name}` twice");
        }
        let mut used: BTreeSet<&String> = BTreeSet::new();
        for node in &graph.node {
            for input in &node.input {
                assert!(made.contains(input), "`{}` uses `{input}` before it is made", node.name);
                used.insert(input);
            }
            for output in &node.output {
                assert!(made.insert(output), "`{output}` twice");
            }
        }
        for tensor in &graph.initializer {
            assert!(used.contains(&tensor.name), "`{}` is not used", tensor.name);
            let values: i64 = tensor.dims.iter().product();
            let size = if tensor.data_type == FLOAT { 4 } else { 8 };
            assert_eq!(tensor.raw_data.len() as i64, size * values, "`{}`", tensor.name);
        }
        let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, outputs);
        assert!(graph.output.iter().all(|output| made.contains(&output.name)));
        model
    }

    #[test]
    fn networks_and_classifiers_are_whole_graphs() {
        let dir = tempfile::tempdir().unwrap();
        let tiny = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
        for config in [tiny, BackboneConfig::Resnet50(ResnetConfig::default())] {
            let model = check(&onnx_model(&artifact(dir.path(), config, None)).unwrap(), &["features"]);
            let graph = model.graph.unwrap();
            let convolutions = graph.node.iter().filter(|node| node.op_type == "Conv").count();
            let state = Backbone::build(&config, 3).unwrap().state_dict();
            assert_eq!(convolutions, state.iter().filter(|entry| entry.shape.len() == 4).count());
            let input = graph.input[0].r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap();
            assert_eq!(input.dim[0].value, Some(Dimension::Param("batch".into())));
            assert!(model.metadata_props.iter().any(|entry| entry.key == "preprocessing"));
        }
        let linear = |l2_normalize| {
            Head::Linear(LinearClassifier { weight: vec![0.1; 256], bias: vec![0.0; 2], dim: 128, l2_normalize })
        };
        let knn = KnnClassifier::new(&[0.5; 3 * 128], &[0, 1, 1], 128, 2, &KnnConfig::default()).unwrap();
        for head in [linear(true), linear(false), Head::Knn(knn)] {
            let bytes = onnx_model(&artifact(dir.path(), tiny, Some(head))).unwrap();
            let model = check(&bytes, &["features", "probabilities"]);
            let names = model.metadata_props.iter().find(|entry| entry.key == "class_names").unwrap();
            assert_eq!(names.value, "[\"a\",\"b\"]");
        }
    }
}
