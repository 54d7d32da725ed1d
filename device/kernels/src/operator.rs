//! What all operators have in common: the lengths of their slices, the parts they can be split into, and running them.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::{Invalid, SLACK, ensure};

/// An operator as one instruction set computes it. The slices that it is run on have been checked.
pub(crate) trait Kernel<Element = u8>: Debug + Send + Sync {
    /// Bytes of scratch that one run needs.
    fn scratch_len(&self) -> usize {
        0
    }

    /// Units that are best kept together when the operator is split.
    fn granule(&self) -> usize {
        1
    }

    /// Computes `units` of the operator into `output`, which is exactly their part of the output. Each input is whole
    /// and has [`SLACK`] more bytes; `scratch` has at least `scratch_len` bytes, of any alignment and content.
    fn run(
        &self,
        units: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [Element],
        scratch: &mut [u8],
    );
}

/// The lengths of an operator.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Bytes of each input.
    pub(crate) inputs: Vec<usize>,
    /// Elements of the output.
    pub(crate) output: usize,
    /// Elements of the output in one unit; the last unit may have fewer.
    pub(crate) unit: usize,
    /// Multiply-adds of one run.
    pub(crate) macs: u64,
}

/// A quantized operator, ready to run: made by [`Operator::conv`] and its siblings. `Element` is what it outputs: bytes,
/// or `f32` for the logits of [`Operator::linear`].
#[derive(Debug)]
pub struct Operator<Element = u8> {
    shape: Shape,
    kernel: Arc<dyn Kernel<Element>>,
}

/// Shares the weights.
impl<Element> Clone for Operator<Element> {
    fn clone(&self) -> Self {
        Operator {
            shape: self.shape.clone(),
            kernel: Arc::clone(&self.kernel),
        }
    }
}

impl<Element> Operator<Element> {
    pub(crate) fn new(shape: Shape, kernel: Box<dyn Kernel<Element>>) -> Self {
        Operator {
            shape,
            kernel: kernel.into(),
        }
    }

    /// Bytes of each input, without its slack.
    pub fn input_lens(&self) -> &[usize] {
        &self.shape.inputs
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.shape.output
    }

    /// Bytes of scratch that a run, or a part of one, needs.
    pub fn scratch_len(&self) -> usize {
        self.kernel.scratch_len()
    }

    /// Multiply-adds of one run.
    pub fn macs(&self) -> u64 {
        self.shape.macs
    }

    /// Smallest pieces that the operator can be split into: output positions of a convolution, output rows of a
    /// depthwise convolution or pool, groups of logits of a linear layer, bytes or positions of the others.
    pub fn units(&self) -> usize {
        self.shape.output.div_ceil(self.shape.unit)
    }

    /// The elements of the output that `units` make.
    pub fn output_range(&self, units: Range<usize>) -> Range<usize> {
        let end = |unit: usize| unit.saturating_mul(self.shape.unit).min(self.shape.output);
        end(units.start)..end(units.end)
    }

    /// All units in at most `parts` ranges of about the same work, none of them empty.
    pub fn split(&self, parts: usize) -> Vec<Range<usize>> {
        let units = self.units();
        let granule = self.kernel.granule();
        let granules = units.div_ceil(granule);
        let parts = parts.clamp(1, granules.max(1));
        (0..parts)
            .map(|part| {
                let end = |part: usize| (granules * part / parts * granule).min(units);
                end(part)..end(part + 1)
            })
            .collect()
    }

    /// Runs the whole operator. Each input is followed by [`SLACK`] bytes of any content.
    ///
    /// # Errors
    /// Another number of inputs, a slice of another length, too little scratch.
    pub fn run(
        &self,
        inputs: &[&[u8]],
        output: &mut [Element],
        scratch: &mut [u8],
    ) -> Result<(), Invalid> {
        self.run_part(0..self.units(), inputs, output, scratch)
    }

    /// Runs `units` of the operator: `output` is [`Operator::output_range`] of the whole output, `inputs` are whole.
    ///
    /// # Errors
    /// As for [`Operator::run`], and units that the operator does not have.
    pub fn run_part(
        &self,
        units: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [Element],
        scratch: &mut [u8],
    ) -> Result<(), Invalid> {
        ensure(
            units.start <= units.end && units.end <= self.units(),
            "the operator does not have these units",
        )?;
        ensure(
            inputs.len() == self.shape.inputs.len(),
            "the operator takes another number of inputs",
        )?;
        ensure(
            inputs
                .iter()
                .zip(&self.shape.inputs)
                .all(|(input, len)| input.len() >= len + SLACK),
            "an input is shorter than the operator's, with its slack",
        )?;
        ensure(
            output.len() == self.output_range(units.clone()).len(),
            "the output has another length than the operator's",
        )?;
        ensure(
            scratch.len() >= self.scratch_len(),
            "there is less scratch than the operator needs",
        )?;
        if !units.is_empty() {
            self.kernel.run(units, inputs, output, scratch);
        }
        Ok(())
    }
}
