//! MaxPool on the bytes that one of our operators makes.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, attribute, has_input, int, is, sizes};
use crate::ops::max_pool::BytesMaxPool;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "MaxPool") || int(root, "ceil_mode", 0) != 0 {
        return None;
    }
    let input = has_input(root, 0)?;
    view.operator(input)?;
    let padding = match attribute(root, "auto_pad").map(|a| a.s.as_slice()) {
        None | Some(b"" | b"NOTSET") => sizes(root, "pads", [0; 4])?,
        Some(b"VALID") => [0; 4],
        Some(_) => return None,
    };
    attribute(root, "kernel_shape")?;
    if sizes(root, "dilations", [1, 1])? != [1, 1] {
        return None;
    }
    let operator = BytesMaxPool {
        kernel: sizes(root, "kernel_shape", [1, 1])?,
        stride: sizes(root, "strides", [1, 1])?,
        padding,
    };
    Replacement::new(operator, &[input])
}
