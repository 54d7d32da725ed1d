//! QLinearConv with constant parameters, u8 activations and i8 weights of zero point 0.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use crate::onnx::{View, attribute, f32_values, has_input, i8_values, i32_values, int, is, sizes};
use crate::ops::conv::Convolution;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "QLinearConv") || !view.zero_point_is_zero(root, 5) {
        return None;
    }
    let weights = view.constant(root, 3)?;
    let &[channels, per_group, height, width] = weights.dims.as_slice() else {
        return None;
    };
    let kernel = [usize::try_from(height).ok()?, usize::try_from(width).ok()?];
    let padding = match attribute(root, "auto_pad").map(|a| a.s.as_slice()) {
        None | Some(b"" | b"NOTSET") => sizes(root, "pads", [0; 4])?,
        Some(b"VALID") => [0; 4],
        Some(_) => return None,
    };
    let groups = int(root, "group", 1);
    let depthwise = groups > 1;
    if sizes(root, "kernel_shape", kernel)? != kernel
        || sizes(root, "dilations", [1, 1])? != [1, 1]
        || (depthwise && (groups != channels || per_group != 1))
    {
        return None;
    }
    let bias = match has_input(root, 8) {
        Some(_) => i32_values(view.constant(root, 8)?)?,
        None => vec![],
    };
    let convolution = Convolution {
        depthwise,
        channels: usize::try_from(channels).ok()?,
        kernel,
        stride: sizes(root, "strides", [1, 1])?,
        padding,
        input: view.quantization(root, 1)?,
        weights: i8_values(weights)?,
        weight_scales: f32_values(view.constant(root, 4)?)?,
        bias,
        output: view.quantization(root, 6)?,
    };
    Replacement::new(convolution, &[has_input(root, 0)?])
}
