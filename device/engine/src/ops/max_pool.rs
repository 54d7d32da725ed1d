//! Largest byte of each window.

use graft_kernels::{Invalid, Isa, MaxPool, Window};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output, one};

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

impl Operator for BytesMaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [height, width] = self.window(inputs)?.output();
        Ok(Output::Image([height, width, one(inputs)?[2]]))
    }

    fn kernel(&self, inputs: &[Image]) -> TractResult<Box<dyn Kernel>> {
        Ok(Box::new(MaxPool::new(self.window(inputs)?)))
    }
}

impl Kernel for MaxPool {
    fn image(&self, isa: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        self.run(isa, one(inputs)?, output)
    }
}
