//! A concatenation of channels on u8: DequantizeLinear on each input, Concat, QuantizeLinear, or ONNX Runtime's
//! QLinearConcat.

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, has_input, int, is_contributed};
use crate::ops::concat::Concat;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let (concat, parts, output): (_, Vec<(&str, Quantization)>, _) =
        if is_contributed(root, "QLinearConcat") {
            let parts = (2..root.input.len())
                .step_by(3)
                .map(|index| Some((has_input(root, index)?, view.quantization(root, index + 1)?)))
                .collect::<Option<_>>()?;
            (root, parts, view.quantization(root, 0)?)
        } else {
            let (concat, output) = before_requantize(view, root, "Concat")?;
            let parts = concat.input.iter().map(|input| view.dequantized(input));
            (concat, parts.collect::<Option<_>>()?, output)
        };
    if int(concat, "axis", 0) != 1 {
        return None;
    }
    let (tensors, inputs): (Vec<&str>, Vec<Quantization>) = parts.into_iter().unzip();
    Replacement::new(Concat { inputs, output }, &tensors)
}
