//! Mean of each channel.

use graft_kernels::{Isa, Operator, Quantization};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};

/// A quantized global average pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) input: Quantization,
    pub(crate) output: Quantization,
}

impl Quantized for Pool {
    fn name(&self) -> &'static str {
        "GlobalAveragePool"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let [_, _, channels] = one(inputs)?;
        Ok(Output::Image([1, 1, channels]))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let operator = Operator::global_average_pool(isa, one(inputs)?, self.input, self.output)?;
        Ok(Kernel::Image(operator))
    }
}
