//! Assembles a `ModelProto` node by node.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use super::Signature;

/// Opset with per-channel QuantizeLinear and DequantizeLinear (since 13) and HardSwish, and the IR version that goes with it.
const OPSET: i64 = 14;
const IR_VERSION: i64 = 7;

/// A graph being written. Values are named by strings; an initializer's name is unique.
#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

/// An attribute's value.
pub(super) enum Attribute {
    Integer(i64),
    Integers(Vec<i64>),
    Float(f32),
}

impl Builder {
    /// Adds `operator` with one output, named like the node, and returns the output's name.
    pub(super) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: operator.to_owned(),
            attribute: attributes
                .into_iter()
                .map(|(name, value)| attribute(name, value))
                .collect(),
            ..Default::default()
        });
        name.to_owned()
    }

    /// Adds a constant of f32 values; no dimension makes a scalar.
    pub(super) fn floats(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, DataType::Float, dims, bytes)
    }

    /// Adds a constant of i32 values.
    pub(super) fn ints(&mut self, name: String, dims: &[usize], values: &[i32]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, DataType::Int32, dims, bytes)
    }

    /// Adds a constant of i8 values.
    pub(super) fn signed_bytes(&mut self, name: String, dims: &[usize], values: &[i8]) -> String {
        let bytes = values.iter().map(|value| value.to_le_bytes()[0]).collect();
        self.constant(name, DataType::Int8, dims, bytes)
    }

    /// Adds a constant of one u8.
    pub(super) fn byte(&mut self, name: String, value: u8) -> String {
        self.constant(name, DataType::Uint8, &[], vec![value])
    }

    fn constant(
        &mut self,
        name: String,
        data_type: DataType,
        dims: &[usize],
        raw_data: Vec<u8>,
    ) -> String {
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: data_type as i32,
            name: name.clone(),
            raw_data,
            ..Default::default()
        });
        name
    }

    /// The model's bytes.
    pub(super) fn finish(self, signature: Signature) -> Vec<u8> {
        let image = [1, signature.height, signature.width, 3];
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            producer_name: "graft".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(GraphProto {
                name: "classifier".to_owned(),
                node: self.nodes,
                initializer: self.initializers,
                input: vec![value("image", DataType::Uint8, &image)],
                output: vec![value("logits", DataType::Float, &[1, signature.classes])],
                ..Default::default()
            }),
            ..Default::default()
        };
        model.encode_to_vec()
    }
}

fn attribute(name: &str, value: Attribute) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: name.to_owned(),
        ..Default::default()
    };
    match value {
        Attribute::Integer(integer) => {
            (attribute.r#type, attribute.i) = (AttributeType::Int as i32, integer)
        }
        Attribute::Integers(integers) => {
            (attribute.r#type, attribute.ints) = (AttributeType::Ints as i32, integers)
        }
        Attribute::Float(float) => {
            (attribute.r#type, attribute.f) = (AttributeType::Float as i32, float)
        }
    }
    attribute
}

fn value(name: &str, data_type: DataType, dims: &[usize]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: Some(dimension::Value::DimValue(*dim as i64)),
            ..Default::default()
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: data_type as i32,
        shape: Some(TensorShapeProto { dim }),
    };
    let r#type = Some(TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type,
        ..Default::default()
    }
}
