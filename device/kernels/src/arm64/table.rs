//! Lookup of bytes in one table, or in three: those of the channels of a picture.

use std::arch::aarch64::*;
use std::ops::Range;

use super::vector::LANES;
use crate::operator::Kernel;
use crate::operators::Table;

/// Pixels that stay in the first-level cache while each channel is looked up.
const PIXELS: usize = 4096;

#[derive(Debug)]
pub(super) struct NeonTable(pub(super) Table);

impl Kernel for NeonTable {
    fn run(&self, positions: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let input = &inputs[0][positions.start * self.0.channels..][..output.len()];
        // SAFETY: every 64-bit ARM processor has the instructions.
        unsafe {
            match &self.0.rows[..] {
                [row] => look_up_all(row, std::iter::once((input, output))),
                [r, g, b] => three([r, g, b], input, output),
                rows => plain(rows, input, output),
            }
        }
    }
}

fn plain(rows: &[[u8; 256]], input: &[u8], output: &mut [u8]) {
    for ((y, x), row) in output.iter_mut().zip(input).zip(rows.iter().cycle()) {
        *y = row[usize::from(*x)];
    }
}

/// A table in registers.
type Registers = [uint8x16x4_t; 4];

#[inline]
#[target_feature(enable = "neon")]
fn registers(row: &[u8; 256]) -> Registers {
    // SAFETY: each quarter of the table has 64 bytes.
    let quarter = |i: usize| unsafe { vld1q_u8_x4(row[i * 64..].as_ptr()) };
    [quarter(0), quarter(1), quarter(2), quarter(3)]
}

/// An index beyond a quarter of the table gives 0, or leaves what was found before.
#[inline]
#[target_feature(enable = "neon")]
fn look_up(table: &Registers, bytes: uint8x16_t) -> uint8x16_t {
    let quarter = vdupq_n_u8(64);
    let found = vqtbl4q_u8(table[0], bytes);
    let bytes = vsubq_u8(bytes, quarter);
    let found = vqtbx4q_u8(found, table[1], bytes);
    let bytes = vsubq_u8(bytes, quarter);
    let found = vqtbx4q_u8(found, table[2], bytes);
    vqtbx4q_u8(found, table[3], vsubq_u8(bytes, quarter))
}

/// Looks the bytes of each input up, to the output of the same length beside it.
#[target_feature(enable = "neon")]
pub(super) fn look_up_all<'a>(
    row: &[u8; 256],
    rows: impl Iterator<Item = (&'a [u8], &'a mut [u8])>,
) {
    let table = registers(row);
    for (input, output) in rows {
        let mut inputs = input.chunks_exact(LANES);
        let mut outputs = output.chunks_exact_mut(LANES);
        for (input, output) in (&mut inputs).zip(&mut outputs) {
            // SAFETY: each chunk has a vector.
            unsafe {
                let found = look_up(&table, vld1q_u8(input.as_ptr()));
                vst1q_u8(output.as_mut_ptr(), found);
            }
        }
        let rest = inputs.remainder().iter();
        for (x, y) in rest.zip(outputs.into_remainder()) {
            *y = row[usize::from(*x)];
        }
    }
}

#[target_feature(enable = "neon")]
fn three(rows: [&[u8; 256]; 3], input: &[u8], output: &mut [u8]) {
    for (input, output) in input.chunks(PIXELS * 3).zip(output.chunks_mut(PIXELS * 3)) {
        output.copy_from_slice(input);
        for (channel, row) in rows.iter().enumerate() {
            let table = registers(row);
            let mut pixels = output.chunks_exact_mut(LANES * 3);
            for pixels in &mut pixels {
                // SAFETY: each chunk has 16 pixels.
                unsafe {
                    let mut bytes = vld3q_u8(pixels.as_ptr());
                    match channel {
                        0 => bytes.0 = look_up(&table, bytes.0),
                        1 => bytes.1 = look_up(&table, bytes.1),
                        _ => bytes.2 = look_up(&table, bytes.2),
                    }
                    vst3q_u8(pixels.as_mut_ptr(), bytes);
                }
            }
            for byte in pixels.into_remainder().iter_mut().skip(channel).step_by(3) {
                *byte = row[usize::from(*byte)];
            }
        }
    }
}
