//! Rounds the folded graph's weights to int8 and corrects the biases for what rounding shifted.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use super::codes::codes;
use super::feedback::Triangle;
use super::{
    Calibration, Feedback, Method, PixelCode, QuantizedGraph, QuantizedNode, QuantizedOp, Weights,
};
use crate::nn::{Graph, Op};

/// Two products of weights beyond this and a byte would overflow an i16 on ARM without `sdot`.
const EIGHT_BITS: f64 = 127.0;
/// Two products of weights up to this and a byte fit an i16: processors without a dot product sum them faster.
const SEVEN_BITS: f64 = 64.0;

/// Quantizes a folded graph with each activation's range by its node's own of the `methods`; `input` is how the pixels come in. With
/// `seven_bits` the dense convolutions' weights keep to [-64, 64]; depthwise ones and the head gain nothing by it.
///
/// Weights are symmetric with one scale per output channel, each rounded to the nearest or, with `feedback`, with regard to
/// the errors before it. Biases are corrected for the mean shift that rounding the
/// weights causes: Nagel et al. 2019 (arXiv 1906.04721), section 4.2, with the channel means measured on the calibration
/// images.
///
/// # Errors
/// When a weight or bias is not finite, or a bias does not fit an i32 at its scale.
pub fn quantize(
    graph: &Graph,
    calibration: &Calibration,
    methods: &[Method],
    input: PixelCode,
    seven_bits: bool,
    feedback: Option<&Feedback>,
) -> Result<QuantizedGraph> {
    let codes = codes(graph, calibration, methods, input);
    let mut nodes: Vec<QuantizedNode> = Vec::with_capacity(graph.nodes.len());
    for (index, (node, &output)) in graph.nodes.iter().zip(&codes).enumerate() {
        let triangle = feedback.and_then(|feedback| feedback.of(index));
        let source = node.inputs.first().copied().unwrap_or(0);
        let read = codes[source];
        let op = match &node.op {
            Op::Input => QuantizedOp::Input(input.normalisation),
            Op::Conv(conv) => {
                let (channels, inputs, height, width) =
                    conv.weight.dims4().context("a convolution's weight")?;
                let bias = conv.bias.as_ref().ok_or_else(|| {
                    Error::new(format!("`{}` has no bias: fold BatchNorm first", node.name))
                })?;
                let means = calibration.channel_means(source);
                // Output channel c of a grouped convolution reads the input channels of its group.
                let group_of = |c: usize| c / (channels / conv.groups) * inputs;
                let mean_of = |c: usize, i: usize| means[group_of(c) + i / (height * width)];
                let most = if seven_bits && conv.groups == 1 {
                    SEVEN_BITS
                } else {
                    EIGHT_BITS
                };
                QuantizedOp::Conv {
                    weights: round(
                        &node.name,
                        [&conv.weight, bias],
                        most,
                        read.scale,
                        (triangle, conv.groups),
                        mean_of,
                    )?,
                    shape: [channels, inputs, height, width],
                    stride: conv.stride,
                    padding: conv.padding,
                    groups: conv.groups,
                }
            }
            Op::Add(_) => QuantizedOp::Add,
            Op::Function(function) => QuantizedOp::Function(*function),
            Op::Pool(pool) => QuantizedOp::Pool(*pool),
            Op::Concat => QuantizedOp::Concat,
            Op::MultiplyChannels => QuantizedOp::MultiplyChannels,
            Op::Squeeze => QuantizedOp::Squeeze,
            Op::Flatten => QuantizedOp::Flatten,
            Op::GlobalAveragePool => QuantizedOp::GlobalAveragePool,
            Op::Linear(linear) => {
                let means = calibration.channel_means(source);
                QuantizedOp::Linear {
                    weights: round(
                        &node.name,
                        [&linear.weight, &linear.bias],
                        EIGHT_BITS,
                        read.scale,
                        (triangle, 1),
                        |_, i| means[i],
                    )?,
                    inputs: linear.weight.dim(1).context("the head's weight")?,
                }
            }
        };
        nodes.push(QuantizedNode {
            name: node.name.clone(),
            op,
            inputs: node.inputs.clone(),
            output,
        });
    }
    Ok(QuantizedGraph { nodes })
}

/// Rounds weights `[output channels, …]`, given with their biases, to [-`most`, `most`]; `mean_of(c, i)` is the mean of what weight `i` of channel `c` is multiplied by.
fn round(
    name: &str,
    [weight, bias]: [&Tensor; 2],
    most: f64,
    input_scale: f32,
    (triangle, groups): (Option<&Triangle>, usize),
    mean_of: impl Fn(usize, usize) -> f64,
) -> Result<Weights> {
    let bias = bias
        .to_vec1::<f32>()
        .with_context(|| format!("the bias of `{name}`"))?;
    let channels = bias.len();
    let weight = weight
        .flatten_all()
        .and_then(|flat| flat.to_vec1::<f32>())
        .with_context(|| format!("the weight of `{name}`"))?;
    let mut weights = Weights {
        values: Vec::with_capacity(weight.len()),
        scales: Vec::new(),
        biases: Vec::new(),
    };
    for (channel, (row, &bias)) in weight
        .chunks_exact(weight.len() / channels.max(1))
        .zip(&bias)
        .enumerate()
    {
        let largest = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        // A channel of zeros still needs a scale at which its bias fits.
        let scale = (f64::from(largest) / most)
            .max(f64::from(bias.abs()) / (f64::from(input_scale) * 1e9))
            .max(1e-12) as f32;
        let rounded = match triangle {
            Some(triangle) => triangle.round(
                row,
                channel / (channels / groups).max(1),
                scale.into(),
                most,
            ),
            None => nearest(row, scale.into(), most),
        };
        let mut shift = 0.0;
        for (i, (&w, &rounded)) in row.iter().zip(&rounded).enumerate() {
            shift += (f64::from(rounded) * f64::from(scale) - f64::from(w)) * mean_of(channel, i);
        }
        weights.values.extend(rounded);
        let integer = (f64::from(bias) - shift) / (f64::from(input_scale) * f64::from(scale));
        if !integer.is_finite() || integer.abs() > 2e9 {
            return Err(Error::new(format!("channel {channel} of `{name}` can't be quantized: largest weight {largest}, bias {bias}"))
                .hint("the weights are damaged or training diverged"));
        }
        weights.scales.push(scale);
        weights.biases.push(integer.round_ties_even() as i32);
    }
    Ok(weights)
}

fn nearest(weights: &[f32], scale: f64, most: f64) -> Vec<i8> {
    let rounded = weights.iter().map(|&weight| {
        let integer = (f64::from(weight) / scale).round_ties_even();
        integer.clamp(-most, most) as i8
    });
    rounded.collect()
}
