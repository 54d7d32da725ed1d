//! Convolution, dense or depthwise.

use graft_kernels::{ConvParameters, Invalid, Isa, Operator, Quantization, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};
use crate::onnx::Weights;

/// A quantized convolution.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// One group per channel; one group otherwise.
    pub(crate) depthwise: bool,
    /// Output channels.
    pub(crate) channels: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) padding: [usize; 4],
    pub(crate) input: Quantization,
    /// Output x input / groups x height x width.
    pub(crate) weights: Weights,
    pub(crate) weight_scales: Vec<f32>,
    /// Empty for none.
    pub(crate) bias: Vec<i32>,
    pub(crate) output: Quantization,
}

impl Convolution {
    fn window(&self, inputs: &[Image]) -> Result<Window, Invalid> {
        let input = one(inputs)?;
        if self.depthwise && input[2] != self.channels {
            return Err(Invalid(
                "a depthwise convolution has another number of channels than its input",
            ));
        }
        Window::new(input, self.kernel, self.stride, self.padding)
    }
}

impl Quantized for Convolution {
    fn name(&self) -> &'static str {
        if self.depthwise {
            "DepthwiseConv"
        } else {
            "Conv"
        }
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [height, width] = self.window(inputs)?.output();
        Ok(Output::Image([height, width, self.channels]))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let window = self.window(inputs)?;
        let parameters = ConvParameters {
            weights: &self.weights,
            bias: &self.bias,
            weight_scales: &self.weight_scales,
            input: self.input,
            output: self.output,
        };
        Ok(Kernel::Image(if self.depthwise {
            Operator::depthwise(isa, window, parameters)?
        } else {
            Operator::conv(isa, window, self.channels, parameters)?
        }))
    }
}
