//! The quantized graph in standard operators: Cast, Sub, Div, QuantizeLinear for the pixels where they need it; QLinearConv;
//! MaxPool on bytes; MatMulInteger, Add, Cast, Mul for the head; every other operator in f32 between DequantizeLinear and
//! QuantizeLinear.

use super::Signature;
use super::builder::{Attribute, Builder};
use super::operators::{
    FLOAT, concat, convolution, flatten, function, normalised_pixels, pool, to_nchw,
};
use crate::nn::PoolKind;
use crate::quantize::{Affine, QuantizedGraph, QuantizedOp};

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
        let inputs: Vec<_> = (0..node.inputs.len())
            .map(|i| (read(i), read_code(i)))
            .collect();
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
                    convolution(shape, *stride, *padding, *groups),
                )
            }
            QuantizedOp::Pool(window) if window.kind == PoolKind::Max => {
                pool(&mut builder, name, &[read(0)], *window)
            }
            QuantizedOp::Flatten => flatten(&mut builder, name, read(0)),
            QuantizedOp::GlobalAveragePool => {
                let pooled = format!("{name}.nchw");
                let pooled = on_reals(&mut builder, &pooled, &inputs, &code, |builder, name, x| {
                    builder.node("GlobalAveragePool", name, x, vec![])
                });
                flatten(&mut builder, name, &pooled)
            }
            QuantizedOp::Squeeze => {
                on_reals(&mut builder, name, &inputs, &code, |builder, name, x| {
                    builder.node("GlobalAveragePool", name, x, vec![])
                })
            }
            QuantizedOp::Add => on_reals(&mut builder, name, &inputs, &code, |builder, name, x| {
                builder.node("Add", name, x, vec![])
            }),
            QuantizedOp::MultiplyChannels => {
                on_reals(&mut builder, name, &inputs, &code, |builder, name, x| {
                    builder.node("Mul", name, x, vec![])
                })
            }
            QuantizedOp::Concat => on_reals(&mut builder, name, &inputs, &code, concat),
            QuantizedOp::Function(kind) => {
                on_reals(&mut builder, name, &inputs, &code, |builder, name, x| {
                    function(builder, name, x, *kind)
                })
            }
            QuantizedOp::Pool(window) => {
                on_reals(&mut builder, name, &inputs, &code, |builder, name, x| {
                    pool(builder, name, x, *window)
                })
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

fn code(builder: &mut Builder, name: &str, affine: Affine) -> [String; 2] {
    let scale = builder.floats(format!("{name}.scale_of_output"), &[], &[affine.scale]);
    [
        scale,
        builder.byte(format!("{name}.zero_point"), affine.zero_point),
    ]
}

/// An operator that `write` puts on the real values of `inputs`, given with their codes; its result becomes bytes of `code`.
fn on_reals(
    builder: &mut Builder,
    name: &str,
    inputs: &[(&str, &[String; 2])],
    [scale, zero_point]: &[String; 2],
    write: impl FnOnce(&mut Builder, &str, &[&str]) -> String,
) -> String {
    let reals: Vec<String> = inputs
        .iter()
        .enumerate()
        .map(|(index, (bytes, [scale, zero_point]))| {
            let real = format!("{name}.real{index}");
            builder.node(
                "DequantizeLinear",
                &real,
                &[bytes, scale, zero_point],
                vec![],
            )
        })
        .collect();
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    let result = write(builder, &format!("{name}.result"), &reals);
    builder.node(
        "QuantizeLinear",
        name,
        &[&result, scale, zero_point],
        vec![],
    )
}
