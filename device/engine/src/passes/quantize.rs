//! QuantizeLinear of the graph's f32 input, which becomes bytes and NHWC in one go.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, has_input, is};
use crate::ops::quantize::QuantizePicture;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let input = has_input(root, 0)?;
    if !is(root, "QuantizeLinear") || !view.is_float_input(input) {
        return None;
    }
    let output = view.quantization(root, 1)?;
    Replacement::new(QuantizePicture { output }, &[input])
}
