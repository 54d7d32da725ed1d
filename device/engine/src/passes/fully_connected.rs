//! A fully connected layer whose result is bytes: ONNX Runtime's QGemm, or Gemm between DequantizeLinear and
//! QuantizeLinear, with the Flatten before it.

use tract_onnx::pb::NodeProto;

use super::layer::Layer;
use super::{Replacement, flattened};
use crate::onnx::{View, float, i8_values, int, is_contributed};
use crate::ops::fully_connected::FullyConnected;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    let layer = if is_contributed(root, "QGemm") {
        Layer::of_integers(view, root, [6, 7])?
    } else {
        Layer::of_floats(view, root, "Gemm")?
    };
    let &[rows, columns] = layer.weights.dims.as_slice() else {
        return None;
    };
    if float(layer.node, "alpha", 1.0) != 1.0
        || float(layer.node, "beta", 1.0) != 1.0
        || int(layer.node, "transA", 0) != 0
    {
        return None;
    }
    let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let mut weights = i8_values(layer.weights)?;
    let (outputs, inputs) = if int(layer.node, "transB", 0) == 0 {
        weights = (0..columns)
            .flat_map(|column| weights.iter().skip(column).step_by(columns.max(1)).copied())
            .collect();
        (columns, rows)
    } else {
        (rows, columns)
    };
    let x = flattened(view, layer.x, inputs as i64).unwrap_or(layer.x);
    let fully_connected = FullyConnected {
        inputs,
        outputs,
        input: layer.input,
        weights,
        weight_scales: layer.weight_scales,
        bias: layer.bias,
        output: layer.output,
    };
    Replacement::new(fully_connected, &[x])
}
