//! A fully connected layer whose result is bytes: ONNX Runtime's QGemm, or Gemm between DequantizeLinear and
//! QuantizeLinear, with the Flatten before it.

use graft_kernels::Quantization;
use tract_onnx::pb::NodeProto;

use super::conv::{dequantized_bias, dequantized_weights};
use super::{Replacement, before_requantize, flattened};
use crate::onnx::{View, f32_values, float, has_input, i8_values, i32_values, int, is_contributed};
use crate::ops::fully_connected::FullyConnected;
use crate::proto::Constant;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if is_contributed(root, "QGemm") {
        if !view.zero_point_is_zero(root, 5) {
            return None;
        }
        let weights = (
            view.constant(root, 3)?,
            f32_values(view.constant(root, 4)?)?,
        );
        let bias = match has_input(root, 6) {
            Some(_) => i32_values(view.constant(root, 6)?)?,
            None => vec![],
        };
        let (input, output) = (view.quantization(root, 1)?, view.quantization(root, 7)?);
        return replace(
            view,
            root,
            has_input(root, 0)?,
            input,
            weights,
            bias,
            output,
        );
    }
    let (gemm, output) = before_requantize(view, root, "Gemm")?;
    let (x, input) = view.dequantized(has_input(gemm, 0)?)?;
    let weights = dequantized_weights(view, has_input(gemm, 1)?)?;
    let bias = match has_input(gemm, 2) {
        Some(tensor) => dequantized_bias(view, tensor)?,
        None => vec![],
    };
    replace(view, gemm, x, input, weights, bias, output)
}

fn replace(
    view: &View,
    gemm: &NodeProto,
    x: &str,
    input: Quantization,
    (weights, weight_scales): (&Constant, Vec<f32>),
    bias: Vec<i32>,
    output: Quantization,
) -> Option<Replacement> {
    let &[rows, columns] = weights.dims.as_slice() else {
        return None;
    };
    if float(gemm, "alpha", 1.0) != 1.0
        || float(gemm, "beta", 1.0) != 1.0
        || int(gemm, "transA", 0) != 0
    {
        return None;
    }
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let mut values = i8_values(weights)?;
    let (outputs, inputs) = if int(gemm, "transB", 0) == 0 {
        values = (0..columns)
            .flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied())
            .collect();
        (columns, rows)
    } else {
        (rows, columns)
    };
    let layer = FullyConnected {
        inputs,
        outputs,
        input,
        weights: values,
        weight_scales,
        bias,
        output,
    };
    Replacement::new(layer, &[flattened(view, x, inputs as i64).unwrap_or(x)])
}
