//! A table of 256 bytes per channel: the normalisation of pixels.

use graft_kernels::{Invalid, Isa, Table};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Operator, Output, one};

/// Rows of a table: one for all channels, or one per channel.
#[derive(Debug)]
pub(crate) struct ByteTable {
    pub(crate) rows: Vec<[u8; 256]>,
}

impl Operator for ByteTable {
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

    fn kernel(&self, _: &[Image]) -> TractResult<Box<dyn Kernel>> {
        Ok(Box::new(Table::new(self.rows.clone())?))
    }
}

impl Kernel for Table {
    fn image(&self, _: Isa, inputs: &[&[u8]], output: &mut [u8]) -> Result<(), Invalid> {
        self.run(one(inputs)?, output)
    }
}
