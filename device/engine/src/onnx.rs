//! Reading ONNX protobuf: constants, attributes, who makes and who uses a tensor. What does not fit is `None`.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use crate::ops::Quantized;
use crate::passes::Operators;
use crate::proto::{Constant, Graph};
use graft_kernels::{Quantization, signed};
use prost::bytes::Bytes;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// The product of `tensor`'s dimensions.
pub(crate) fn elements(tensor: &TensorProto) -> Option<usize> {
    tensor.dims.iter().try_fold(1usize, |product, &d| {
        product.checked_mul(usize::try_from(d).ok()?)
    })
}

fn of_type(tensor: &TensorProto, expected: DataType) -> Option<()> {
    (tensor.data_type == expected as i32).then_some(())
}

fn complete<T>(tensor: &TensorProto, values: Vec<T>) -> Option<Vec<T>> {
    (elements(tensor) == Some(values.len())).then_some(values)
}

/// All values of an f32 tensor.
pub(crate) fn f32_values(tensor: &Constant) -> Option<Vec<f32>> {
    of_type(tensor, DataType::Float)?;
    let values = if tensor.raw.is_empty() {
        tensor.float_data.clone()
    } else {
        words(&tensor.raw)?.map(f32::from_le_bytes).collect()
    };
    complete(tensor, values)
}

/// All values of an i32 tensor.
pub(crate) fn i32_values(tensor: &Constant) -> Option<Vec<i32>> {
    of_type(tensor, DataType::Int32)?;
    let values = if tensor.raw.is_empty() {
        tensor.int32_data.clone()
    } else {
        words(&tensor.raw)?.map(i32::from_le_bytes).collect()
    };
    complete(tensor, values)
}

/// All values of an i64 tensor.
pub(crate) fn i64_values(tensor: &Constant) -> Option<Vec<i64>> {
    of_type(tensor, DataType::Int64)?;
    let values = if tensor.raw.is_empty() {
        tensor.int64_data.clone()
    } else {
        words(&tensor.raw)?.map(i64::from_le_bytes).collect()
    };
    complete(tensor, values)
}

/// All values of an i8 tensor.
pub(crate) fn i8_values(tensor: &Constant) -> Option<Weights> {
    of_type(tensor, DataType::Int8)?;
    let values = if tensor.raw.is_empty() {
        let values = tensor.int32_data.iter();
        values
            .map(|v| i8::try_from(*v).ok())
            .collect::<Option<Weights>>()?
    } else {
        Weights(tensor.raw.clone())
    };
    (elements(tensor) == Some(values.len())).then_some(values)
}

/// The values of an i8 tensor: most often a piece of the file.
#[derive(Debug, Clone)]
pub(crate) struct Weights(Bytes);

impl Deref for Weights {
    type Target = [i8];

    fn deref(&self) -> &[i8] {
        signed(&self.0)
    }
}

impl FromIterator<i8> for Weights {
    fn from_iter<I: IntoIterator<Item = i8>>(values: I) -> Weights {
        Weights(values.into_iter().map(i8::cast_unsigned).collect())
    }
}

/// All values of an u8 tensor.
pub(crate) fn u8_values(tensor: &Constant) -> Option<Vec<u8>> {
    of_type(tensor, DataType::Uint8)?;
    let values = if tensor.raw.is_empty() {
        tensor
            .int32_data
            .iter()
            .map(|v| u8::try_from(*v).ok())
            .collect::<Option<_>>()?
    } else {
        tensor.raw.to_vec()
    };
    complete(tensor, values)
}

fn words<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let (words, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| words.iter().copied())
}

/// The attribute `name` of `node`.
pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// The integer attribute `name`, or `default` where there is none.
pub(crate) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

/// The integers of attribute `name`, or `default` where there is none; `None` if there are not `N` or one is negative.
pub(crate) fn sizes<const N: usize>(
    node: &NodeProto,
    name: &str,
    default: [usize; N],
) -> Option<[usize; N]> {
    let Some(attribute) = attribute(node, name) else {
        return Some(default);
    };
    let values: Vec<usize> = attribute
        .ints
        .iter()
        .map(|v| usize::try_from(*v).ok())
        .collect::<Option<_>>()?;
    values.try_into().ok()
}

/// Who makes and who uses each tensor of a graph.
pub(crate) struct View<'a> {
    operators: &'a Operators,
    producers: HashMap<&'a str, &'a NodeProto>,
    constants: HashMap<&'a str, &'a Constant>,
    byte_inputs: HashSet<&'a str>,
    float_inputs: HashSet<&'a str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(graph: &'a Graph, operators: &'a Operators) -> View<'a> {
        let producers = graph
            .node
            .iter()
            .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)))
            .collect();
        let constants: HashMap<_, _> = graph
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t))
            .collect();
        let inputs_of = |expected: DataType| -> HashSet<&'a str> {
            graph
                .input
                .iter()
                .filter(|input| element_type(input) == Some(expected as i32))
                .map(|input| input.name.as_str())
                .filter(|name| !constants.contains_key(name))
                .collect()
        };
        let byte_inputs = inputs_of(DataType::Uint8);
        let float_inputs = inputs_of(DataType::Float);
        View {
            operators,
            producers,
            constants,
            byte_inputs,
            float_inputs,
        }
    }

    /// The node that makes `tensor`.
    pub(crate) fn any_producer(&self, tensor: &str) -> Option<&'a NodeProto> {
        self.producers.get(tensor).copied()
    }

    /// Our operator that makes `tensor`.
    pub(crate) fn operator(&self, tensor: &str) -> Option<&'a dyn Quantized> {
        self.operators.get(tensor).map(|operator| &**operator)
    }

    /// Whether one of our operators makes `tensor`, an image of one position: a global average pool, or layers on one.
    pub(crate) fn is_position(&self, tensor: &str) -> bool {
        let mut tensor = tensor;
        while let Some(operator) = self.operator(tensor) {
            match operator.name() {
                "GlobalAveragePool" => return true,
                "Conv" | "Table" => {}
                _ => return false,
            }
            match self
                .any_producer(tensor)
                .and_then(|node| has_input(node, 0))
            {
                Some(input) => tensor = input,
                None => return false,
            }
        }
        false
    }

    /// The node of type `op_type` in the standard domain that makes `tensor`.
    pub(crate) fn producer(&self, tensor: &str, op_type: &str) -> Option<&'a NodeProto> {
        self.any_producer(tensor).filter(|node| is(node, op_type))
    }

    /// The constant that input `index` of `node` is.
    pub(crate) fn constant(&self, node: &NodeProto, index: usize) -> Option<&'a Constant> {
        self.constants.get(node.input.get(index)?.as_str()).copied()
    }

    /// The one f32 that input `index` of `node` is.
    pub(crate) fn f32(&self, node: &NodeProto, index: usize) -> Option<f32> {
        match f32_values(self.constant(node, index)?)?[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// The one u8 that input `index` of `node` is.
    pub(crate) fn u8(&self, node: &NodeProto, index: usize) -> Option<u8> {
        match u8_values(self.constant(node, index)?)?[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// The scale and zero point that inputs `index` and `index + 1` of `node` are, for a whole tensor of bytes.
    pub(crate) fn quantization(&self, node: &NodeProto, index: usize) -> Option<Quantization> {
        Some(Quantization {
            scale: self.f32(node, index)?,
            zero_point: self.u8(node, index + 1)?,
        })
    }

    /// What a DequantizeLinear with one scale and zero point makes `tensor` of, and what the bytes stand for.
    pub(crate) fn dequantized(&self, tensor: &str) -> Option<(&'a str, Quantization)> {
        let node = self.producer(tensor, "DequantizeLinear")?;
        Some((has_input(node, 0)?, self.quantization(node, 1)?))
    }

    /// Whether input `index` of `node` is absent, or a constant i8 tensor of zeros alone.
    pub(crate) fn zero_point_is_zero(&self, node: &NodeProto, index: usize) -> bool {
        has_input(node, index).is_none()
            || self
                .constant(node, index)
                .and_then(i8_values)
                .is_some_and(|z| z.iter().all(|z| *z == 0))
    }

    /// Whether `tensor` is a graph input of bytes.
    pub(crate) fn is_byte_input(&self, tensor: &str) -> bool {
        self.byte_inputs.contains(tensor)
    }

    /// Whether `tensor` is a graph input of f32.
    pub(crate) fn is_float_input(&self, tensor: &str) -> bool {
        self.float_inputs.contains(tensor)
    }
}

/// The element type in an input's or output's description.
fn element_type(info: &tract_onnx::pb::ValueInfoProto) -> Option<i32> {
    let tract_onnx::pb::type_proto::Value::TensorType(tensor) =
        info.r#type.as_ref()?.value.as_ref()?;
    Some(tensor.elem_type)
}

/// Whether `node` is the standard operator `op_type`, with one output.
pub(crate) fn is(node: &NodeProto, op_type: &str) -> bool {
    node.op_type == op_type
        && (node.domain.is_empty() || node.domain == "ai.onnx")
        && node.output.len() == 1
}

/// Whether `node` is ONNX Runtime's own operator `op_type`, with one output.
pub(crate) fn is_contributed(node: &NodeProto, op_type: &str) -> bool {
    node.op_type == op_type && node.domain == "com.microsoft" && node.output.len() == 1
}

/// The float attribute `name`, or `default` where there is none.
pub(crate) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |a| a.f)
}

/// Top, left, bottom, right of a window's padding; `None` where it depends on the shape of the input.
pub(crate) fn padding(node: &NodeProto) -> Option<[usize; 4]> {
    match attribute(node, "auto_pad").map(|a| a.s.as_slice()) {
        None | Some(b"" | b"NOTSET") => sizes(node, "pads", [0; 4]),
        Some(b"VALID") => Some([0; 4]),
        Some(_) => None,
    }
}

/// The name of input `index`, unless it is left out.
pub(crate) fn has_input(node: &NodeProto, index: usize) -> Option<&str> {
    node.input
        .get(index)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

/// Whether `node` turns NHWC into NCHW.
pub(crate) fn is_to_nchw(node: &NodeProto) -> bool {
    is(node, "Transpose") && attribute(node, "perm").is_some_and(|perm| perm.ints == [0, 3, 1, 2])
}
