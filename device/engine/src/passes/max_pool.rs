//! MaxPool on the bytes that one of our operators makes, or between DequantizeLinear and QuantizeLinear of one
//! quantization.

use tract_onnx::pb::NodeProto;

use super::{Replacement, requantized};
use crate::onnx::{View, attribute, has_input, int, is, padding, sizes};
use crate::ops::max_pool::BytesMaxPool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let (pool, input) = if is(root, "MaxPool") {
        let input = has_input(root, 0)?;
        view.operator(input)?;
        (root, input)
    } else {
        let (pool, output) = requantized(view, root)?;
        let (x, input) = view.dequantized(has_input(pool, 0)?)?;
        (is(pool, "MaxPool") && input == output).then_some((pool, x))?
    };
    attribute(pool, "kernel_shape")?;
    if int(pool, "ceil_mode", 0) != 0 || sizes(pool, "dilations", [1, 1])? != [1, 1] {
        return None;
    }
    let operator = BytesMaxPool {
        kernel: sizes(pool, "kernel_shape", [1, 1])?,
        stride: sizes(pool, "strides", [1, 1])?,
        padding: padding(pool)?,
    };
    Replacement::new(operator, &[input])
}
