//! How every activation's bytes stand for reals: its calibrated range, and what its readers ask of it.

use super::{Affine, Calibration, Method, PixelCode};
use crate::nn::{Activation, Function, Graph, Op, PoolKind};

/// One code per node of the folded graph, its range by the node's own of the `methods`.
///
/// - What only activation functions read keeps to where they are not flat.
/// - What only a concatenation reads has the concatenation's code, so that it is rounded once, where that keeps its clamp.
/// - What picks or passes on bytes has the code of what it reads.
pub(super) fn codes(
    graph: &Graph,
    calibration: &Calibration,
    methods: &[Method],
    input: PixelCode,
) -> Vec<Affine> {
    let readers = readers(graph);
    let code = |node: usize| {
        let functions: Option<Vec<Function>> = readers[node]
            .iter()
            .map(|&reader| match graph.nodes[reader].op {
                Op::Function(function) => Some(function),
                _ => None,
            })
            .collect();
        let bounds = functions.unwrap_or_default().into_iter();
        let bounds = bounds
            .map(Function::bounds)
            .reduce(|(low, high), next| (low.min(next.0), high.max(next.1)));
        let everything = (f32::NEG_INFINITY, f32::INFINITY);
        calibration.range(node, methods[node], bounds.unwrap_or(everything))
    };
    let mut codes: Vec<Affine> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        codes.push(match &node.op {
            Op::Input => input.output,
            op if passes_on(op) => codes[node.inputs[0]],
            op => {
                let mut code = code(concatenation(graph, &readers, index).unwrap_or(index));
                if matches!(op, Op::Conv(conv) if conv.activation == Activation::Relu6) {
                    code.scale = code.scale.min((6.0 / 255.0) as f32);
                }
                code
            }
        });
    }
    codes
}

/// Whether the range of node `index` is picked for itself: not that of pixels, of logits or of another node.
pub fn has_range(graph: &Graph, index: usize) -> bool {
    match &graph.nodes[index].op {
        Op::Input | Op::Linear(_) => false,
        op if passes_on(op) => false,
        _ => concatenation(graph, &readers(graph), index).is_none(),
    }
}

/// The concatenation whose code node `index` has: the only one that reads it, unless the node is clamped at 0 and the
/// concatenation's bytes go below.
fn concatenation(graph: &Graph, readers: &[Vec<usize>], index: usize) -> Option<usize> {
    match readers[index][..] {
        [reader]
            if matches!(graph.nodes[reader].op, Op::Concat)
                && (is_never_negative(graph, reader) || !is_never_negative(graph, index)) =>
        {
            Some(reader)
        }
        _ => None,
    }
}

fn is_never_negative(graph: &Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    match &node.op {
        Op::Conv(conv) => conv.activation != Activation::None,
        Op::Add(activation) => *activation != Activation::None,
        Op::Pool(_) | Op::GlobalAveragePool | Op::Concat | Op::Squeeze | Op::Flatten => node
            .inputs
            .iter()
            .all(|&input| is_never_negative(graph, input)),
        _ => false,
    }
}

/// Whether the output's bytes are bytes of the input.
fn passes_on(op: &Op) -> bool {
    match op {
        Op::Pool(pool) => pool.kind == PoolKind::Max,
        Op::Flatten => true,
        _ => false,
    }
}

/// Which nodes read each node.
fn readers(graph: &Graph) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            readers[input].push(index);
        }
    }
    readers
}
