//! Depthwise convolution with `sdot`: the bytes of four rows are interleaved, channel by channel, so that one instruction
//! multiplies a column of four taps of four channels.
//!
//! The layout is column x group of four rows x 8 channels x row. A kernel of 3 sees one group, one of 5 sees two. Where
//! that is more rows than it has, the rows below the first output are computed from the same layout, with weights that
//! have moved down; rows beyond the kernel have weights of 0.

use std::arch::aarch64::*;

use super::depthwise::{self, HALF, Row, Seen, Taps, for_each};
use super::matrix_dot::dot;
use super::vector::{FLIP, LANES, load_signed};
use crate::operators::Depthwise;
use crate::packed::{Packed, padded};

/// Rows of a group.
const GROUP: usize = 4;

/// Bytes of a group of 8 channels.
const GROUP_LEN: usize = HALF * GROUP;

#[derive(Debug)]
pub(super) struct Groups;

impl Taps for Groups {
    fn rows(kernel: usize, stride: usize) -> usize {
        (kernel.next_multiple_of(GROUP) - kernel) / stride + 1
    }

    fn seen(kernel: usize, _: usize, _: usize) -> usize {
        kernel.next_multiple_of(GROUP)
    }

    fn next_row(kernel: usize, _: usize, _: usize) -> [usize; 2] {
        [0, kernel * Groups::column_len(kernel)]
    }

    fn column_len(rows: usize) -> usize {
        rows.div_ceil(GROUP) * GROUP_LEN
    }

    fn step(kernel: usize) -> usize {
        Groups::column_len(kernel)
    }

    fn weights_len(kernel: usize, stride: usize) -> usize {
        Groups::rows(kernel, stride) * kernel * Groups::column_len(kernel)
    }

    /// Half x output row x kernel column x group x channel x row.
    fn pack(depthwise: &Depthwise) -> [Packed; 2] {
        let [height, width] = depthwise.window.kernel;
        let stride = depthwise.window.stride[0];
        let channels = depthwise.window.channels;
        let weight = |dy: Option<usize>, dx: usize, channel: usize| match dy {
            Some(dy) if dy < height && channel < channels => {
                depthwise.weights[(dy * width + dx) * channels + channel]
            }
            _ => 0,
        };
        let mut weights = vec![];
        for first in (0..channels).step_by(HALF) {
            for above in (0..Groups::rows(height, stride)).map(|row| row * stride) {
                for dx in 0..width {
                    for group in (0..height).step_by(GROUP) {
                        for channel in first..first + HALF {
                            let rows = group..group + GROUP;
                            weights.extend(rows.map(|y| weight(y.checked_sub(above), dx, channel)));
                        }
                    }
                }
            }
        }
        let bias: Vec<i32> = (depthwise.bias.iter().enumerate())
            .map(|(c, bias)| {
                let taps = depthwise.weights[c..].iter().step_by(channels);
                taps.fold(*bias, |sum, w| sum.wrapping_add(128 * i32::from(*w)))
            })
            .collect();
        let bias = padded(&bias, LANES);
        [Packed::bytes(&weights), Packed::integers(&bias)]
    }

    #[target_feature(enable = "neon")]
    unsafe fn lay_out<const KERNEL: usize>(seen: &Seen, layout: *mut u8) {
        let column_len = Groups::column_len(KERNEL);
        let zero_point = vdupq_n_s8((seen.zero_point ^ FLIP) as i8);
        let mut low = layout.cast::<i8>();
        // SAFETY: the caller vouches for rows and layout.
        unsafe {
            let mut high = low.add(seen.columns * column_len);
            for rows in seen.rows().chunks_exact(GROUP) {
                let [a, b, c, d] = [rows[0], rows[1], rows[2], rows[3]];
                let (mut to_low, mut to_high) = (low, high);
                for _ in 0..seen.before {
                    store_group([zero_point; GROUP], to_low, to_high);
                    (to_low, to_high) = (to_low.add(column_len), to_high.add(column_len));
                }
                let mut at = 0;
                for _ in 0..seen.width {
                    let (a, b) = (load_signed(a, at), load_signed(b, at));
                    let (c, d) = (load_signed(c, at), load_signed(d, at));
                    store_group([a, b, c, d], to_low, to_high);
                    at = at.wrapping_add(seen.step);
                    (to_low, to_high) = (to_low.add(column_len), to_high.add(column_len));
                }
                for _ in seen.before + seen.width..seen.columns {
                    store_group([zero_point; GROUP], to_low, to_high);
                    (to_low, to_high) = (to_low.add(column_len), to_high.add(column_len));
                }
                (low, high) = (low.add(GROUP_LEN), high.add(GROUP_LEN));
            }
        }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn run<const KERNEL: usize, const STRIDE: usize>(layout: *const u8, row: &Row) {
        // SAFETY: as for the caller.
        unsafe { depthwise::run::<Self, KERNEL, STRIDE>(layout, row) }
    }

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sums<const KERNEL: usize, const STRIDE: usize, const COUNT: usize>(
        columns: *const u8,
        row: &Row,
    ) -> [[int32x4_t; 2]; COUNT] {
        let column_len = Groups::column_len(KERNEL);
        let columns = columns.cast::<i8>();
        // SAFETY: the caller vouches for the columns; there are biases of 8 channels, and weights for each group.
        unsafe {
            let mut sums = [[vld1q_s32(row.bias), vld1q_s32(row.bias.add(4))]; COUNT];
            for_each!(COLUMN in 0 1 2 3 4 5 6 7 8 9 10 {
                for_each!(GROUP in 0 1 {
                    let groups = column_len / GROUP_LEN;
                    if COLUMN < (COUNT - 1) * STRIDE + KERNEL && GROUP < groups {
                        let bytes = columns.add((COLUMN * groups + GROUP) * GROUP_LEN);
                        let bytes = [vld1q_s8(bytes), vld1q_s8(bytes.add(LANES))];
                        for_each!(OUTPUT in 0 1 2 3 {
                            let tap = COLUMN.wrapping_sub(OUTPUT * STRIDE);
                            if tap < KERNEL && OUTPUT < COUNT {
                                let group = tap * groups + GROUP;
                                let weights = row.weights.add(group * GROUP_LEN);
                                let sums = &mut sums[OUTPUT];
                                sums[0] = dot(sums[0], vld1q_s8(weights), bytes[0]);
                                sums[1] = dot(sums[1], vld1q_s8(weights.add(LANES)), bytes[1]);
                            }
                        });
                    }
                });
            });
            sums
        }
    }
}

/// Interleaves a column of 16 channels, and stores it in two halves.
///
/// # Safety
/// Each half has a group.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_group(rows: [int8x16_t; GROUP], low: *mut i8, high: *mut i8) {
    let words = |bytes| vreinterpretq_s16_s8(bytes);
    let bytes = |words| vreinterpretq_s8_s16(words);
    let (a, b) = (
        words(vzip1q_s8(rows[0], rows[1])),
        words(vzip1q_s8(rows[2], rows[3])),
    );
    let (c, d) = (
        words(vzip2q_s8(rows[0], rows[1])),
        words(vzip2q_s8(rows[2], rows[3])),
    );
    // SAFETY: the caller vouches for the groups.
    unsafe {
        vst1q_s8(low, bytes(vzip1q_s16(a, b)));
        vst1q_s8(low.add(LANES), bytes(vzip2q_s16(a, b)));
        vst1q_s8(high, bytes(vzip1q_s16(c, d)));
        vst1q_s8(high.add(LANES), bytes(vzip2q_s16(c, d)));
    }
}
