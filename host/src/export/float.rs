//! The float twin: the same function in f32, for comparison and for runtimes without int8.

use candle_core::{Result, Tensor};

use super::Signature;
use super::builder::{Attribute, Builder};
use super::int8::{geometry, normalised_pixels, to_nchw};
use crate::nn::{Activation, Graph, Op};
use crate::quantize::Normalisation;

/// The bytes of a folded graph as a float model.
///
/// # Errors
/// When BatchNorm has not been folded.
pub fn float_model(
    graph: &Graph,
    normalisation: Normalisation,
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
                let pixels = normalised_pixels(&mut builder, normalisation);
                to_nchw(&mut builder, &pixels)
            }
            Op::Conv(conv) => {
                let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
                let weight = tensor(&mut builder, weight_name, &conv.weight)?;
                let Some(bias) = &conv.bias else {
                    candle_core::bail!("`{name}` has no bias: fold BatchNorm first")
                };
                let bias = tensor(&mut builder, bias_name, bias)?;
                let attributes =
                    geometry(conv.weight.dims(), conv.stride, conv.padding, conv.groups);
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
