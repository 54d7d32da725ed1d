//! Scales channels so that each fills its activation's bytes.
//!
//! Cross-layer equalization, Nagel et al. 2019 (arXiv 1906.04721), section 4.1: what an operator's output is multiplied by,
//! channel by channel, its readers' weights are divided by. Weights here have a scale per output channel already, so the
//! factors are chosen by the activations' ranges: they share one scale.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use super::Calibration;
use crate::nn::{Conv, Graph, Linear, Op};

/// The most that a channel is multiplied by.
const MOST: f32 = 64.0;

/// A graph of the same function with scaled channels.
#[derive(Clone, Debug)]
pub struct Equalized {
    /// Folded, as the graph that it was made of.
    pub graph: Graph,
    /// What each channel of each node's output is multiplied by; an empty list where nothing is.
    pub factors: Vec<Vec<f32>>,
}

impl Equalized {
    /// `graph` as it is.
    #[must_use]
    pub fn untouched(graph: &Graph) -> Self {
        Self {
            graph: graph.clone(),
            factors: vec![Vec::new(); graph.nodes.len()],
        }
    }
}

/// Multiplies each channel by `(the activation's reach / the channel's reach)^strength`, `strength` in (0, 1], and divides
/// the weights that read it.
///
/// Activations between which channels only pass through (sums, pools) have the same factors, by the channel's largest share
/// of any of them. ReLU and sums let a positive factor through. ReLU6 does not, but no channel grows beyond what its
/// activation reached: one that reaches 6 in an activation that does keeps its factor of 1, and the others are clamped
/// no earlier than where calibration ended.
///
/// # Errors
/// When shapes do not fit.
pub fn equalize(graph: &Graph, calibration: &Calibration, strength: f32) -> Result<Equalized> {
    let groups = groups(graph);
    let mut factors = vec![Vec::new(); graph.nodes.len()];
    for group in 0..graph.nodes.len() {
        let members: Vec<usize> = (0..graph.nodes.len())
            .filter(|&node| groups[node] == Some(group))
            .collect();
        let Some(&first) = members.first() else {
            continue;
        };
        let mut shares = vec![0.0f32; calibration.channel_reach(first).len()];
        for &member in &members {
            let reach = calibration.channel_reach(member);
            if reach.len() != shares.len() {
                return Err(Error::new(format!(
                    "`{}` has {} channels, `{}` {}",
                    graph.nodes[member].name,
                    reach.len(),
                    graph.nodes[first].name,
                    shares.len()
                )));
            }
            let most = reach.iter().copied().fold(1e-12, f32::max);
            for (share, reach) in shares.iter_mut().zip(reach) {
                *share = share.max(reach / most);
            }
        }
        let of_group: Vec<f32> = shares
            .iter()
            .map(|share| share.max(1.0 / MOST).powf(-strength))
            .collect();
        for member in members {
            factors[member].clone_from(&of_group);
        }
    }
    let mut equalized = graph.clone();
    for (index, node) in equalized.nodes.iter_mut().enumerate() {
        let read = node
            .inputs
            .first()
            .map_or(&[][..], |&input| &factors[input]);
        match &mut node.op {
            Op::Conv(conv) => {
                *conv = scale_conv(conv, read, &factors[index])
                    .with_context(|| format!("equalizing `{}`", node.name))?;
            }
            Op::Linear(linear) if !read.is_empty() => {
                let divisor = vector(read, &linear.weight, &[1, read.len()])?;
                *linear = Linear {
                    weight: linear.weight.broadcast_div(&divisor).context("a head")?,
                    bias: linear.bias.clone(),
                };
            }
            _ => {}
        }
    }
    Ok(Equalized {
        graph: equalized,
        factors,
    })
}

fn scale_conv(conv: &Conv, read: &[f32], written: &[f32]) -> candle_core::Result<Conv> {
    let mut scaled = conv.clone();
    if !read.is_empty() {
        let shape = if conv.groups == 1 {
            [1, read.len(), 1, 1]
        } else {
            [read.len(), 1, 1, 1]
        };
        let divisor = Tensor::from_slice(read, &shape, conv.weight.device())?;
        scaled.weight = scaled.weight.broadcast_div(&divisor)?;
    }
    if !written.is_empty() {
        let channels = written.len();
        let factor = Tensor::from_slice(written, (channels, 1, 1, 1), conv.weight.device())?;
        scaled.weight = scaled.weight.broadcast_mul(&factor)?;
        if let Some(bias) = &scaled.bias {
            scaled.bias = Some((bias * factor.reshape(channels)?)?);
        }
    }
    Ok(scaled)
}

fn vector(values: &[f32], like: &Tensor, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, like.device()).context("factors of channels")
}

/// For each node the first of those that must have its factors; `None` where no factor can be.
fn groups(graph: &Graph) -> Vec<Option<usize>> {
    let count = graph.nodes.len();
    let mut group: Vec<usize> = (0..count).collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        let passes_through = matches!(
            node.op,
            Op::Add(_) | Op::Pool(_) | Op::Squeeze | Op::Flatten | Op::GlobalAveragePool
        );
        for &input in node.inputs.iter().filter(|_| passes_through) {
            let (from, to) = (
                group[index].max(group[input]),
                group[index].min(group[input]),
            );
            group
                .iter_mut()
                .filter(|of| **of == from)
                .for_each(|of| *of = to);
        }
    }
    let mut scalable = vec![true; count];
    let mut forbid = |node: usize| scalable[group[node]] = false;
    for (index, node) in graph.nodes.iter().enumerate() {
        let absorbs = match &node.op {
            // A depthwise convolution with one output for each input.
            Op::Conv(conv) => {
                conv.groups == 1 || conv.weight.dim(0).is_ok_and(|n| n == conv.groups)
            }
            Op::Linear(_) | Op::Add(_) | Op::Pool(_) => true,
            Op::Squeeze | Op::Flatten | Op::GlobalAveragePool => true,
            Op::Input | Op::Function(_) | Op::Concat | Op::MultiplyChannels => false,
        };
        if !absorbs {
            node.inputs.iter().for_each(|&input| forbid(input));
        }
        if index + 1 == count
            || matches!(
                node.op,
                Op::Input | Op::Function(_) | Op::Concat | Op::MultiplyChannels
            )
        {
            forbid(index);
        }
    }
    group
        .into_iter()
        .map(|of| scalable[of].then_some(of))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::{largest_difference, pseudo_random};
    use crate::nn::{Activation, Node, Padding};
    use crate::quantize::calibrate;

    fn conv(shape: [usize; 4], seed: u32, groups: usize, activation: Activation) -> Op {
        // Channels of very different reach.
        let spread: Vec<f32> = (0..shape[0])
            .map(|c| 0.05 * 1.9f32.powi(c as i32))
            .collect();
        let spread = Tensor::from_slice(&spread, (shape[0], 1, 1, 1), &candle_core::Device::Cpu);
        let weight = pseudo_random(&shape, seed.into());
        Op::Conv(Conv {
            weight: weight.broadcast_mul(&spread.unwrap()).unwrap(),
            bias: Some(pseudo_random(&[shape[0]], u64::from(seed) + 50)),
            batch_norm: None,
            stride: 1,
            padding: Padding::symmetric(shape[2] / 2),
            groups,
            activation,
        })
    }

    /// An inverted residual as in MobileNetV2 with a sum behind, and a head.
    fn inverted_residual(activation: Activation) -> Graph {
        let ops = [
            (Op::Input, vec![]),
            (conv([4, 3, 3, 3], 1, 1, Activation::None), vec![0]),
            (conv([8, 4, 1, 1], 2, 1, activation), vec![1]),
            (conv([8, 1, 3, 3], 3, 8, activation), vec![2]),
            (conv([4, 8, 1, 1], 4, 1, Activation::None), vec![3]),
            (Op::Add(Activation::None), vec![1, 4]),
            (conv([8, 4, 1, 1], 5, 1, activation), vec![5]),
            (Op::GlobalAveragePool, vec![6]),
            (
                Op::Linear(Linear {
                    weight: pseudo_random(&[3, 8], 6),
                    bias: pseudo_random(&[3], 7),
                }),
                vec![7],
            ),
        ];
        let nodes = ops
            .into_iter()
            .enumerate()
            .map(|(index, (op, inputs))| Node {
                name: format!("node{index}"),
                op,
                inputs,
            });
        Graph {
            nodes: nodes.collect(),
        }
    }

    #[test]
    fn the_function_stays_and_channels_fill_their_activation() {
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            let graph = inverted_residual(activation);
            let input = (pseudo_random(&[6, 3, 9, 9], 9) * 4.0).unwrap();
            let seen = calibrate(&graph, std::slice::from_ref(&input), &|_| {}).unwrap();
            for strength in [0.5, 1.0] {
                let equalized = equalize(&graph, &seen, strength).unwrap();
                let run = |graph: &Graph| graph.forward(&input, &mut |_, _| Ok(())).unwrap();
                let off = largest_difference(&run(&graph), &run(&equalized.graph));
                assert!(off < 1e-4, "{activation:?}, {strength}: {off}");
                // The sum and both of its terms, and all behind the convolutions but the logits.
                let of = &equalized.factors;
                assert_eq!(of[1], of[4]);
                assert_eq!(of[1], of[5]);
                assert!(of[0].is_empty() && of[8].is_empty());
                assert!((1..8).all(|node| of[node].iter().all(|f| *f >= 1.0)));
                assert!(
                    (1..8).all(|node| of[node].iter().any(|f| *f > 1.0)),
                    "{of:?}"
                );
            }
            let equalized = equalize(&graph, &seen, 1.0).unwrap();
            let again = calibrate(&equalized.graph, &[input], &|_| {}).unwrap();
            let scaled = seen.scaled(&equalized.factors);
            for node in 1..8 {
                let (a, b) = (again.channel_reach(node), scaled.channel_reach(node));
                assert!(
                    a.iter()
                        .zip(&b)
                        .all(|(a, b)| (a - b).abs() < 1e-3 * b.max(1.0))
                );
            }
        }
    }
}
