//! Largest byte of each window.

use graft_kernels::{Invalid, Isa, Operator, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};

/// A max pool on bytes.
#[derive(Debug)]
pub(crate) struct BytesMaxPool {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) padding: [usize; 4],
}

impl BytesMaxPool {
    fn window(&self, inputs: &[Image]) -> Result<Window, Invalid> {
        Window::new(one(inputs)?, self.kernel, self.stride, self.padding)
    }
}

impl Quantized for BytesMaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [height, width] = self.window(inputs)?.output();
        Ok(Output::Image([height, width, one(inputs)?[2]]))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        Ok(Kernel::Image(Operator::max_pool(
            isa,
            self.window(inputs)?,
        )?))
    }
}
