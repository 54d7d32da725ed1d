//! Matrix product with `sdot`, which adds four products of bytes to each of four sums (Armv8.2 FEAT_DotProd).
//!
//! A tile is 6 rows x 16 channels: 24 vectors of sums, one vector of 16 bytes for each row, two of weights. Weights are
//! stored panel of 16 channels x chunk of 16 bytes x group of 4 bytes x vector of 4 channels.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::matrix::{self, Requantized, Weights};
use super::rows::Rows;
use super::vector::{LANES, requantize, store_first, zero_point};
use crate::groups::{self, Row};
use crate::memory::AlignedBytes;
use crate::packed::Packed;

/// Bytes of a row that are multiplied by one instruction.
const GROUP: usize = 4;

#[derive(Debug)]
pub(super) struct DotWeights {
    packed: Packed,
    channels: usize,
    /// Groups of each row.
    groups: usize,
}

impl DotWeights {
    /// Vectors of the panel that starts at channel `first`: 4, or 2 where they suffice.
    fn vectors(&self, first: usize) -> usize {
        if self.channels - first > 8 { 4 } else { 2 }
    }

    /// Of the panel that starts at channel `first`.
    fn weights(&self, first: usize) -> *const i8 {
        self.packed.at(first * self.groups * GROUP)
    }
}

impl Weights for DotWeights {
    const ROWS: usize = 6;

    fn pack(weights: &[i8], depth: usize) -> Self {
        let channels = weights.len() / depth;
        let groups = depth.div_ceil(GROUP);
        let weights = groups::whole::<GROUP>(weights, depth);
        let (taps, _) = weights.as_chunks::<GROUP>();
        let all: Vec<usize> = (0..groups).collect();
        let mut packed = AlignedBytes::with_capacity(channels.next_multiple_of(8) * groups * GROUP);
        for panel in taps.chunks(groups * LANES) {
            let rows: Vec<Row<GROUP>> = panel.chunks_exact(groups).enumerate().collect();
            let lanes = if rows.len() > 8 { LANES } else { 8 };
            groups::pack(&rows, &all, lanes, &mut packed);
        }
        DotWeights {
            packed: packed.into(),
            channels,
            groups,
        }
    }

    unsafe fn gather(
        rows: &Rows,
        positions: Range<usize>,
        input: *const u8,
        scratch: *mut u8,
        block: *mut u8,
    ) {
        // SAFETY: as for the caller.
        unsafe { matrix::gather::<{ Self::ROWS }>(rows, positions, input, scratch, block) }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn requantized(&self, rows: *const i8, count: usize, to: &Requantized, output: *mut u8) {
        for first in (0..self.channels).step_by(LANES) {
            // SAFETY: as for the caller.
            unsafe {
                match self.vectors(first) {
                    4 => self.panel::<4>(first, rows, count, to, output.add(first)),
                    _ => self.panel::<2>(first, rows, count, to, output.add(first)),
                }
            }
        }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sums(&self, row: *const i8, first: usize, bias: &Packed) -> [i32; LANES] {
        let (weights, bias) = (self.weights(first), bias.at(first));
        let mut sums = [0; LANES];
        // SAFETY: as for the caller; bias and sums have 16 values.
        unsafe {
            if self.vectors(first) == 4 {
                let [vectors] = multiply::<1, 4>(row, self.groups, weights, bias);
                store_sums(&mut sums, vectors);
            } else {
                let [vectors] = multiply::<1, 2>(row, self.groups, weights, bias);
                store_sums(&mut sums, vectors);
            }
        }
        sums
    }
}

#[target_feature(enable = "neon")]
fn store_sums<const VECTORS: usize>(sums: &mut [i32; LANES], vectors: [int32x4_t; VECTORS]) {
    for (sums, vector) in sums.chunks_exact_mut(4).zip(vectors) {
        // SAFETY: a chunk has four sums.
        unsafe { vst1q_s32(sums.as_mut_ptr(), vector) };
    }
}

impl DotWeights {
    /// # Safety
    /// As for [`Weights::requantized`]; `output` is where the first channel of the first row belongs.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn panel<const VECTORS: usize>(
        &self,
        first: usize,
        mut rows: *const i8,
        count: usize,
        to: &Requantized,
        mut output: *mut u8,
    ) {
        let row_len = self.groups.next_multiple_of(LANES / GROUP) * GROUP;
        let tile_len = Self::ROWS * row_len;
        // SAFETY: bias and scales are padded to 16 channels; as many rows are left.
        unsafe {
            let tile = Tile {
                groups: self.groups,
                weights: self.weights(first),
                bias: to.bias.at(first),
                scales: to.scales.at(first),
                zero_point: zero_point(to.zero_point),
                count: (to.channels - first).min(VECTORS * 4),
                stride: to.channels,
            };
            let mut left = count;
            while left >= Self::ROWS {
                output = tile.run::<{ Self::ROWS }, VECTORS>(rows, output);
                rows = rows.add(tile_len);
                left -= Self::ROWS;
            }
            for _ in 0..left {
                output = tile.run::<1, VECTORS>(rows, output);
                rows = rows.add(row_len);
            }
        }
    }
}

/// What rows of bytes are multiplied by.
struct Tile {
    groups: usize,
    weights: *const i8,
    bias: *const i32,
    scales: *const f32,
    zero_point: int16x8_t,
    /// Channels of the panel.
    count: usize,
    /// Channels of the output.
    stride: usize,
}

impl Tile {
    /// Multiplies `ROWS` rows; returns where the output of the next row belongs.
    ///
    /// # Safety
    /// As for [`multiply`]; there is an output for each row.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn run<const ROWS: usize, const VECTORS: usize>(
        &self,
        rows: *const i8,
        mut output: *mut u8,
    ) -> *mut u8 {
        // SAFETY: as for the caller; bias and scales are padded to 16 channels.
        unsafe {
            let sums = multiply::<ROWS, VECTORS>(rows, self.groups, self.weights, self.bias);
            let scale = |i: usize| vld1q_f32(self.scales.add(i * 4));
            let scales = [scale(0), scale(1), scale(2), scale(3)];
            for sums in sums {
                let zero = vdupq_n_s32(0);
                let sums = if VECTORS == 4 {
                    [sums[0], sums[1], sums[2], sums[3]]
                } else {
                    [sums[0], sums[1], zero, zero]
                };
                let bytes = requantize(sums, scales, self.zero_point);
                if self.count < VECTORS * 4 {
                    store_first(output, bytes, self.count);
                } else if VECTORS == 4 {
                    vst1q_u8(output, bytes);
                } else {
                    vst1_u8(output, vget_low_u8(bytes));
                }
                output = output.add(self.stride);
            }
        }
        output
    }
}

/// The sums of `ROWS` rows and `VECTORS` x 4 channels.
///
/// # Safety
/// `rows` is a tile of `ROWS` rows of `groups` x 4 bytes, `weights` a panel for as many, `bias` has a value for each channel.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply<const ROWS: usize, const VECTORS: usize>(
    mut rows: *const i8,
    groups: usize,
    mut weights: *const i8,
    bias: *const i32,
) -> [[int32x4_t; VECTORS]; ROWS] {
    let mut sums = [[vdupq_n_s32(0); VECTORS]; ROWS];
    let mut chunk = [vdupq_n_s8(0); ROWS];
    for sums in &mut sums {
        for (pair, sums) in sums.chunks_exact_mut(2).enumerate() {
            // SAFETY: there is a bias for each channel.
            [sums[0], sums[1]] = unsafe { load_pair(bias.add(pair * 8)) };
        }
    }
    macro_rules! load_chunk {
        () => {
            for (row, chunk) in chunk.iter_mut().enumerate() {
                // SAFETY: the tile has whole chunks of every row.
                *chunk = unsafe { vld1q_s8(rows.add(row * LANES)) };
            }
        };
    }
    macro_rules! multiply_group {
        ($group:literal) => {
            for vector in 0..VECTORS {
                // SAFETY: the panel has a vector for each group.
                let weights = unsafe { vld1q_s8(weights.add(($group * VECTORS + vector) * LANES)) };
                for row in 0..ROWS {
                    sums[row][vector] = dot_group::<$group>(sums[row][vector], weights, chunk[row]);
                }
            }
        };
    }
    for _ in 0..groups / 4 {
        load_chunk!();
        multiply_group!(0);
        multiply_group!(1);
        multiply_group!(2);
        multiply_group!(3);
        // SAFETY: both stay within, or end at the end of, the tile and the panel.
        unsafe {
            rows = rows.add(ROWS * LANES);
            weights = weights.add(4 * VECTORS * LANES);
        }
    }
    let left = groups % 4;
    if left > 0 {
        load_chunk!();
        multiply_group!(0);
        if left > 1 {
            multiply_group!(1);
        }
        if left > 2 {
            multiply_group!(2);
        }
    }
    sums
}

/// Adds to each sum the products of four weights and the four bytes of `group`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_group<const GROUP: i32>(
    mut sums: int32x4_t,
    weights: int8x16_t,
    bytes: int8x16_t,
) -> int32x4_t {
    // SAFETY: the instruction reads and writes registers only, and the processor has it.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) sums,
            in(vreg) weights,
            in(vreg) bytes,
            const GROUP,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds to each sum the products of four weights and four bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(mut sums: int32x4_t, weights: int8x16_t, bytes: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes registers only, and the processor has it.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums,
            in(vreg) weights,
            in(vreg) bytes,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Loads two vectors, each time anew: one load is cheaper than two copies from other registers.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_pair(from: *const i32) -> [int32x4_t; 2] {
    let (a, b);
    // SAFETY: the caller vouches for the vectors.
    unsafe {
        asm!(
            "ldp {0:q}, {1:q}, [{2}]",
            out(vreg) a,
            out(vreg) b,
            in(reg) from,
            options(readonly, nostack, preserves_flags)
        );
    }
    [a, b]
}
