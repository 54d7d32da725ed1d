//! The graph of a backbone: nodes in topological order, and its forward pass.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use super::{Activation, Conv, Function, Linear, Pool, add, multiply, pool};

/// A network as a list of nodes; the output of node `i` is activation `i`.
///
/// Node 0 is [`Op::Input`], every node reads earlier ones only, and the last node's output is the network's.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The nodes in topological order.
    pub nodes: Vec<Node>,
}

/// One operator with its place in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique name, such as `blocks.3.depthwise`.
    pub name: String,
    /// What the node computes.
    pub op: Op,
    /// Indices of the nodes whose outputs it reads, all smaller than its own.
    pub inputs: Vec<usize>,
}

/// What a node computes.
#[derive(Clone, Debug)]
pub enum Op {
    /// The network's input: normalised pixels, `[n, 3, height, width]`.
    Input,
    /// Convolution, BatchNorm and activation in one unit.
    Conv(Conv),
    /// Sum of two activations of one shape (the residual connection), and what follows it.
    Add(Activation),
    /// An activation function that is no clamp.
    Function(Function),
    /// The mean or the largest value of each window.
    Pool(Pool),
    /// Channels of several activations of one height and width side by side.
    Concat,
    /// Product of an activation `[n, c, height, width]` and one `[n, c, 1, 1]` (squeeze-and-excitation).
    MultiplyChannels,
    /// Mean over height and width, which stay as 1: `[n, c, height, width]` to `[n, c, 1, 1]`.
    Squeeze,
    /// Drops height and width of 1: `[n, c, 1, 1]` to `[n, c]`.
    Flatten,
    /// Mean over height and width: `[n, c, height, width]` to `[n, c]`.
    GlobalAveragePool,
    /// Fully connected layer: `[n, in]` to `[n, out]`.
    Linear(Linear),
}

impl Op {
    /// Whether it can read that many activations.
    fn takes(&self, inputs: usize) -> bool {
        match self {
            Op::Input => inputs == 0,
            Op::Concat => inputs > 0,
            Op::Add(_) | Op::MultiplyChannels => inputs == 2,
            _ => inputs == 1,
        }
    }
}

impl Graph {
    /// Channels of the output of node `node`, by the weights before it; an image has 3.
    ///
    /// # Errors
    /// No such node, or one that reads a later one.
    pub fn channels(&self, node: usize) -> Result<usize> {
        let mut channels: Vec<usize> = Vec::with_capacity(node + 1);
        for (index, reader) in self.nodes.iter().take(node + 1).enumerate() {
            let read = |input: &usize| {
                channels.get(*input).copied().ok_or_else(|| {
                    Error::new(format!("node {index} `{}` reads a later one", reader.name))
                })
            };
            let output = match &reader.op {
                Op::Input => 3,
                Op::Conv(Conv { weight, .. }) | Op::Linear(Linear { weight, .. }) => {
                    weight.dim(0).context("a weight has no dimensions")?
                }
                Op::Concat => reader.inputs.iter().map(read).sum::<Result<usize>>()?,
                _ => read(reader.inputs.first().unwrap_or(&usize::MAX))?,
            };
            channels.push(output);
        }
        channels
            .get(node)
            .copied()
            .ok_or_else(|| Error::new(format!("the graph has no node {node}")))
    }

    /// Runs the whole network on `input` (f32, `[n, 3, height, width]`) and returns the last node's output.
    ///
    /// `observe` sees every activation with its node's index, the input's included, before it is freed;
    /// an activation lives until its last reader has run. Each image's result is independent of the others in the batch.
    ///
    /// # Errors
    /// A node that reads a later one or the wrong number of them, a shape that does not fit, and what `observe` returns.
    pub fn forward(
        &self,
        input: &Tensor,
        observe: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        self.forward_to(self.nodes.len().saturating_sub(1), input, observe)
    }

    /// As [`Graph::forward`], but stops at node `last` and returns its output; later nodes are not run.
    ///
    /// # Errors
    /// As [`Graph::forward`], and a `last` that is not a node.
    pub fn forward_to(
        &self,
        last: usize,
        input: &Tensor,
        observe: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let nodes = self
            .nodes
            .get(..=last)
            .ok_or_else(|| Error::new(format!("the graph has no node {last}")))?;
        let mut readers_left = vec![0_usize; nodes.len()];
        for input in nodes.iter().flat_map(|node| &node.inputs) {
            if let Some(readers) = readers_left.get_mut(*input) {
                *readers += 1;
            }
        }

        let mut activations: Vec<Option<Tensor>> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let output = node
                .forward(&activations, input)
                .with_context(|| format!("node {index} `{}` of the graph", node.name))?;
            observe(index, &output)?;
            activations.push(Some(output));
            for &read in &node.inputs {
                readers_left[read] -= 1;
                if readers_left[read] == 0 {
                    activations[read] = None;
                }
            }
        }
        activations
            .pop()
            .flatten()
            .ok_or_else(|| Error::new("the graph has no nodes"))
    }
}

impl Node {
    fn forward(&self, activations: &[Option<Tensor>], input: &Tensor) -> Result<Tensor> {
        if !self.op.takes(self.inputs.len()) {
            return Err(Error::new(format!(
                "its operator does not take {} inputs",
                self.inputs.len()
            )));
        }
        let read = |position: usize| {
            self.inputs
                .get(position)
                .and_then(|&index| activations.get(index)?.as_ref())
                .ok_or_else(|| Error::new("it reads a node that does not come before it"))
        };
        match &self.op {
            Op::Input => Ok(input.clone()),
            Op::Conv(conv) => conv.forward(read(0)?),
            Op::Add(activation) => add::add(read(0)?, read(1)?, *activation),
            Op::Function(function) => function.forward(read(0)?),
            Op::Pool(pool) => pool.forward(read(0)?),
            Op::Concat => {
                let parts: Vec<&Tensor> =
                    (0..self.inputs.len()).map(read).collect::<Result<_>>()?;
                Tensor::cat(&parts, 1).context("putting activations side by side")
            }
            Op::MultiplyChannels => multiply::multiply_channels(read(0)?, read(1)?),
            Op::Squeeze => pool::global_average(read(0)?)?
                .unsqueeze(2)
                .and_then(|means| means.unsqueeze(3))
                .context("a mean that keeps height and width"),
            Op::Flatten => read(0)?
                .squeeze(3)
                .and_then(|rows| rows.squeeze(2))
                .context("flattening wants [n, c, 1, 1]"),
            Op::GlobalAveragePool => pool::global_average(read(0)?),
            Op::Linear(linear) => linear.forward(read(0)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::Padding;
    use crate::nn::testing::{largest_difference, pseudo_random};

    fn node(name: &str, op: Op, inputs: &[usize]) -> Node {
        Node {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
        }
    }

    fn residual() -> Graph {
        let conv = Conv {
            weight: pseudo_random(&[4, 1, 3, 3], 1),
            bias: None,
            batch_norm: None,
            stride: 1,
            padding: Padding::symmetric(1),
            groups: 4,
            activation: Activation::None,
        };
        Graph {
            nodes: vec![
                node("input", Op::Input, &[]),
                node("conv", Op::Conv(conv), &[0]),
                node("add", Op::Add(Activation::None), &[1, 0]),
                node("pool", Op::GlobalAveragePool, &[2]),
            ],
        }
    }

    #[test]
    fn runs_in_order_and_shows_every_activation() {
        let input = pseudo_random(&[2, 4, 5, 6], 2);
        let mut seen = Vec::new();
        let output = residual()
            .forward(&input, &mut |index, activation| {
                seen.push((index, activation.clone()));
                Ok(())
            })
            .unwrap();
        assert_eq!(output.dims(), [2, 4]);
        let indices: Vec<usize> = seen.iter().map(|(index, _)| *index).collect();
        assert_eq!(indices, [0, 1, 2, 3]);
        let sum = (&seen[0].1 + &seen[1].1).unwrap();
        assert_eq!(largest_difference(&sum, &seen[2].1), 0.0);
        let mean = sum.mean((2, 3)).unwrap();
        assert!(largest_difference(&mean, &output) < 1e-6);

        let stopped = residual()
            .forward_to(2, &input, &mut |_, _| Ok(()))
            .unwrap();
        assert_eq!(largest_difference(&stopped, &sum), 0.0);
    }

    #[test]
    fn squeezed_channels_excite_what_is_put_side_by_side() {
        let ops = [
            (Op::Input, &[][..]),
            (Op::Add(Activation::Relu), &[0, 0]),
            (Op::Concat, &[0, 1]),
            (Op::Squeeze, &[2]),
            (Op::MultiplyChannels, &[2, 3]),
            (Op::Squeeze, &[4]),
            (Op::Flatten, &[5]),
        ];
        let graph = Graph {
            nodes: ops.map(|(op, inputs)| node("node", op, inputs)).to_vec(),
        };
        let input = pseudo_random(&[2, 3, 5, 6], 2);
        let output = graph.forward(&input, &mut |_, _| Ok(())).unwrap();
        assert_eq!(output.dims(), [2, 6]);
        assert_eq!(graph.channels(6).unwrap(), 6);
        let doubled = (&input * 2.0).unwrap().relu().unwrap();
        let means = Tensor::cat(&[&input, &doubled], 1)
            .unwrap()
            .mean((2, 3))
            .unwrap();
        assert!(largest_difference(&output, &means.sqr().unwrap()) < 1e-6);
        assert!(graph.channels(7).is_err());
    }

    #[test]
    fn a_bad_graph_is_an_error_that_names_the_node() {
        let input = pseudo_random(&[1, 4, 5, 5], 2);
        for inputs in [&[3, 0][..], &[1], &[2, 2], &[9, 0]] {
            let mut graph = residual();
            graph.nodes[2].inputs = inputs.to_vec();
            let report = graph
                .forward(&input, &mut |_, _| Ok(()))
                .unwrap_err()
                .report();
            assert!(report.contains("`add`"), "{report}");
        }
        let empty = Graph { nodes: Vec::new() };
        assert!(empty.forward(&input, &mut |_, _| Ok(())).is_err());
        assert!(
            residual()
                .forward_to(4, &input, &mut |_, _| Ok(()))
                .is_err()
        );
    }
}
