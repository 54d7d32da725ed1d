//! One table of 256 bytes for all channels, held in four registers: AVX-512 VBMI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::vector::Vector;
use crate::operator::Kernel;
use crate::operators;

#[derive(Debug)]
pub(super) struct Table {
    row: [u8; 256],
    channels: usize,
}

impl Table {
    /// None where channels have tables of their own, or the processor lacks VBMI.
    pub(super) fn new(table: &operators::Table) -> Option<Table> {
        let [row] = table.rows[..] else { return None };
        let channels = table.channels;
        let available =
            is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi");
        available.then_some(Table { row, channels })
    }
}

impl Kernel for Table {
    fn run(&self, positions: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let input = &inputs[0][positions.start * self.channels..];
        // SAFETY: `new` found the instruction set; the operator checked the lengths.
        unsafe { look_up(&self.row, input, output) }
    }
}

/// # Safety
/// Behind as many bytes as `output` has, `input` has its slack.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn look_up(row: &[u8; 256], input: &[u8], output: &mut [u8]) {
    // SAFETY: as for the caller: vectors overrun the input by less than its slack.
    unsafe {
        let table = [0, 64, 128, 192].map(|at| row.as_ptr().add(at));
        let table = [
            <__m512i as Vector>::load(table[0]),
            <__m512i as Vector>::load(table[1]),
            <__m512i as Vector>::load(table[2]),
            <__m512i as Vector>::load(table[3]),
        ];
        for at in (0..output.len()).step_by(64) {
            let x = <__m512i as Vector>::load(input.as_ptr().add(at));
            let low = _mm512_permutex2var_epi8(table[0], x, table[1]);
            let high = _mm512_permutex2var_epi8(table[2], x, table[3]);
            let y = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
            let count = (output.len() - at).min(64);
            <__m512i as Vector>::store_first(output.as_mut_ptr().add(at), y, count);
        }
    }
}
