//! A product on u8: DequantizeLinear, DequantizeLinear, Mul, QuantizeLinear, or ONNX Runtime's QLinearMul.

use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, has_input, is_contributed};
use crate::ops::multiply::Multiply;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let ((x, a), (y, b), output) = if is_contributed(root, "QLinearMul") {
        (
            (has_input(root, 0)?, view.quantization(root, 1)?),
            (has_input(root, 3)?, view.quantization(root, 4)?),
            view.quantization(root, 6)?,
        )
    } else {
        let (product, output) = before_requantize(view, root, "Mul")?;
        let x = view.dequantized(has_input(product, 0)?)?;
        let y = view.dequantized(has_input(product, 1)?)?;
        (x, y, output)
    };
    // One value per channel comes from a pool, by way of layers of one position; the image is the first input.
    let ((x, a), (y, b)) = if view.is_position(x) {
        ((y, b), (x, a))
    } else {
        ((x, a), (y, b))
    };
    Replacement::new(Multiply { a, b, output }, &[x, y])
}
