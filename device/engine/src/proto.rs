//! ONNX's messages as far as models are read. They are tract's, but for constants: the raw values of these are not
//! copied, they stay where they lie in the file.

use std::ops::Deref;

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use tract_onnx::pb;

/// `raw_data` of a `TensorProto`.
const RAW_DATA: u32 = 9;

/// ONNX's `ModelProto`, without metadata.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<pb::OperatorSetIdProto>,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "20")]
    pub(crate) training_info: Vec<pb::TrainingInfoProto>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<pb::FunctionProto>,
}

/// ONNX's `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<pb::NodeProto>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<Constant>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse_initializer: Vec<pb::SparseTensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<pb::ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<pb::ValueInfoProto>,
}

/// ONNX's `TensorProto`, whose own `raw_data` is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Constant {
    tensor: pb::TensorProto,
    /// Its `raw_data`: a piece of the file.
    pub(crate) raw: Bytes,
}

impl Deref for Constant {
    type Target = pb::TensorProto;

    fn deref(&self) -> &pb::TensorProto {
        &self.tensor
    }
}

impl Message for Constant {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.tensor.encode_raw(buf);
        encoding::bytes::encode(RAW_DATA, &self.raw, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            RAW_DATA => encoding::bytes::merge(wire_type, &mut self.raw, buf, ctx),
            _ => self.tensor.merge_field(tag, wire_type, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        self.tensor.encoded_len() + encoding::bytes::encoded_len(RAW_DATA, &self.raw)
    }

    fn clear(&mut self) {
        *self = Constant::default();
    }
}

impl From<Model> for pb::ModelProto {
    fn from(model: Model) -> pb::ModelProto {
        pb::ModelProto {
            ir_version: model.ir_version,
            opset_import: model.opset_import,
            graph: model.graph.map(|graph| pb::GraphProto {
                node: graph.node,
                name: graph.name,
                initializer: graph.initializer.into_iter().map(Into::into).collect(),
                input: graph.input,
                output: graph.output,
                ..pb::GraphProto::default()
            }),
            ..pb::ModelProto::default()
        }
    }
}

impl From<Constant> for pb::TensorProto {
    fn from(Constant { tensor, raw }: Constant) -> pb::TensorProto {
        pb::TensorProto {
            raw_data: raw.into(),
            ..tensor
        }
    }
}
