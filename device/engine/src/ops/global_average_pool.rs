//! Mean of each channel.

use graft_kernels::{GlobalAveragePool, Invalid, Isa};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output, one};

/// A quantized global average pool; both pairs are scale and zero point.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) input: (f32, u8),
    pub(crate) output: (f32, u8),
}

impl Operator for Pool {
    fn name(&self) -> &'static str {
        "GlobalAveragePool"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [_, _, channels] = one(inputs)?;
        Ok(Output::Image([1, 1, channels]))
    }

    fn kernel(&self, inputs: &[Image]) -> TractResult<Box<dyn Kernel>> {
        let [height, width, channels] = one(inputs)?;
        let positions = height
            .checked_mul(width)
            .context("a pool over too many positions")?;
        Ok(Box::new(GlobalAveragePool::new(
            positions,
            channels,
            self.input,
            self.output,
        )?))
    }
}

impl Kernel for GlobalAveragePool {
    fn image(&self, isa: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        self.run(isa, one(inputs)?, output)
    }
}
