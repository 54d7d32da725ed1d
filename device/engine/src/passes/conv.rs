//! A convolution with constant parameters, u8 activations and i8 weights of zero point 0: QLinearConv, or Conv between
//! DequantizeLinear and QuantizeLinear.

use tract_onnx::pb::NodeProto;

use super::Replacement;
use super::layer::Layer;
use crate::onnx::{View, i8_values, int, is, padding, sizes};
use crate::ops::conv::Convolution;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let layer = if is(root, "QLinearConv") {
        Layer::of_integers(view, root, [8, 6])?
    } else {
        Layer::of_floats(view, root, "Conv")?
    };
    let &[channels, per_group, height, width] = layer.weights.dims.as_slice() else {
        return None;
    };
    let kernel = [usize::try_from(height).ok()?, usize::try_from(width).ok()?];
    let groups = int(layer.node, "group", 1);
    let depthwise = groups > 1;
    if sizes(layer.node, "kernel_shape", kernel)? != kernel
        || sizes(layer.node, "dilations", [1, 1])? != [1, 1]
        || (depthwise && (groups != channels || per_group != 1))
    {
        return None;
    }
    let convolution = Convolution {
        depthwise,
        channels: usize::try_from(channels).ok()?,
        kernel,
        stride: sizes(layer.node, "strides", [1, 1])?,
        padding: padding(layer.node)?,
        input: layer.input,
        weights: i8_values(layer.weights)?,
        weight_scales: layer.weight_scales,
        bias: layer.bias,
        output: layer.output,
    };
    Replacement::new(convolution, &[layer.x])
}
