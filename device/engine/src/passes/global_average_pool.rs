//! A global average pool on u8: DequantizeLinear, GlobalAveragePool, QuantizeLinear, or ONNX Runtime's
//! QLinearGlobalAveragePool.

use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, has_input, int, is_contributed};
use crate::ops::global_average_pool::Pool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if is_contributed(root, "QLinearGlobalAveragePool") && int(root, "channels_last", 0) == 0 {
        let operator = Pool {
            input: view.quantization(root, 1)?,
            output: view.quantization(root, 3)?,
        };
        return Replacement::new(operator, &[has_input(root, 0)?]);
    }
    let (pool, output) = before_requantize(view, root, "GlobalAveragePool")?;
    let (x, input) = view.dequantized(has_input(pool, 0)?)?;
    Replacement::new(Pool { input, output }, &[x])
}
