//! A residual add on u8: DequantizeLinear, DequantizeLinear, Add, QuantizeLinear, or ONNX Runtime's QLinearAdd.

use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, has_input, is_contributed};
use crate::ops::residual_add::ResidualAdd;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if is_contributed(root, "QLinearAdd") {
        let operator = ResidualAdd {
            a: view.quantization(root, 1)?,
            b: view.quantization(root, 4)?,
            output: view.quantization(root, 6)?,
        };
        return Replacement::new(operator, &[has_input(root, 0)?, has_input(root, 3)?]);
    }
    let (add, output) = before_requantize(view, root, "Add")?;
    let (x, a) = view.dequantized(has_input(add, 0)?)?;
    let (y, b) = view.dequantized(has_input(add, 1)?)?;
    Replacement::new(ResidualAdd { a, b, output }, &[x, y])
}
