//! Activations side by side, channel after channel.

use graft_kernels::{ConcatInput, Isa, Operator, Quantization};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized};

/// A quantized concatenation of channels.
#[derive(Debug)]
pub(crate) struct Concat {
    /// One per input.
    pub(crate) inputs: Vec<Quantization>,
    pub(crate) output: Quantization,
}

impl Quantized for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let Some([height, width, _]) = inputs.first().copied() else {
            bail!("a concatenation has no inputs");
        };
        if inputs.len() != self.inputs.len()
            || inputs.iter().any(|[h, w, _]| (*h, *w) != (height, width))
        {
            bail!("a concatenation of {inputs:?}");
        }
        let channels = inputs.iter().map(|[_, _, channels]| channels).sum();
        Ok(Output::Image([height, width, channels]))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let positions = inputs
            .first()
            .map_or(0, |[height, width, _]| height * width);
        let joined: Vec<ConcatInput> = inputs
            .iter()
            .zip(&self.inputs)
            .map(|([_, _, channels], quantization)| ConcatInput {
                channels: *channels,
                quantization: *quantization,
            })
            .collect();
        let operator = Operator::concat(isa, positions, &joined, self.output)?;
        Ok(Kernel::Image(operator))
    }
}
