//! The graph of a backbone: nodes in topological order, and its forward pass.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use super::{Conv, Linear, add, pool};

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
    /// Sum of two activations of one shape (the residual connection).
    Add,
    /// Mean over height and width: `[n, c, height, width]` to `[n, c]`.
    GlobalAveragePool,
    /// Fully connected layer: `[n, in]` to `[n, out]`.
    Linear(Linear),
}

impl Op {
    fn arity(&self) -> usize {
        match self {
            Op::Input => 0,
            Op::Add => 2,
            Op::Conv(_) | Op::GlobalAveragePool | Op::Linear(_) => 1,
        }
    }
}

impl Graph {
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
        if self.inputs.len() != self.op.arity() {
            return Err(Error::new(format!(
                "it has {} inputs, its operator takes {}",
                self.inputs.len(),
                self.op.arity()
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
            Op::Add => add::add(read(0)?, read(1)?),
            Op::GlobalAveragePool => pool::global_average(read(0)?),
            Op::Linear(linear) => linear.forward(read(0)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::{largest_difference, pseudo_random};
    use crate::nn::{Activation, Padding};

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
                node("add", Op::Add, &[1, 0]),
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
