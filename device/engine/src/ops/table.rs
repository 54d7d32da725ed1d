//! A table of 256 bytes per channel: the normalisation of pixels.

use graft_kernels::{Isa, Operator};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};

/// Rows of a table: one for all channels, or one per channel.
#[derive(Debug)]
pub(crate) struct ByteTable {
    pub(crate) rows: Vec<[u8; 256]>,
}

impl Quantized for ByteTable {
    fn name(&self) -> &'static str {
        "Table"
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        let image = one(inputs)?;
        if self.rows.len() != 1 && self.rows.len() != image[2] {
            bail!(
                "{} normalisation constants for {} channels",
                self.rows.len(),
                image[2]
            );
        }
        Ok(Output::Image(image))
    }

    fn kernel(&self, isa: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let positions = self.output(inputs)?.len() / self.rows.len();
        let operator = Operator::table(isa, positions, &self.rows)?;
        Ok(Kernel::Image(operator))
    }
}
