//! Rewrites on the ONNX graph, before tract reads it: each finds the standard nodes that together are one quantized
//! operator, and puts one of [`crate::ops`] in their place. What does not match in every detail stays as it is and runs
//! in tract's own operators.

mod conv;
mod global_average_pool;
mod head;
mod max_pool;
mod pixels;
mod residual_add;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::pb::{GraphProto, NodeProto};

use crate::onnx::View;
use crate::ops::Quantized;

/// The type of a node whose operator stands in [`Operators`]: no ONNX operator has this name.
pub(crate) const PLACEHOLDER: &str = "graft.operator";

/// The operators that placeholders stand for, by node name.
pub(crate) type Operators = HashMap<String, Arc<dyn Quantized>>;

/// What takes the place of a pattern's last node; its output keeps its name.
struct Replacement {
    operator: Arc<dyn Quantized>,
    inputs: Vec<String>,
    /// Nodes that make an input, to go before it.
    before: Vec<NodeProto>,
}

impl Replacement {
    fn new(operator: impl Quantized + 'static, inputs: &[&str]) -> Option<Replacement> {
        let inputs = inputs.iter().map(|name| (*name).to_owned()).collect();
        Some(Replacement {
            operator: Arc::new(operator),
            inputs,
            before: vec![],
        })
    }
}

/// What replaces `root`, the last node of a pattern, if the pattern is there.
type Pass = fn(view: &View, root: &NodeProto) -> Option<Replacement>;

/// In this order: later patterns look for the placeholders that earlier ones put in.
const PASSES: [Pass; 6] = [
    pixels::find,
    conv::find,
    residual_add::find,
    global_average_pool::find,
    max_pool::find,
    head::find,
];

/// Rewrites all patterns in `graph`, whose nodes stand in topological order; drops nodes and constants that nothing
/// uses any more.
pub(crate) fn rewrite(graph: &mut GraphProto) -> Operators {
    let mut operators = Operators::new();
    for pass in PASSES {
        let view = View::new(graph, &operators);
        let found: Vec<Option<Replacement>> =
            graph.node.iter().map(|node| pass(&view, node)).collect();
        let nodes = std::mem::take(&mut graph.node);
        for (mut node, replacement) in nodes.into_iter().zip(found) {
            if let Some(Replacement {
                operator,
                inputs,
                before,
            }) = replacement
            {
                let name = node.output.concat();
                operators.insert(name.clone(), operator);
                graph.node.extend(before);
                node = NodeProto {
                    name,
                    op_type: PLACEHOLDER.to_owned(),
                    input: inputs,
                    output: node.output,
                    ..NodeProto::default()
                };
            }
            graph.node.push(node);
        }
        drop_unused(graph);
    }
    operators
}

/// Keeps the nodes that an output depends on, and the constants that those use.
fn drop_unused(graph: &mut GraphProto) {
    let mut used: HashSet<String> = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let mut keep = vec![false; graph.node.len()];
    for (node, keep) in graph.node.iter().zip(&mut keep).rev() {
        if node.output.iter().any(|name| used.contains(name)) {
            *keep = true;
            used.extend(node.input.iter().cloned());
        }
    }
    let mut keep = keep.into_iter();
    graph.node.retain(|_| keep.next().unwrap_or(true));
    graph
        .initializer
        .retain(|tensor| used.contains(&tensor.name));
}
