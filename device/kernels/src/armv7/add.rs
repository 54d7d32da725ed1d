//! Residual add.

use std::ops::Range;

use super::assembly::{LIMITS, Sums, graft_armv7_sums};
use crate::operator::Kernel;
use crate::operators::Add;

/// Bytes that are added at once.
const BLOCK: usize = 8;

#[derive(Debug)]
pub(super) struct NeonAdd(pub(super) Add);

impl Kernel for NeonAdd {
    fn run(&self, bytes: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let (a, b) = (&inputs[0][bytes.start..], &inputs[1][bytes.start..]);
        let whole = output.len() / BLOCK * BLOCK;
        let (blocks, rest) = output.split_at_mut(whole);
        let mut last = [0; BLOCK];
        for (output, at) in [(blocks, 0), (&mut last[..], whole)] {
            if !output.is_empty() {
                let sums = Sums {
                    a: a[at..].as_ptr(),
                    b: b[at..].as_ptr(),
                    output: output.as_mut_ptr(),
                    blocks: output.len() / BLOCK,
                    ra: self.0.ra,
                    rb: self.0.rb,
                    fix: self.0.fix,
                    limits: &LIMITS,
                };
                // SAFETY: the processor has NEON; the inputs have slack for the last block.
                unsafe { graft_armv7_sums(&sums) };
            }
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
