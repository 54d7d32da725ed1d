//! The float twin: the same function in f32, for comparison and for runtimes without int8.

use candle_core::{Result, Tensor};

use super::Signature;
use super::builder::{Attribute, Builder};
use super::operators::{concat, convolution, flatten, function, normalised_pixels, pool, to_nchw};
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
                    convolution(conv.weight.dims(), conv.stride, conv.padding, conv.groups);
                let inputs = [read(0), &weight, &bias];
                activated(&mut builder, name, conv.activation, |builder, name| {
                    builder.node("Conv", name, &inputs, attributes)
                })
            }
            Op::Add(activation) => {
                let inputs = [read(0), read(1)];
                activated(&mut builder, name, *activation, |builder, name| {
                    builder.node("Add", name, &inputs, vec![])
                })
            }
            Op::Function(kind) => function(&mut builder, name, &[read(0)], *kind),
            Op::Pool(window) => pool(&mut builder, name, &[read(0)], *window),
            Op::Concat => {
                let inputs: Vec<&str> = (0..node.inputs.len()).map(read).collect();
                concat(&mut builder, name, &inputs)
            }
            Op::MultiplyChannels => builder.node("Mul", name, &[read(0), read(1)], vec![]),
            Op::Squeeze => builder.node("GlobalAveragePool", name, &[read(0)], vec![]),
            Op::Flatten => flatten(&mut builder, name, read(0)),
            Op::GlobalAveragePool => {
                let pooled = format!("{name}.nchw");
                let pooled = builder.node("GlobalAveragePool", &pooled, &[read(0)], vec![]);
                flatten(&mut builder, name, &pooled)
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

/// The node that `write` makes by the name it is given, and `activation` after it; the result is called `name`.
fn activated(
    builder: &mut Builder,
    name: &str,
    activation: Activation,
    write: impl FnOnce(&mut Builder, &str) -> String,
) -> String {
    if activation == Activation::None {
        return write(builder, name);
    }
    let sum = write(builder, &format!("{name}.sum"));
    if activation == Activation::Relu {
        return builder.node("Relu", name, &[&sum], vec![]);
    }
    let (low, high) = activation.bounds();
    let low = builder.floats(format!("{name}.low"), &[], &[low]);
    let high = builder.floats(format!("{name}.high"), &[], &[high]);
    builder.node("Clip", name, &[&sum, &low, &high], vec![])
}

fn tensor(builder: &mut Builder, name: String, values: &Tensor) -> Result<String> {
    Ok(builder.floats(
        name,
        values.dims(),
        &values.flatten_all()?.to_vec1::<f32>()?,
    ))
}
