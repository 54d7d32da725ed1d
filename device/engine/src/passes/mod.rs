//! Rewrites on the ONNX graph, before tract reads it: each finds the standard nodes that together are one quantized
//! operator, and puts one of [`crate::ops`] in their place. What does not match in every detail stays as it is and runs
//! in tract's own operators.

mod activation;
mod average_pool;
mod concat;
mod conv;
mod fully_connected;
mod global_average_pool;
mod head;
mod layer;
mod max_pool;
mod multiply;
mod pixels;
mod quantize;
mod residual_add;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use crate::onnx::{View, has_input, i64_values, int, is};
use crate::ops::Quantized;
use crate::proto::Graph;

/// The type of a node whose operator stands in [`Operators`]: no ONNX operator has this name.
pub(crate) const PLACEHOLDER: &str = "graft.operator";

/// The operators that placeholders stand for, by node name.
pub(crate) type Operators = HashMap<String, Arc<dyn Quantized>>;

/// What takes the place of a pattern's last node; its output keeps its name.
struct Replacement {
    operator: Arc<dyn Quantized>,
    inputs: Vec<String>,
    /// Nodes that make an input, to go before it.
    before: Vec<NodeProto>,
}

impl Replacement {
    fn new(operator: impl Quantized + 'static, inputs: &[&str]) -> Option<Replacement> {
        let inputs = inputs.iter().map(|name| (*name).to_owned()).collect();
        Some(Replacement {
            operator: Arc::new(operator),
            inputs,
            before: vec![],
        })
    }
}

/// What replaces `root`, the last node of a pattern, if the pattern is there.
type Pass = fn(view: &View, root: &NodeProto) -> Option<Replacement>;

/// In this order: later patterns look for the placeholders that earlier ones put in.
const PASSES: [Pass; 12] = [
    pixels::find,
    quantize::find,
    conv::find,
    residual_add::find,
    global_average_pool::find,
    average_pool::find,
    concat::find,
    activation::find,
    max_pool::find,
    fully_connected::find,
    multiply::find,
    head::find,
];

/// `clamp(rne(value / scale) + zero_point, 0, 255)`, for tables; `None` for a NaN.
fn byte_of(value: f32, code: Quantization) -> Option<u8> {
    let quantized = (value / code.scale).round_ties_even() + f32::from(code.zero_point);
    (!quantized.is_nan()).then(|| quantized.clamp(0.0, 255.0) as u8)
}

/// The node before `root`, which is a QuantizeLinear with one scale and zero point, and what its bytes stand for.
fn requantized<'a>(view: &View<'a>, root: &NodeProto) -> Option<(&'a NodeProto, Quantization)> {
    if !is(root, "QuantizeLinear") {
        return None;
    }
    let output = view.quantization(root, 1)?;
    Some((view.any_producer(has_input(root, 0)?)?, output))
}

/// The node of type `op_type` whose result `root` quantizes, and to what. A Relu or Clip between them is the
/// saturation of the bytes where it cuts nothing that they can hold; else the pattern is not there.
fn before_requantize<'a>(
    view: &View<'a>,
    root: &NodeProto,
    op_type: &str,
) -> Option<(&'a NodeProto, Quantization)> {
    let (mut node, output) = requantized(view, root)?;
    let real = |byte: u8| (f32::from(byte) - f32::from(output.zero_point)) * output.scale;
    let cut = if is(node, "Relu") {
        Some((0.0, f32::INFINITY))
    } else if is(node, "Clip") {
        Some((view.f32(node, 1)?, view.f32(node, 2)?))
    } else {
        None
    };
    if let Some((low, high)) = cut {
        // Less than half a step: what is cut within it rounds to the last byte.
        let little = 0.49 * output.scale;
        if low > real(0) + little || high < real(255) - little {
            return None;
        }
        node = view.any_producer(has_input(node, 0)?)?;
    }
    is(node, op_type).then_some((node, output))
}

/// What a Flatten or Reshape of one position `[1, channels, 1, 1]` to `[1, channels]` flattens, between
/// DequantizeLinear and QuantizeLinear of one quantization or on the bytes.
fn flattened<'a>(view: &View<'a>, tensor: &str, channels: i64) -> Option<&'a str> {
    let of_bytes = |tensor: &str| {
        let flat = view
            .producer(tensor, "Flatten")
            .or_else(|| view.producer(tensor, "Reshape"))?;
        let flattens = if is(flat, "Flatten") {
            int(flat, "axis", 1) == 1
        } else {
            let shape = i64_values(view.constant(flat, 1)?)?;
            matches!(shape[..], [batch, rest] if
                ((batch == 1 || batch == 0) && (rest == channels || rest == -1 || rest == 0))
                    || (batch == -1 && rest == channels))
                && int(flat, "allowzero", 0) == 0
        };
        flattens.then_some(has_input(flat, 0)?)
    };
    let input = match view.producer(tensor, "QuantizeLinear") {
        Some(quantize) => {
            let (input, quantization) = view.dequantized(of_bytes(has_input(quantize, 0)?)?)?;
            (view.quantization(quantize, 1)? == quantization).then_some(input)?
        }
        None => of_bytes(tensor)?,
    };
    view.is_position(input).then_some(input)
}

/// Rewrites all patterns in `graph`, whose nodes stand in topological order; drops nodes and constants that nothing
/// uses any more.
pub(crate) fn rewrite(graph: &mut Graph) -> Operators {
    let mut operators = Operators::new();
    for pass in PASSES {
        let view = View::new(graph, &operators);
        let found: Vec<Option<Replacement>> =
            graph.node.iter().map(|node| pass(&view, node)).collect();
        let nodes = std::mem::take(&mut graph.node);
        for (mut node, replacement) in nodes.into_iter().zip(found) {
            if let Some(Replacement {
                operator,
                inputs,
                before,
            }) = replacement
            {
                let name = node.output.concat();
                operators.insert(name.clone(), operator);
                graph.node.extend(before);
                node = NodeProto {
                    name,
                    op_type: PLACEHOLDER.to_owned(),
                    input: inputs,
                    output: node.output,
                    ..NodeProto::default()
                };
            }
            graph.node.push(node);
        }
        drop_unused(graph);
    }
    operators
}

/// Keeps the nodes that an output depends on, and the constants that those use.
fn drop_unused(graph: &mut Graph) {
    let mut used: HashSet<String> = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let mut keep = vec![false; graph.node.len()];
    for (node, keep) in graph.node.iter().zip(&mut keep).rev() {
        if node.output.iter().any(|name| used.contains(name)) {
            *keep = true;
            used.extend(node.input.iter().cloned());
        }
    }
    let mut keep = keep.into_iter();
    graph.node.retain(|_| keep.next().unwrap_or(true));
    graph
        .initializer
        .retain(|tensor| used.contains(&tensor.name));
}
