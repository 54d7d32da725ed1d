//! The fully connected head, from bytes to f32 logits.

use graft_kernels::{Invalid, Isa, Linear};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output, one};

/// A quantized linear layer whose result stays f32.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Inputs x outputs.
    pub(crate) weights: Vec<i8>,
    pub(crate) input_zero_point: u8,
    /// Empty for none.
    pub(crate) bias: Vec<i32>,
    pub(crate) scales: Vec<f32>,
}

impl Operator for Head {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        match one(inputs)? {
            [1, 1, channels] if channels == self.inputs => Ok(Output::Logits(self.outputs)),
            other => bail!(
                "a linear layer of {} inputs on an activation of {other:?}",
                self.inputs
            ),
        }
    }

    fn kernel(&self, _: &[Image]) -> TractResult<Box<dyn Kernel>> {
        let linear = Linear::new(
            self.inputs,
            &self.weights,
            &self.bias,
            self.input_zero_point,
            &self.scales,
        )?;
        Ok(Box::new(linear))
    }
}

impl Kernel for Linear {
    fn macs(&self) -> u64 {
        self.macs()
    }

    fn logits(&self, isa: Isa, inputs: &[&[u8]], output: &mut [f32]) -> Result<(), Invalid> {
        self.run(isa, one(inputs)?, output)
    }
}
