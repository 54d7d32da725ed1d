//! The product of two activations: of one shape, or of an image and one value per channel.

use graft_kernels::{Isa, Operator, Quantization};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized};

/// A quantized product.
#[derive(Debug)]
pub(crate) struct Multiply {
    pub(crate) a: Quantization,
    pub(crate) b: Quantization,
    pub(crate) output: Quantization,
}

impl Quantized for Multiply {
    fn name(&self) -> &'static str {
        "Mul"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match inputs {
            [a, b] if a == b || *b == [1, 1, a[2]] => Ok(Output::Image(*a)),
            _ => bail!("a quantized product of {inputs:?}"),
        }
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let [height, width, channels] = match self.output(inputs)? {
            Output::Image(image) => image,
            other => bail!("a product of {other:?}"),
        };
        let (a, b, output) = (self.a, self.b, self.output);
        Ok(Kernel::Image(if inputs.first() == inputs.last() {
            Operator::multiply(isa, height * width * channels, a, b, output)?
        } else {
            Operator::multiply_channels(isa, height * width, channels, a, b, output)?
        }))
    }
}
