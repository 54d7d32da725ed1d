//! Folds BatchNorm into the convolution before it.
//!
//! Jacob et al. 2018 (arXiv 1712.05877), section 3.2: `w' = w * gamma / sqrt(variance + epsilon)`,
//! `b' = beta + (b - mean) * gamma / sqrt(variance + epsilon)`, in f64.

use candle_core::{DType, Result, Tensor};

use crate::nn::{Conv, Graph, Node, Op};

/// The same function without BatchNorm: every convolution has a bias and no `batch_norm`.
///
/// # Errors
/// When shapes do not fit.
pub fn fold(graph: &Graph) -> Result<Graph> {
    let nodes = graph.nodes.iter().map(|node| {
        let op = match &node.op {
            Op::Conv(conv) => Op::Conv(fold_conv(conv)?),
            other => other.clone(),
        };
        Ok(Node {
            name: node.name.clone(),
            op,
            inputs: node.inputs.clone(),
        })
    });
    Ok(Graph {
        nodes: nodes.collect::<Result<_>>()?,
    })
}

fn fold_conv(conv: &Conv) -> Result<Conv> {
    let channels = conv.weight.dim(0)?;
    let bias = match &conv.bias {
        Some(bias) => bias.to_dtype(DType::F64)?,
        None => Tensor::zeros(channels, DType::F64, conv.weight.device())?,
    };
    let (weight, bias) = match &conv.batch_norm {
        None => (conv.weight.clone(), bias),
        Some(norm) => {
            let [gamma, beta, mean, variance] =
                [&norm.weight, &norm.bias, &norm.mean, &norm.variance]
                    .map(|tensor| tensor.to_dtype(DType::F64));
            let factor = (gamma? / (variance? + norm.epsilon)?.sqrt()?)?;
            let weight = conv
                .weight
                .to_dtype(DType::F64)?
                .broadcast_mul(&factor.reshape((channels, 1, 1, 1))?)?;
            (weight, (beta? + ((bias - mean?)? * factor)?)?)
        }
    };
    Ok(Conv {
        weight: weight.to_dtype(DType::F32)?,
        bias: Some(bias.to_dtype(DType::F32)?),
        batch_norm: None,
        ..conv.clone()
    })
}
