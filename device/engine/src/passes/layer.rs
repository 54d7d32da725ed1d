//! What a layer with weights is made of, read from one node on integers or from a float node between DequantizeLinear
//! and QuantizeLinear.

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use super::before_requantize;
use crate::onnx::{View, f32_values, has_input, i32_values, int};
use crate::proto::Constant;

pub(super) struct Layer<'a> {
    /// Has the attributes.
    pub(super) node: &'a NodeProto,
    /// The tensor that it reads.
    pub(super) x: &'a str,
    pub(super) input: Quantization,
    /// Of i8, with zero point 0.
    pub(super) weights: &'a Constant,
    /// One per output channel, or one for all.
    pub(super) weight_scales: Vec<f32>,
    /// At the scale of the sums; empty for none.
    pub(super) bias: Vec<i32>,
    pub(super) output: Quantization,
}

impl<'a> Layer<'a> {
    /// Of a node on integers: activation and weights come first, each with scale and zero point; `bias` and `output` are
    /// the indices of the bias and of the output's scale.
    pub(super) fn of_integers(
        view: &View<'a>,
        node: &'a NodeProto,
        [bias, output]: [usize; 2],
    ) -> Option<Layer<'a>> {
        if !view.zero_point_is_zero(node, 5) {
            return None;
        }
        Some(Layer {
            node,
            x: has_input(node, 0)?,
            input: view.quantization(node, 1)?,
            weights: view.constant(node, 3)?,
            weight_scales: f32_values(view.constant(node, 4)?)?,
            bias: match has_input(node, bias) {
                Some(_) => i32_values(view.constant(node, bias)?)?,
                None => vec![],
            },
            output: view.quantization(node, output)?,
        })
    }

    /// Of a node of type `op_type` on floats, whose result `root` quantizes.
    pub(super) fn of_floats(view: &View<'a>, root: &NodeProto, op_type: &str) -> Option<Layer<'a>> {
        let (node, output) = before_requantize(view, root, op_type)?;
        let (x, input) = view.dequantized(has_input(node, 0)?)?;
        let (weights, weight_scales) = weights(view, has_input(node, 1)?)?;
        Some(Layer {
            node,
            x,
            input,
            weights,
            weight_scales,
            bias: match has_input(node, 2) {
                Some(tensor) => bias(view, tensor)?,
                None => vec![],
            },
            output,
        })
    }
}

/// The i8 weights that a DequantizeLinear makes `tensor` of, with one scale per output channel or one for all.
fn weights<'a>(view: &View<'a>, tensor: &str) -> Option<(&'a Constant, Vec<f32>)> {
    let node = view.producer(tensor, "DequantizeLinear")?;
    let weights = view.constant(node, 0)?;
    let scales = f32_values(view.constant(node, 1)?)?;
    let per_output = scales.len() == 1 || int(node, "axis", 1) == 0;
    (per_output && view.zero_point_is_zero(node, 2)).then_some((weights, scales))
}

/// The i32 bias that a DequantizeLinear makes `tensor` of; its scale is that of the sums by construction.
fn bias(view: &View, tensor: &str) -> Option<Vec<i32>> {
    let node = view.producer(tensor, "DequantizeLinear")?;
    i32_values(view.constant(node, 0)?)
}
