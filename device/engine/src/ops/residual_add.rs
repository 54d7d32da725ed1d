//! Residual add of two activations.

use graft_kernels::{Isa, Operator, Quantization};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized};

/// A quantized residual add.
#[derive(Debug)]
pub(crate) struct ResidualAdd {
    pub(crate) a: Quantization,
    pub(crate) b: Quantization,
    pub(crate) output: Quantization,
}

impl Quantized for ResidualAdd {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match inputs {
            [a, b] if a == b => Ok(Output::Image(*a)),
            _ => bail!("a quantized residual add takes two inputs of one shape, not {inputs:?}"),
        }
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let len = self.output(inputs)?.len();
        let operator = Operator::add(isa, len, self.a, self.b, self.output)?;
        Ok(Kernel::Image(operator))
    }
}
