//! A fully connected layer from bytes to bytes.

use graft_kernels::{ConvParameters, Isa, Operator, Quantization, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};
use crate::onnx::Weights;

/// A quantized fully connected layer: a convolution of one position.
#[derive(Debug)]
pub(crate) struct FullyConnected {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) input: Quantization,
    /// Outputs x inputs.
    pub(crate) weights: Weights,
    pub(crate) weight_scales: Vec<f32>,
    /// Empty for none.
    pub(crate) bias: Vec<i32>,
    pub(crate) output: Quantization,
}

impl Quantized for FullyConnected {
    fn name(&self) -> &'static str {
        "FullyConnected"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match one(inputs)? {
            [1, 1, channels] if channels == self.inputs => Ok(Output::Row(self.outputs)),
            other => bail!(
                "a fully connected layer of {} inputs on an activation of {other:?}",
                self.inputs
            ),
        }
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let window = Window::new(one(inputs)?, [1, 1], [1, 1], [0; 4])?;
        let parameters = ConvParameters {
            weights: &self.weights,
            bias: &self.bias,
            weight_scales: &self.weight_scales,
            input: self.input,
            output: self.output,
        };
        let operator = Operator::conv(isa, window, self.outputs, parameters)?;
        Ok(Kernel::Image(operator))
    }
}
