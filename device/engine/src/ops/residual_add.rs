//! Residual add of two activations.

use graft_kernels::{Add, Invalid, Isa};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output};

/// A quantized residual add; all pairs are scale and zero point.
#[derive(Debug)]
pub(crate) struct ResidualAdd {
    pub(crate) a: (f32, u8),
    pub(crate) b: (f32, u8),
    pub(crate) output: (f32, u8),
}

impl Operator for ResidualAdd {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match inputs {
            [a, b] if a == b => Ok(Output::Image(*a)),
            _ => bail!("a quantized residual add takes two inputs of one shape, not {inputs:?}"),
        }
    }

    fn kernel(&self, _: &[Image]) -> TractResult<Box<dyn Kernel>> {
        Ok(Box::new(Add::new(self.a, self.b, self.output)?))
    }
}

impl Kernel for Add {
    fn image(&self, isa: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        match inputs {
            [a, b] => self.run(isa, a, b, output),
            _ => Err(Invalid("a residual add takes two inputs")),
        }
    }
}
