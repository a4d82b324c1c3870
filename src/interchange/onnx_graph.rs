//! Nodes and weights, one after the other: the graph that is being built.

use super::onnx_proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, AttributeProto, Dimension, DimensionProto, FLOAT, GraphProto,
    NodeProto, ShapeProto, TensorProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// ONNX's number for i64.
const INT64: i32 = 7;

/// A graph in the order of its nodes. A value is known by its name.
#[derive(Default)]
pub(super) struct OnnxGraph {
    graph: GraphProto,
}

impl OnnxGraph {
    /// Declares an input of any number of images.
    pub(super) fn input(&mut self, name: &str, shape: &[usize]) -> String {
        self.graph.input.push(value_info(name, shape));
        name.to_owned()
    }

    /// Declares that a value is an output.
    pub(super) fn output(&mut self, name: &str, shape: &[usize]) {
        self.graph.output.push(value_info(name, shape));
    }

    /// Adds weights.
    pub(super) fn weights(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.tensor(name, shape, FLOAT, bytemuck::cast_slice(values))
    }

    /// Adds integers.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.tensor(name, &[values.len()], INT64, bytemuck::cast_slice(values))
    }

    fn tensor(&mut self, name: &str, shape: &[usize], data_type: i32, bytes: &[u8]) -> String {
        let dims = shape.iter().map(|&size| size as i64).collect();
        self.graph.initializer.push(TensorProto { dims, data_type, name: name.into(), raw_data: bytes.to_vec() });
        name.to_owned()
    }

    /// Adds a node with one output, which has the name of the node.
    pub(super) fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> String {
        self.node_of(op, name, inputs, &[name], attributes);
        name.to_owned()
    }

    /// Adds a node.
    pub(super) fn node_of(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[Attribute<'_>],
    ) {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            name: name.into(),
            op_type: op.into(),
            attribute: attributes.iter().map(Attribute::proto).collect(),
        });
    }

    /// The graph.
    pub(super) fn finish(mut self, name: &str) -> GraphProto {
        name.clone_into(&mut self.graph.name);
        self.graph
    }
}

/// A constant of a node.
#[derive(Clone, Copy)]
pub(super) enum Attribute<'a> {
    Float(&'static str, f32),
    Int(&'static str, i64),
    Ints(&'static str, &'a [i64]),
}

impl Attribute<'_> {
    fn proto(&self) -> AttributeProto {
        match *self {
            Self::Float(name, f) => {
                AttributeProto { name: name.into(), f, r#type: ATTRIBUTE_FLOAT, ..AttributeProto::default() }
            }
            Self::Int(name, i) => {
                AttributeProto { name: name.into(), i, r#type: ATTRIBUTE_INT, ..AttributeProto::default() }
            }
            Self::Ints(name, ints) => AttributeProto {
                name: name.into(),
                ints: ints.to_vec(),
                r#type: ATTRIBUTE_INTS,
                ..AttributeProto::default()
            },
        }
    }
}

/// An f32 tensor [batch, shape…], the batch of any size.
fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let batch = Dimension::Param("batch".into());
    let sizes = shape.iter().map(|&size| Dimension::Value(size as i64));
    let dim = std::iter::once(batch).chain(sizes).map(|value| DimensionProto { value: Some(value) }).collect();
    let tensor_type = TensorTypeProto { elem_type: FLOAT, shape: Some(ShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
