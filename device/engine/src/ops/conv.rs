//! Convolution, dense or depthwise.

use graft_kernels::{Conv, ConvParameters, Depthwise, Invalid, Isa, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output, one};

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
    /// Scale and zero point.
    pub(crate) input: (f32, u8),
    /// Output x input / groups x height x width.
    pub(crate) weights: Vec<i8>,
    pub(crate) weight_scales: Vec<f32>,
    /// Empty for none.
    pub(crate) bias: Vec<i32>,
    /// Scale and zero point.
    pub(crate) output: (f32, u8),
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

impl Operator for Convolution {
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

    fn kernel(&self, inputs: &[Image]) -> TractResult<Box<dyn Kernel>> {
        let window = self.window(inputs)?;
        let parameters = ConvParameters {
            weights: &self.weights,
            bias: &self.bias,
            input_scale: self.input.0,
            input_zero_point: self.input.1,
            weight_scales: &self.weight_scales,
            output_scale: self.output.0,
            output_zero_point: self.output.1,
        };
        Ok(if self.depthwise {
            Box::new(Depthwise::new(window, parameters)?)
        } else {
            Box::new(Conv::new(window, self.channels, parameters)?)
        })
    }
}

impl Kernel for Conv {
    fn macs(&self) -> u64 {
        self.macs()
    }

    fn image(&self, isa: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        self.run(isa, one(inputs)?, output)
    }
}

impl Kernel for Depthwise {
    fn macs(&self) -> u64 {
        self.macs()
    }

    fn image(&self, isa: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        self.run(isa, one(inputs)?, output)
    }
}
