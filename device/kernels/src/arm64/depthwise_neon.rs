//! Depthwise convolution of Armv8.0: bytes are widened to 16 bits once, and `smlal` adds products to sums of 32 bits.
//!
//! The layout is row x column x 8 channels, each of 16 bits.

use std::arch::aarch64::*;

use super::depthwise::{self, HALF, Row, Seen, Taps, for_each};
use super::vector::LANES;
use crate::arm::taps;
use crate::operators::Depthwise;
use crate::packed::{Packed, padded};

#[derive(Debug)]
pub(super) struct Words;

impl Taps for Words {
    fn rows(_: usize, _: usize) -> usize {
        4
    }

    fn seen(kernel: usize, stride: usize, rows: usize) -> usize {
        (rows - 1) * stride + kernel
    }

    fn next_row(_: usize, stride: usize, line: usize) -> [usize; 2] {
        [stride * line, 0]
    }

    fn column_len(rows: usize) -> usize {
        rows * HALF * size_of::<u16>()
    }

    fn step(_: usize) -> usize {
        Words::column_len(1)
    }

    fn weights_len(kernel: usize, _: usize) -> usize {
        kernel * kernel * HALF * size_of::<i16>()
    }

    /// Half x tap x channel, each of 16 bits.
    fn pack(depthwise: &Depthwise) -> [Packed; 2] {
        let bias = padded(&depthwise.bias, LANES);
        [taps::pack(depthwise, HALF), Packed::integers(&bias)]
    }

    #[target_feature(enable = "neon")]
    unsafe fn lay_out<const KERNEL: usize>(seen: &Seen, layout: *mut u8) {
        let half = Words::column_len(seen.rows().len()) * seen.columns;
        let after = seen.columns - seen.before - seen.width;
        let zero_point = vdupq_n_u16(u16::from(seen.zero_point));
        let mut low = layout.cast::<u16>();
        // SAFETY: the caller vouches for rows and layout.
        unsafe {
            let mut high = layout.add(half).cast::<u16>();
            for row in seen.rows() {
                for _ in 0..seen.before {
                    vst1q_u16(low, zero_point);
                    vst1q_u16(high, zero_point);
                    (low, high) = (low.add(HALF), high.add(HALF));
                }
                let mut bytes = *row;
                for _ in 0..seen.width {
                    let channels = vld1q_u8(bytes);
                    vst1q_u16(low, vmovl_u8(vget_low_u8(channels)));
                    vst1q_u16(high, vmovl_high_u8(channels));
                    bytes = bytes.add(seen.step);
                    (low, high) = (low.add(HALF), high.add(HALF));
                }
                for _ in 0..after {
                    vst1q_u16(low, zero_point);
                    vst1q_u16(high, zero_point);
                    (low, high) = (low.add(HALF), high.add(HALF));
                }
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn run<const KERNEL: usize, const STRIDE: usize>(layout: *const u8, row: &Row) {
        // SAFETY: as for the caller.
        unsafe { depthwise::run::<Self, KERNEL, STRIDE>(layout, row) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sums<const KERNEL: usize, const STRIDE: usize, const COUNT: usize>(
        columns: *const u8,
        row: &Row,
    ) -> [[int32x4_t; 2]; COUNT] {
        let mut columns = columns.cast::<i16>();
        let mut weights = row.weights.cast::<i16>();
        // SAFETY: the caller vouches for the columns; there are biases of 8 channels, and weights for each tap.
        unsafe {
            let mut sums = [[vld1q_s32(row.bias), vld1q_s32(row.bias.add(4))]; COUNT];
            for _ in 0..KERNEL {
                for_each!(COLUMN in 0 1 2 3 4 5 6 7 8 9 10 {
                    if COLUMN < (COUNT - 1) * STRIDE + KERNEL {
                        let bytes = vld1q_s16(columns.add(COLUMN * HALF));
                        for_each!(OUTPUT in 0 1 2 3 {
                            let tap = COLUMN.wrapping_sub(OUTPUT * STRIDE);
                            if tap < KERNEL && OUTPUT < COUNT {
                                let weights = vld1q_s16(weights.add(tap * HALF));
                                let sums = &mut sums[OUTPUT];
                                sums[0] = vmlal_s16(sums[0], vget_low_s16(weights), vget_low_s16(bytes));
                                sums[1] = vmlal_high_s16(sums[1], weights, bytes);
                            }
                        });
                    }
                });
                weights = weights.add(KERNEL * HALF);
                columns = columns.byte_add(row.line);
            }
            sums
        }
    }
}
