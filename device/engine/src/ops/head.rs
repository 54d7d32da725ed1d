//! The fully connected head, from bytes to f32 logits.

use graft_kernels::{Isa, Operator};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};
use crate::onnx::Weights;

/// A quantized linear layer whose result stays f32.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Inputs x outputs.
    pub(crate) weights: Weights,
    pub(crate) input_zero_point: u8,
    /// Empty for none.
    pub(crate) bias: Vec<i32>,
    pub(crate) scales: Vec<f32>,
}

impl Quantized for Head {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match one(inputs)? {
            [1, 1, channels] if channels == self.inputs => Ok(Output::Logits(self.outputs)),
            other => bail!(
                "a linear layer of {} inputs on an activation of {other:?}",
                self.inputs
            ),
        }
    }

    fn kernel(&self, isa: Isa, _: &[Image]) -> TractResult<Kernel> {
        Ok(Kernel::Logits(Operator::linear(
            isa,
            self.inputs,
            &self.weights,
            &self.bias,
            self.input_zero_point,
            &self.scales,
        )?))
    }
}
