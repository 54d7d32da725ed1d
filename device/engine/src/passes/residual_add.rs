//! DequantizeLinear, DequantizeLinear, Add, QuantizeLinear on u8.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, has_input, is};
use crate::ops::residual_add::ResidualAdd;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "QuantizeLinear") {
        return None;
    }
    let output = (view.f32(root, 1)?, view.u8(root, 2)?);
    let add = view.producer(has_input(root, 0)?, "Add")?;
    let a = view.producer(has_input(add, 0)?, "DequantizeLinear")?;
    let b = view.producer(has_input(add, 1)?, "DequantizeLinear")?;
    let operator = ResidualAdd {
        a: (view.f32(a, 1)?, view.u8(a, 2)?),
        b: (view.f32(b, 1)?, view.u8(b, 2)?),
        output,
    };
    Replacement::new(operator, &[has_input(a, 0)?, has_input(b, 0)?])
}
