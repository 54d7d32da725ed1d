//! Mean of each window.

use graft_kernels::{Invalid, Isa, Operator, Padding, Quantization, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};

/// A quantized average pool.
#[derive(Debug)]
pub(crate) struct AveragePool {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) pads: [usize; 4],
    pub(crate) padding: Padding,
    pub(crate) input: Quantization,
    pub(crate) output: Quantization,
}

impl AveragePool {
    fn window(&self, inputs: &[Image]) -> Result<Window, Invalid> {
        Window::new(one(inputs)?, self.kernel, self.stride, self.pads)
    }
}

impl Quantized for AveragePool {
    fn name(&self) -> &'static str {
        "AveragePool"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [height, width] = self.window(inputs)?.output();
        Ok(Output::Image([height, width, one(inputs)?[2]]))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let window = self.window(inputs)?;
        let operator = Operator::average_pool(isa, window, self.padding, self.input, self.output)?;
        Ok(Kernel::Image(operator))
    }
}
