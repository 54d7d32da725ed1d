//! An average pool on u8: DequantizeLinear, AveragePool, QuantizeLinear, or ONNX Runtime's QLinearAveragePool.

use graft_kernels::Padding;
use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, attribute, has_input, int, is_contributed, padding, sizes};
use crate::ops::average_pool::AveragePool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let (pool, x, input, output) = if is_contributed(root, "QLinearAveragePool") {
        (
            root,
            has_input(root, 0)?,
            view.quantization(root, 1)?,
            view.quantization(root, 3)?,
        )
    } else {
        let (pool, output) = before_requantize(view, root, "AveragePool")?;
        let (x, input) = view.dequantized(has_input(pool, 0)?)?;
        (pool, x, input, output)
    };
    attribute(pool, "kernel_shape")?;
    if int(pool, "ceil_mode", 0) != 0
        || int(pool, "channels_last", 0) != 0
        || sizes(pool, "dilations", [1, 1])? != [1, 1]
    {
        return None;
    }
    let operator = AveragePool {
        kernel: sizes(pool, "kernel_shape", [1, 1])?,
        stride: sizes(pool, "strides", [1, 1])?,
        pads: padding(pool)?,
        padding: if int(pool, "count_include_pad", 0) == 0 {
            Padding::IsLeftOut
        } else {
            Padding::Counts
        },
        input,
        output,
    };
    Replacement::new(operator, &[x])
}
