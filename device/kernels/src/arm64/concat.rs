//! Concatenation: each input in turn, copied or looked up.

use std::ops::Range;

use super::table::look_up_all;
use crate::operator::Kernel;
use crate::operators::Concat;

#[derive(Debug)]
pub(super) struct NeonConcat(pub(super) Concat);

impl Kernel for NeonConcat {
    fn run(&self, positions: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let mut first = 0;
        for (part, input) in self.0.parts.iter().zip(inputs) {
            let input = &input[positions.start * part.channels..];
            let rows = input.chunks_exact(part.channels);
            let outputs = output.chunks_exact_mut(self.0.channels);
            let outputs = outputs.map(|output| &mut output[first..first + part.channels]);
            let rows = rows.zip(outputs);
            match &part.table {
                // SAFETY: every 64-bit ARM processor has the instructions.
                Some(table) => unsafe { look_up_all(table, rows) },
                None => rows.for_each(|(input, output)| output.copy_from_slice(input)),
            }
            first += part.channels;
        }
    }
}
