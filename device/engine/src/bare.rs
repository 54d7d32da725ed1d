//! An ONNX file without a model card: its graph can be looked at and timed, it can't label pictures.

use std::path::Path;

use graft_shared::error::{Context, Error, Result};
use prost::Message;
use prost::bytes::Bytes;
use tract_onnx::pb::ValueInfoProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::type_proto;
use tract_onnx::prelude::*;

use crate::plan::{NodeReport, Plan};
use crate::{model, proto};

/// A graph with one image as its input: bytes or f32, all dimensions known but the batch, which is 1.
#[derive(Debug)]
pub struct Graph {
    plan: Plan,
    input: Tensor,
    bytes: usize,
}

impl Graph {
    /// Opens an ONNX file for as many `threads`.
    ///
    /// # Errors
    /// When it can't be read, is no ONNX file, has another kind of input, or its graph can't be run.
    pub fn open(path: &Path, threads: usize) -> Result<Graph> {
        let place = || format!("can't open the model {}", path.display());
        let bytes = model::read(path).with_context(place)?;
        Graph::new(bytes, threads).with_context(place)
    }

    /// Opens the bytes of an ONNX file.
    pub(crate) fn new(bytes: Bytes, threads: usize) -> Result<Graph> {
        let len = bytes.len();
        let proto = proto::Model::decode(bytes).context("it is not an ONNX file")?;
        let input = proto
            .graph
            .as_ref()
            .and_then(|graph| {
                let constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
                graph.input.iter().find(|input| !constant(&input.name))
            })
            .and_then(picture)
            .ok_or_else(|| Error::new("its input is not one image of known size"))?;
        let plan = Plan::new(proto, (input.datum_type(), input.shape()), threads)?;
        Ok(Graph {
            plan,
            input,
            bytes: len,
        })
    }

    /// Which nodes run in our operators.
    pub fn nodes(&self) -> &NodeReport {
        &self.plan.nodes
    }

    /// Multiply-adds of one run in our operators.
    pub fn macs(&self) -> u64 {
        self.plan.macs
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first output for a generated picture: byte `i` of it is bits 8 to 15 of `2_654_435_761 i`, and where the input
    /// is f32, `(byte - 127) / 64`.
    ///
    /// # Errors
    /// When the graph fails, or its output is not f32.
    pub fn run(&self) -> Result<Vec<f32>> {
        let output = self.plan.run(self.input.clone())?;
        let values = || Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec());
        values().map_err(|error: TractError| Error::new(error.to_string()))
    }

    /// Nanoseconds of each of our operators, summed over `runs` runs.
    pub(crate) fn profile(&self, runs: usize) -> Result<Vec<u64>> {
        self.plan.profile(&self.input, runs)
    }
}

/// A generated picture of the type and shape that `info` describes.
fn picture(info: &ValueInfoProto) -> Option<Tensor> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let dims = &tensor.shape.as_ref()?.dim;
    let mut shape = vec![];
    for (axis, dim) in dims.iter().enumerate() {
        shape.push(match dim.value {
            Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok()?,
            _ if axis == 0 => 1,
            _ => return None,
        });
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &d| product.checked_mul(d))
        .filter(|elements| shape.len() == 4 && shape[0] == 1 && (1..1 << 24).contains(elements))?;
    let byte = |index: usize| ((index as u64).wrapping_mul(2_654_435_761) >> 8) as u8;
    if tensor.elem_type == DataType::Uint8 as i32 {
        let bytes: Vec<u8> = (0..elements).map(byte).collect();
        Tensor::from_shape(&shape, &bytes).ok()
    } else if tensor.elem_type == DataType::Float as i32 {
        let reals = (0..elements).map(|index| (f32::from(byte(index)) - 127.0) / 64.0);
        Tensor::from_shape(&shape, &reals.collect::<Vec<f32>>()).ok()
    } else {
        None
    }
}
