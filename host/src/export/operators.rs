//! Nodes that the float and the int8 file have alike.

use super::builder::{Attribute, Builder};
use crate::nn::{Function, Padding, Pool, PoolKind};
use crate::quantize::Normalisation;

/// ONNX's number for f32 in `Cast`.
pub(super) const FLOAT: i64 = 1;

/// `(pixel - mean) / std` in f32, channels last.
pub(super) fn normalised_pixels(
    builder: &mut Builder,
    Normalisation { mean, std }: Normalisation,
) -> String {
    let to_float = vec![("to", Attribute::Integer(FLOAT))];
    let pixels = builder.node("Cast", "image.float", &["image"], to_float);
    let mean = builder.floats("image.mean".into(), &[3], &mean);
    let centred = builder.node("Sub", "image.centred", &[&pixels, &mean], vec![]);
    let std = builder.floats("image.std".into(), &[3], &std);
    builder.node("Div", "image.normalised", &[&centred, &std], vec![])
}

/// Channels first, as ONNX's operators want them.
pub(super) fn to_nchw(builder: &mut Builder, image: &str) -> String {
    let perm = vec![("perm", Attribute::Integers(vec![0, 3, 1, 2]))];
    builder.node("Transpose", "image.nchw", &[image], perm)
}

/// The attributes of a convolution with weights `[output channels, input channels / groups, height, width]`.
pub(super) fn convolution(
    shape: &[usize],
    stride: usize,
    padding: Padding,
    groups: usize,
) -> Vec<(&'static str, Attribute)> {
    let kernel = shape.iter().skip(2).copied().collect();
    let mut attributes = window(kernel, stride, padding);
    attributes.push(("group", Attribute::Integer(groups as i64)));
    attributes
}

/// The mean or the largest value of each window of the one input.
pub(super) fn pool(builder: &mut Builder, name: &str, inputs: &[&str], pool: Pool) -> String {
    let mut attributes = window(vec![pool.kernel; 2], pool.stride, pool.padding);
    let operator = match pool.kind {
        PoolKind::Max => "MaxPool",
        PoolKind::Average => {
            attributes.push(("count_include_pad", Attribute::Integer(1)));
            "AveragePool"
        }
    };
    builder.node(operator, name, inputs, attributes)
}

/// The activation function of each value of the one input.
pub(super) fn function(
    builder: &mut Builder,
    name: &str,
    inputs: &[&str],
    function: Function,
) -> String {
    match function {
        Function::HardSigmoid => {
            let alpha = vec![("alpha", Attribute::Float(1.0 / 6.0))];
            builder.node("HardSigmoid", name, inputs, alpha)
        }
        Function::HardSwish => builder.node("HardSwish", name, inputs, vec![]),
    }
}

/// Channels of `inputs` side by side.
pub(super) fn concat(builder: &mut Builder, name: &str, inputs: &[&str]) -> String {
    builder.node(
        "Concat",
        name,
        inputs,
        vec![("axis", Attribute::Integer(1))],
    )
}

/// `[1, c, 1, 1]` to `[1, c]`.
pub(super) fn flatten(builder: &mut Builder, name: &str, input: &str) -> String {
    builder.node(
        "Flatten",
        name,
        &[input],
        vec![("axis", Attribute::Integer(1))],
    )
}

fn window(kernel: Vec<usize>, stride: usize, padding: Padding) -> Vec<(&'static str, Attribute)> {
    let integers = |values: Vec<usize>| {
        Attribute::Integers(values.into_iter().map(|value| value as i64).collect())
    };
    let Padding {
        top,
        left,
        bottom,
        right,
    } = padding;
    vec![
        ("kernel_shape", integers(kernel)),
        ("strides", integers(vec![stride; 2])),
        ("pads", integers(vec![top, left, bottom, right])),
    ]
}
