//! DequantizeLinear, GlobalAveragePool, QuantizeLinear on u8.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, has_input, is};
use crate::ops::global_average_pool::Pool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "QuantizeLinear") {
        return None;
    }
    let output = view.quantization(root, 1)?;
    let pool = view.producer(has_input(root, 0)?, "GlobalAveragePool")?;
    let x = view.producer(has_input(pool, 0)?, "DequantizeLinear")?;
    let operator = Pool {
        input: view.quantization(x, 1)?,
        output,
    };
    Replacement::new(operator, &[has_input(x, 0)?])
}
