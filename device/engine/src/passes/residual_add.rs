//! DequantizeLinear, DequantizeLinear, Add, QuantizeLinear on u8.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, has_input, is};
use crate::ops::residual_add::ResidualAdd;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "QuantizeLinear") {
        return None;
    }
    let output = view.quantization(root, 1)?;
    let add = view.producer(has_input(root, 0)?, "Add")?;
    let a = view.producer(has_input(add, 0)?, "DequantizeLinear")?;
    let b = view.producer(has_input(add, 1)?, "DequantizeLinear")?;
    let operator = ResidualAdd {
        a: view.quantization(a, 1)?,
        b: view.quantization(b, 1)?,
        output,
    };
    Replacement::new(operator, &[has_input(a, 0)?, has_input(b, 0)?])
}
