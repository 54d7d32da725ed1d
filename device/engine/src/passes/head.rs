//! MatMulInteger, Add, Cast, Mul, with the Flatten or Reshape after the pool before it.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Replacement, flattened};
use crate::onnx::{View, f32_values, has_input, i8_values, i32_values, int, is};
use crate::ops::head::Head;

pub(super) fn find(view: &View, root: &NodeProto) -> Option<Replacement> {
    if !is(root, "Mul") {
        return None;
    }
    let (cast, scales) = with_constant(view, root, "Cast")?;
    let scales = f32_values(view.constant(root, scales)?)?;
    if int(cast, "to", 0) != DataType::Float as i64 {
        return None;
    }
    let sum = has_input(cast, 0)?;
    let (matmul, bias) = match view.producer(sum, "Add") {
        Some(add) => {
            let (matmul, bias) = with_constant(view, add, "MatMulInteger")?;
            (matmul, i32_values(view.constant(add, bias)?)?)
        }
        None => (view.producer(sum, "MatMulInteger")?, vec![]),
    };
    if !view.zero_point_is_zero(matmul, 3) {
        return None;
    }
    let weights = view.constant(matmul, 1)?;
    let &[inputs, outputs] = weights.dims.as_slice() else {
        return None;
    };
    let head = Head {
        inputs: usize::try_from(inputs).ok()?,
        outputs: usize::try_from(outputs).ok()?,
        weights: i8_values(weights)?,
        input_zero_point: view.u8(matmul, 2)?,
        bias,
        scales,
    };
    let input = has_input(matmul, 0)?;
    Replacement::new(head, &[flattened(view, input, inputs).unwrap_or(input)])
}

/// The input of `node` that a node of type `op_type` makes, and the index of the other, which must be a constant.
fn with_constant<'a>(
    view: &View<'a>,
    node: &NodeProto,
    op_type: &str,
) -> Option<(&'a NodeProto, usize)> {
    [(0, 1), (1, 0)].into_iter().find_map(|(input, other)| {
        let producer = view.producer(has_input(node, input)?, op_type)?;
        view.constant(node, other)?;
        Some((producer, other))
    })
}
