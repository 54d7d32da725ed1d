//! A function of one value on u8, as a table: DequantizeLinear, the function, QuantizeLinear, or ONNX Runtime's
//! QLinearSigmoid and QLinearLeakyRelu.

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use super::{Replacement, byte_of, requantized};
use crate::onnx::{View, float, has_input, is, is_contributed};
use crate::ops::table::ByteTable;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let contributed =
        is_contributed(root, "QLinearSigmoid") || is_contributed(root, "QLinearLeakyRelu");
    let (node, x, input, output) = if contributed {
        let (input, output) = (view.quantization(root, 1)?, view.quantization(root, 3)?);
        (root, has_input(root, 0)?, input, output)
    } else {
        let (node, output) = requantized(view, root)?;
        let (x, input) = view.dequantized(has_input(node, 0)?)?;
        (node, x, input, output)
    };
    let row = row(function(view, node)?, input, output)?;
    Replacement::new(ByteTable { rows: vec![row] }, &[x])
}

/// What `node` makes of one value.
fn function(view: &View, node: &NodeProto) -> Option<Box<dyn Fn(f32) -> f32>> {
    let hard_sigmoid = |x: f32, alpha: f32, beta: f32| (alpha * x + beta).clamp(0.0, 1.0);
    let bound = |index: usize, default: f32| match has_input(node, index) {
        Some(_) => view.f32(node, index),
        None => Some(default),
    };
    if is_contributed(node, "QLinearLeakyRelu") || is(node, "LeakyRelu") {
        let alpha = float(node, "alpha", 0.01);
        return Some(Box::new(move |x| if x < 0.0 { alpha * x } else { x }));
    }
    if is_contributed(node, "QLinearSigmoid") || is(node, "Sigmoid") {
        return Some(Box::new(|x| 1.0 / (1.0 + libm::expf(-x))));
    }
    if is(node, "Relu") {
        return Some(Box::new(|x: f32| x.max(0.0)));
    }
    if is(node, "Clip") {
        let (low, high) = (bound(1, f32::MIN)?, bound(2, f32::MAX)?);
        return Some(Box::new(move |x: f32| x.max(low).min(high)));
    }
    if is(node, "HardSigmoid") {
        let (alpha, beta) = (float(node, "alpha", 0.2), float(node, "beta", 0.5));
        return Some(Box::new(move |x| hard_sigmoid(x, alpha, beta)));
    }
    if is(node, "HardSwish") {
        return Some(Box::new(move |x| x * hard_sigmoid(x, 1.0 / 6.0, 0.5)));
    }
    None
}

/// The function for every byte.
fn row(
    function: impl Fn(f32) -> f32,
    input: Quantization,
    output: Quantization,
) -> Option<[u8; 256]> {
    let mut row = [0; 256];
    for (byte, entry) in (0u8..=255).zip(&mut row) {
        let value = function((f32::from(byte) - f32::from(input.zero_point)) * input.scale);
        *entry = byte_of(value, output)?;
    }
    Some(row)
}
