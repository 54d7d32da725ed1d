//! A convolution with constant parameters, u8 activations and i8 weights of zero point 0: QLinearConv, or Conv between
//! DequantizeLinear and QuantizeLinear.

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use super::{Replacement, before_requantize};
use crate::onnx::{View, f32_values, has_input, i8_values, i32_values, int, is, padding, sizes};
use crate::ops::conv::Convolution;
use crate::proto::Constant;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if is(root, "QLinearConv") {
        return integer(view, root);
    }
    let (conv, output) = before_requantize(view, root, "Conv")?;
    let (x, input) = view.dequantized(has_input(conv, 0)?)?;
    let weights = dequantized_weights(view, has_input(conv, 1)?)?;
    let bias = match has_input(conv, 2) {
        Some(tensor) => dequantized_bias(view, tensor)?,
        None => vec![],
    };
    replace(conv, x, input, weights, bias, output)
}

fn integer(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !view.zero_point_is_zero(root, 5) {
        return None;
    }
    let weights = (
        view.constant(root, 3)?,
        f32_values(view.constant(root, 4)?)?,
    );
    let bias = match has_input(root, 8) {
        Some(_) => i32_values(view.constant(root, 8)?)?,
        None => vec![],
    };
    let (input, output) = (view.quantization(root, 1)?, view.quantization(root, 6)?);
    replace(root, has_input(root, 0)?, input, weights, bias, output)
}

fn replace(
    conv: &NodeProto,
    x: &str,
    input: Quantization,
    (weights, weight_scales): (&Constant, Vec<f32>),
    bias: Vec<i32>,
    output: Quantization,
) -> Option<Replacement> {
    let &[channels, per_group, height, width] = weights.dims.as_slice() else {
        return None;
    };
    let kernel = [usize::try_from(height).ok()?, usize::try_from(width).ok()?];
    let groups = int(conv, "group", 1);
    let depthwise = groups > 1;
    if sizes(conv, "kernel_shape", kernel)? != kernel
        || sizes(conv, "dilations", [1, 1])? != [1, 1]
        || (depthwise && (groups != channels || per_group != 1))
    {
        return None;
    }
    let convolution = Convolution {
        depthwise,
        channels: usize::try_from(channels).ok()?,
        kernel,
        stride: sizes(conv, "strides", [1, 1])?,
        padding: padding(conv)?,
        input,
        weights: i8_values(weights)?,
        weight_scales,
        bias,
        output,
    };
    Replacement::new(convolution, &[x])
}

/// The i8 weights that a DequantizeLinear makes `tensor` of, with one scale per output channel or one for all.
pub(super) fn dequantized_weights<'a>(
    view: &View<'a>,
    tensor: &str,
) -> Option<(&'a Constant, Vec<f32>)> {
    let node = view.producer(tensor, "DequantizeLinear")?;
    let weights = view.constant(node, 0)?;
    let scales = f32_values(view.constant(node, 1)?)?;
    let per_output = scales.len() == 1 || int(node, "axis", 1) == 0;
    (per_output && view.zero_point_is_zero(node, 2)).then_some((weights, scales))
}

/// The i32 bias that a DequantizeLinear makes `tensor` of; its scale is that of the sums by construction.
pub(super) fn dequantized_bias(view: &View, tensor: &str) -> Option<Vec<i32>> {
    let node = view.producer(tensor, "DequantizeLinear")?;
    i32_values(view.constant(node, 0)?)
}
