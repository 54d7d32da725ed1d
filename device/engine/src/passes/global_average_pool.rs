//! DequantizeLinear, GlobalAveragePool, QuantizeLinear on u8.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, has_input, is};
use crate::ops::global_average_pool::Pool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "QuantizeLinear") {
        return None;
    }
    let output = (view.f32(root, 1)?, view.u8(root, 2)?);
    let pool = view.producer(has_input(root, 0)?, "GlobalAveragePool")?;
    let x = view.producer(has_input(pool, 0)?, "DequantizeLinear")?;
    let operator = Pool {
        input: (view.f32(x, 1)?, view.u8(x, 2)?),
        output,
    };
    Replacement::new(operator, &[has_input(x, 0)?])
}
