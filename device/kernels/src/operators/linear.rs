//! The fully connected head, from bytes to f32 logits.

use super::{elements, per_channel, sums};
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, ensure};

/// A linear layer whose result is not requantized.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    /// Output x input.
    pub(crate) weights: Vec<i8>,
    /// Bias minus what the zero point of the input adds.
    pub(crate) bias: Vec<i32>,
    /// One per output.
    pub(crate) scales: Vec<f32>,
}

impl Linear {
    /// Logits in one unit.
    pub(crate) const UNIT: usize = 16;
}

impl Operator<f32> {
    /// `logits[c] = f32(bias[c] + sum((x - zero_point) * w[c])) * scales[c]`. `weights` is inputs x outputs, as
    /// MatMulInteger has them; `bias` is one per output, or empty; `scales` is one per output, or one for all.
    /// Units: groups of 16 logits.
    ///
    /// # Errors
    /// Lengths that do not match, scales that are not finite, sums that may leave an i32.
    pub fn linear(
        isa: Isa,
        inputs: usize,
        weights: &[i8],
        bias: &[i32],
        input_zero_point: u8,
        scales: &[f32],
    ) -> Result<Operator<f32>, Invalid> {
        ensure(
            inputs > 0 && !weights.is_empty(),
            "a linear layer has no weights",
        )?;
        ensure(
            weights.len().is_multiple_of(inputs),
            "the weights are no multiple of the inputs",
        )?;
        let outputs = elements(&[weights.len()])? / inputs;
        ensure(
            bias.is_empty() || bias.len() == outputs,
            "the bias has another length than the outputs",
        )?;
        ensure(
            scales.iter().all(|s| s.is_finite()),
            "a scale is not finite",
        )?;
        let scales = per_channel(scales, outputs)?;
        let mut rows = Vec::with_capacity(weights.len());
        let mut folded = Vec::with_capacity(outputs);
        for c in 0..outputs {
            rows.extend(weights[c..].iter().step_by(outputs));
            let bias = bias.get(c).copied().unwrap_or(0);
            folded.push(sums(&rows[c * inputs..], bias, input_zero_point)?.folded_bias);
        }
        let linear = Linear {
            inputs,
            weights: rows,
            bias: folded,
            scales,
        };
        let shape = Shape {
            inputs: vec![inputs],
            output: outputs,
            unit: Linear::UNIT,
            macs: weights.len() as u64,
        };
        Ok(Operator::new(shape, isa.kernels().linear(linear)))
    }
}
