//! The float twin: the same function in f32, for comparison and for runtimes without int8.

use candle_core::{Result, Tensor};

use super::Signature;
use super::builder::{Attribute, Builder};
use crate::nn::{Activation, Graph, Op};

/// ONNX's number for f32 in `Cast`.
const FLOAT: i64 = 1;

/// The bytes of a folded graph as a float model; pixels are normalised as `(pixel - mean) / std`, per RGB channel.
///
/// # Errors
/// When BatchNorm has not been folded.
pub fn float_model(
    graph: &Graph,
    mean: [f32; 3],
    std: [f32; 3],
    signature: Signature,
) -> Result<Vec<u8>> {
    let mut builder = Builder::default();
    let mut outputs: Vec<String> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let name = node.name.as_str();
        let last = index + 1 == graph.nodes.len();
        let read = |i: usize| outputs[node.inputs[i]].as_str();
        let output = match &node.op {
            Op::Input => {
                let pixels = builder.node(
                    "Cast",
                    "image.float",
                    &["image"],
                    vec![("to", Attribute::Integer(FLOAT))],
                );
                let mean = builder.floats("image.mean".into(), &[3], &mean);
                let centred = builder.node("Sub", "image.centred", &[&pixels, &mean], vec![]);
                let std = builder.floats("image.std".into(), &[3], &std);
                let normalised = builder.node("Div", "image.normalised", &[&centred, &std], vec![]);
                builder.node(
                    "Transpose",
                    "image.nchw",
                    &[&normalised],
                    vec![("perm", Attribute::Integers(vec![0, 3, 1, 2]))],
                )
            }
            Op::Conv(conv) => {
                let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
                let weight = tensor(&mut builder, weight_name, &conv.weight)?;
                let Some(bias) = &conv.bias else {
                    candle_core::bail!("`{name}` has no bias: fold BatchNorm first")
                };
                let bias = tensor(&mut builder, bias_name, bias)?;
                let attributes = super::int8::geometry(
                    conv.weight.dims(),
                    conv.stride,
                    conv.padding,
                    conv.groups,
                );
                let sum = if conv.activation == Activation::None {
                    name.to_owned()
                } else {
                    format!("{name}.sum")
                };
                let sum = builder.node("Conv", &sum, &[read(0), &weight, &bias], attributes);
                match conv.activation {
                    Activation::None => sum,
                    Activation::Relu => builder.node("Relu", name, &[&sum], vec![]),
                    Activation::Relu6 => {
                        let low = builder.floats(format!("{name}.low"), &[], &[0.0]);
                        let high = builder.floats(format!("{name}.high"), &[], &[6.0]);
                        builder.node("Clip", name, &[&sum, &low, &high], vec![])
                    }
                }
            }
            Op::Add => builder.node("Add", name, &[read(0), read(1)], vec![]),
            Op::GlobalAveragePool => {
                let pooled = builder.node(
                    "GlobalAveragePool",
                    &format!("{name}.nchw"),
                    &[read(0)],
                    vec![],
                );
                builder.node(
                    "Flatten",
                    name,
                    &[&pooled],
                    vec![("axis", Attribute::Integer(1))],
                )
            }
            Op::Linear(linear) => {
                let weight = tensor(&mut builder, format!("{name}.weight"), &linear.weight)?;
                let bias = tensor(&mut builder, format!("{name}.bias"), &linear.bias)?;
                let output = if last { "logits" } else { name };
                builder.node(
                    "Gemm",
                    output,
                    &[read(0), &weight, &bias],
                    vec![("transB", Attribute::Integer(1))],
                )
            }
        };
        outputs.push(output);
    }
    Ok(builder.finish(signature))
}

fn tensor(builder: &mut Builder, name: String, values: &Tensor) -> Result<String> {
    Ok(builder.floats(
        name,
        values.dims(),
        &values.flatten_all()?.to_vec1::<f32>()?,
    ))
}
