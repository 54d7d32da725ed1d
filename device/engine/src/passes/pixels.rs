//! Cast, Sub, Div (or Add, Mul), QuantizeLinear on the bytes of the input -> one table of 256 bytes per channel,
//! before or after the Transpose to NCHW.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto};

use super::{Replacement, byte_of};
use crate::onnx::{View, f32_values, has_input, int, is, is_to_nchw};
use crate::ops::table::ByteTable;
use crate::proto::Constant;

/// Most steps between Cast and QuantizeLinear.
const MAX_STEPS: usize = 4;

/// Where the channels of a 4-dimensional activation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channels {
    Second,
    Last,
}

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if is(root, "QuantizeLinear") {
        let (input, rows) = table(view, root, Channels::Second)?;
        let transpose = view.producer(input, "Transpose")?;
        if !is_to_nchw(transpose) || !view.is_byte_input(has_input(transpose, 0)?) {
            return None;
        }
        return Replacement::new(ByteTable { rows }, &[input]);
    }
    if !is_to_nchw(root) {
        return None;
    }
    let quantize = view.producer(has_input(root, 0)?, "QuantizeLinear")?;
    let (input, rows) = table(view, quantize, Channels::Last)?;
    if !view.is_byte_input(input) {
        return None;
    }
    // The table stands after the Transpose, where activations are NCHW.
    let transposed = format!("{}.nchw", quantize.output.first()?);
    let mut replacement = Replacement::new(ByteTable { rows }, &[&transposed])?;
    replacement.before.push(NodeProto {
        name: transposed.clone(),
        op_type: "Transpose".to_owned(),
        input: vec![input.to_owned()],
        output: vec![transposed],
        attribute: root.attribute.iter().map(AttributeProto::clone).collect(),
        ..NodeProto::default()
    });
    Some(replacement)
}

/// The tensor under `quantize`'s chain, and the chain computed for all bytes: one row per channel, or one for all.
fn table<'a>(
    view: &View<'a>,
    quantize: &NodeProto,
    channels: Channels,
) -> Option<(&'a str, Vec<[u8; 256]>)> {
    let code = view.quantization(quantize, 1)?;
    let mut steps: Vec<(&str, Vec<f32>)> = vec![];
    let mut tensor = has_input(quantize, 0)?;
    let cast = loop {
        let node = view.any_producer(tensor)?;
        if is(node, "Cast") {
            break node;
        }
        let step = ["Sub", "Div", "Add", "Mul"]
            .into_iter()
            .find(|op_type| is(node, op_type))?;
        steps.push((step, per_channel(view.constant(node, 1)?, channels)?));
        if steps.len() > MAX_STEPS {
            return None;
        }
        tensor = has_input(node, 0)?;
    };
    if int(cast, "to", 0) != DataType::Float as i64 {
        return None;
    }
    let count = steps
        .iter()
        .map(|(_, constants)| constants.len())
        .max()
        .unwrap_or(1);
    if steps
        .iter()
        .any(|(_, constants)| constants.len() != 1 && constants.len() != count)
    {
        return None;
    }
    let mut rows = vec![[0; 256]; count];
    for (channel, row) in rows.iter_mut().enumerate() {
        for (byte, entry) in (0u8..=255).zip(row) {
            let value =
                steps
                    .iter()
                    .rev()
                    .try_fold(f32::from(byte), |value, (step, constants)| {
                        let constant = constants.get(channel).or_else(|| constants.first())?;
                        Some(match *step {
                            "Sub" => value - constant,
                            "Div" => value / constant,
                            "Add" => value + constant,
                            _ => value * constant,
                        })
                    })?;
            *entry = byte_of(value, code)?;
        }
    }
    Some((has_input(cast, 0)?, rows))
}

/// The values of a constant that varies along the channels alone: one, or one per channel.
fn per_channel(constant: &Constant, channels: Channels) -> Option<Vec<f32>> {
    let values = f32_values(constant)?;
    let count = i64::try_from(values.len()).ok()?;
    let along_channels = match (channels, constant.dims.as_slice()) {
        (_, dims) if dims.len() <= 4 && count == 1 => true,
        (Channels::Last, [rest @ .., last]) => rest.len() <= 3 && *last == count,
        (Channels::Second, [1, n, 1, 1] | [n, 1, 1]) => *n == count,
        _ => false,
    };
    along_channels.then_some(values)
}
