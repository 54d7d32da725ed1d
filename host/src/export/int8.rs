//! The quantized graph in standard operators: Cast, Sub, Div, QuantizeLinear for the pixels where they need it; QLinearConv; DequantizeLinear, Add, QuantizeLinear; DequantizeLinear,
//! GlobalAveragePool, QuantizeLinear; MatMulInteger, Add, Cast, Mul.

use super::Signature;
use super::builder::{Attribute, Builder};
use crate::nn::Padding;
use crate::quantize::{Affine, Normalisation, QuantizedGraph, QuantizedOp};

/// ONNX's number for f32 in `Cast`.
const FLOAT: i64 = 1;

/// The bytes of a quantized graph as an int8 model. Where the pixels are the first activation, no operator stands for them
/// but a Transpose to ONNX's channel-first layout.
#[must_use]
pub fn int8_model(graph: &QuantizedGraph, signature: Signature) -> Vec<u8> {
    let mut builder = Builder::default();
    let mut outputs: Vec<String> = Vec::with_capacity(graph.nodes.len());
    let mut codes: Vec<[String; 2]> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let name = node.name.as_str();
        let last = index + 1 == graph.nodes.len();
        // Logits are f32: they have no code.
        let code = match &node.op {
            QuantizedOp::Linear { .. } => Default::default(),
            _ => code(&mut builder, name, node.output),
        };
        let read = |i: usize| outputs[node.inputs[i]].as_str();
        let read_code = |i: usize| &codes[node.inputs[i]];
        let output = match &node.op {
            QuantizedOp::Input(normalisation) => {
                let bytes = match normalisation {
                    None => "image".to_owned(),
                    Some(normalisation) => {
                        let normalised = normalised_pixels(&mut builder, *normalisation);
                        let inputs = [normalised.as_str(), &code[0], &code[1]];
                        builder.node("QuantizeLinear", "image.quantized", &inputs, vec![])
                    }
                };
                to_nchw(&mut builder, &bytes)
            }
            QuantizedOp::Conv {
                weights,
                shape,
                stride,
                padding,
                groups,
            } => {
                let channels = shape[0];
                let weight = builder.signed_bytes(format!("{name}.weight"), shape, &weights.values);
                let scale =
                    builder.floats(format!("{name}.weight_scale"), &[channels], &weights.scales);
                let zero_point = builder.signed_bytes(
                    format!("{name}.weight_zero_point"),
                    &[channels],
                    &vec![0; channels],
                );
                let bias = builder.ints(format!("{name}.bias"), &[channels], &weights.biases);
                let [x_scale, x_zero_point] = read_code(0);
                let inputs = [
                    read(0),
                    x_scale,
                    x_zero_point,
                    &weight,
                    &scale,
                    &zero_point,
                    &code[0],
                    &code[1],
                    &bias,
                ];
                builder.node(
                    "QLinearConv",
                    name,
                    &inputs,
                    geometry(shape, *stride, *padding, *groups),
                )
            }
            QuantizedOp::Add => {
                let left = dequantize(&mut builder, &format!("{name}.left"), read(0), read_code(0));
                let right = dequantize(
                    &mut builder,
                    &format!("{name}.right"),
                    read(1),
                    read_code(1),
                );
                let sum = builder.node("Add", &format!("{name}.sum"), &[&left, &right], vec![]);
                builder.node("QuantizeLinear", name, &[&sum, &code[0], &code[1]], vec![])
            }
            QuantizedOp::GlobalAveragePool => {
                let real = dequantize(&mut builder, &format!("{name}.real"), read(0), read_code(0));
                let mean = builder.node(
                    "GlobalAveragePool",
                    &format!("{name}.mean"),
                    &[&real],
                    vec![],
                );
                let pooled = builder.node(
                    "QuantizeLinear",
                    &format!("{name}.nchw"),
                    &[&mean, &code[0], &code[1]],
                    vec![],
                );
                builder.node(
                    "Flatten",
                    name,
                    &[&pooled],
                    vec![("axis", Attribute::Integer(1))],
                )
            }
            QuantizedOp::Linear { weights, inputs } => {
                let classes = weights.scales.len();
                // MatMulInteger wants [inputs, classes].
                let transposed: Vec<i8> = (0..inputs * classes)
                    .map(|i| weights.values[i % classes * inputs + i / classes])
                    .collect();
                let weight = builder.signed_bytes(
                    format!("{name}.weight"),
                    &[*inputs, classes],
                    &transposed,
                );
                let zero_point =
                    builder.signed_bytes(format!("{name}.weight_zero_point"), &[], &[0]);
                let input_scale = graph.nodes[node.inputs[0]].output.scale;
                let scales: Vec<f32> = weights
                    .scales
                    .iter()
                    .map(|scale| input_scale * scale)
                    .collect();
                let scale = builder.floats(format!("{name}.scale"), &[classes], &scales);
                let bias = builder.ints(format!("{name}.bias"), &[classes], &weights.biases);
                let [_, x_zero_point] = read_code(0);
                let product = builder.node(
                    "MatMulInteger",
                    &format!("{name}.product"),
                    &[read(0), &weight, x_zero_point, &zero_point],
                    vec![],
                );
                let sum = builder.node("Add", &format!("{name}.sum"), &[&product, &bias], vec![]);
                let real = builder.node(
                    "Cast",
                    &format!("{name}.float"),
                    &[&sum],
                    vec![("to", Attribute::Integer(FLOAT))],
                );
                builder.node(
                    "Mul",
                    if last { "logits" } else { name },
                    &[&real, &scale],
                    vec![],
                )
            }
        };
        outputs.push(output);
        codes.push(code);
    }
    builder.finish(signature)
}

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

/// The attributes of a square convolution with weights `[output channels, input channels / groups, height, width]`.
pub(super) fn geometry(
    shape: &[usize],
    stride: usize,
    padding: Padding,
    groups: usize,
) -> Vec<(&'static str, Attribute)> {
    let kernel = shape.iter().skip(2).map(|side| *side as i64).collect();
    let pads = [padding.top, padding.left, padding.bottom, padding.right]
        .map(|pixels| pixels as i64)
        .to_vec();
    vec![
        ("kernel_shape", Attribute::Integers(kernel)),
        ("strides", Attribute::Integers(vec![stride as i64; 2])),
        ("pads", Attribute::Integers(pads)),
        ("group", Attribute::Integer(groups as i64)),
    ]
}

fn code(builder: &mut Builder, name: &str, affine: Affine) -> [String; 2] {
    let scale = builder.floats(format!("{name}.scale_of_output"), &[], &[affine.scale]);
    [
        scale,
        builder.byte(format!("{name}.zero_point"), affine.zero_point),
    ]
}

fn dequantize(
    builder: &mut Builder,
    name: &str,
    value: &str,
    [scale, zero_point]: &[String; 2],
) -> String {
    builder.node(
        "DequantizeLinear",
        name,
        &[value, scale, zero_point],
        vec![],
    )
}
