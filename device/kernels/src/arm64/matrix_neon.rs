//! Matrix product of Armv8.0, which has no dot product: `smull` and `smlal` multiply bytes to 16 bits, `sadalp` adds
//! pairs of these to sums of 32 bits.
//!
//! A tile is 4 rows x 4 channels. Each row and channel has its own vector of sums, whose lanes are added at the end.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::matrix::{self, Requantized, Weights};
use super::rows::Rows;
use super::vector::{LANES, lane_sums, requantize, store_first, zero_point};
use crate::arm::pairs::{CHANNELS, PairedWeights, Panel};
use crate::packed::Packed;

#[derive(Debug)]
pub(super) struct NeonWeights(PairedWeights);

impl Weights for NeonWeights {
    const ROWS: usize = 4;

    fn pack(weights: &[i8], depth: usize) -> Self {
        NeonWeights(PairedWeights::pack(weights, depth))
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

    #[target_feature(enable = "neon")]
    unsafe fn requantized(&self, rows: *const i8, count: usize, to: &Requantized, output: *mut u8) {
        for (panel, first) in self.0.panels.iter().zip((0..to.channels).step_by(CHANNELS)) {
            // SAFETY: as for the caller.
            unsafe { self.panel(panel, first, rows, count, to, output.add(first)) };
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn sums(&self, row: *const i8, first: usize, bias: &Packed) -> [i32; LANES] {
        let mut sums = [0; LANES];
        let panels = self.0.panels[first / CHANNELS..].iter();
        for ((sums, panel), i) in sums.chunks_exact_mut(CHANNELS).zip(panels).zip(0..) {
            // SAFETY: as for the caller; the bias is padded to 16 channels, the chunk has four sums.
            unsafe {
                let bias = vld1q_s32(bias.at(first + i * CHANNELS));
                let products = self.multiply_row(row, panel);
                vst1q_s32(sums.as_mut_ptr(), vaddq_s32(products, bias));
            }
        }
        sums
    }
}

/// Loads a chunk of four rows into v0 to v3, and the next one into v4 to v7.
macro_rules! load_chunks {
    () => {
        concat!(
            "ldr {chunk:w}, [{chunks}], #4\n",
            "add {chunk}, {rows}, {chunk}, lsl #6\n",
            "ldp q0, q1, [{chunk}]\n",
            "ldp q2, q3, [{chunk}, #32]\n",
        )
    };
}

/// Multiplies the lower and upper halves of v0 to v3 by those of `weights`, to four vectors of `products`.
macro_rules! multiply_chunk {
    ($weights:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "smull ",
            $a,
            ".8h, ",
            $weights,
            ".8b, v0.8b\n",
            "smull ",
            $b,
            ".8h, ",
            $weights,
            ".8b, v1.8b\n",
            "smull ",
            $c,
            ".8h, ",
            $weights,
            ".8b, v2.8b\n",
            "smull ",
            $d,
            ".8h, ",
            $weights,
            ".8b, v3.8b\n",
            "smlal2 ",
            $a,
            ".8h, ",
            $weights,
            ".16b, v0.16b\n",
            "smlal2 ",
            $b,
            ".8h, ",
            $weights,
            ".16b, v1.16b\n",
            "smlal2 ",
            $c,
            ".8h, ",
            $weights,
            ".16b, v2.16b\n",
            "smlal2 ",
            $d,
            ".8h, ",
            $weights,
            ".16b, v3.16b\n",
        )
    };
}

/// Adds pairs of v10 to v13 to four vectors of sums: `sadalp`, or makes them the sums: `saddlp`.
macro_rules! add_pairs {
    ($add:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            $add,
            " ",
            $a,
            ".4s, v10.8h\n",
            $add,
            " ",
            $b,
            ".4s, v11.8h\n",
            $add,
            " ",
            $c,
            ".4s, v12.8h\n",
            $add,
            " ",
            $d,
            ".4s, v13.8h\n",
        )
    };
}

/// Multiplies a pair of chunks by the weights of one channel.
macro_rules! multiply_pair_of_channel {
    ($add:literal, $first:literal, $second:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            multiply_chunk!($first, "v10", "v11", "v12", "v13"),
            "smlal v10.8h, ",
            $second,
            ".8b, v4.8b\n",
            "smlal v11.8h, ",
            $second,
            ".8b, v5.8b\n",
            "smlal v12.8h, ",
            $second,
            ".8b, v6.8b\n",
            "smlal v13.8h, ",
            $second,
            ".8b, v7.8b\n",
            "smlal2 v10.8h, ",
            $second,
            ".16b, v4.16b\n",
            "smlal2 v11.8h, ",
            $second,
            ".16b, v5.16b\n",
            "smlal2 v12.8h, ",
            $second,
            ".16b, v6.16b\n",
            "smlal2 v13.8h, ",
            $second,
            ".16b, v7.16b\n",
            add_pairs!($add, $a, $b, $c, $d),
        )
    };
}

/// Multiplies a pair of chunks by the weights of four channels.
macro_rules! multiply_pair {
    ($add:literal) => {
        concat!(
            load_chunks!(),
            "ldp q8, q9, [{weights}], #32\n",
            "ldp q4, q5, [{chunk}, #64]\n",
            "ldp q6, q7, [{chunk}, #96]\n",
            "ldp q14, q15, [{weights}], #32\n",
            multiply_pair_of_channel!($add, "v8", "v9", "v16", "v17", "v18", "v19"),
            "ldp q8, q9, [{weights}], #32\n",
            multiply_pair_of_channel!($add, "v14", "v15", "v20", "v21", "v22", "v23"),
            "ldp q14, q15, [{weights}], #32\n",
            multiply_pair_of_channel!($add, "v8", "v9", "v24", "v25", "v26", "v27"),
            multiply_pair_of_channel!($add, "v14", "v15", "v28", "v29", "v30", "v31"),
        )
    };
}

/// Multiplies a chunk by the weights of four channels.
macro_rules! multiply_single {
    ($add:literal) => {
        concat!(
            load_chunks!(),
            "ldp q8, q9, [{weights}], #32\n",
            "ldp q14, q15, [{weights}], #32\n",
            multiply_chunk!("v8", "v10", "v11", "v12", "v13"),
            add_pairs!($add, "v16", "v17", "v18", "v19"),
            multiply_chunk!("v9", "v10", "v11", "v12", "v13"),
            add_pairs!($add, "v20", "v21", "v22", "v23"),
            multiply_chunk!("v14", "v10", "v11", "v12", "v13"),
            add_pairs!($add, "v24", "v25", "v26", "v27"),
            multiply_chunk!("v15", "v10", "v11", "v12", "v13"),
            add_pairs!($add, "v28", "v29", "v30", "v31"),
        )
    };
}

/// Multiplies half a chunk by the weights of one channel, and adds pairs of the products to four vectors of sums.
macro_rules! multiply_half {
    ($p:literal, $q:literal, $r:literal, $s:literal, $weights:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "smull ",
            $p,
            ".8h, ",
            $weights,
            ".8b, v0.8b\n",
            "smull ",
            $q,
            ".8h, ",
            $weights,
            ".8b, v1.8b\n",
            "smull ",
            $r,
            ".8h, ",
            $weights,
            ".8b, v2.8b\n",
            "smull ",
            $s,
            ".8h, ",
            $weights,
            ".8b, v3.8b\n",
            "sadalp ",
            $a,
            ".4s, ",
            $p,
            ".8h\n",
            "sadalp ",
            $b,
            ".4s, ",
            $q,
            ".8h\n",
            "sadalp ",
            $c,
            ".4s, ",
            $r,
            ".8h\n",
            "sadalp ",
            $d,
            ".4s, ",
            $s,
            ".8h\n",
        )
    };
}

impl NeonWeights {
    /// # Safety
    /// As for [`Weights::requantized`]; `output` is where the first channel of the first row belongs.
    #[target_feature(enable = "neon")]
    unsafe fn panel(
        &self,
        panel: &Panel,
        first: usize,
        mut rows: *const i8,
        count: usize,
        to: &Requantized,
        mut output: *mut u8,
    ) {
        let row_len = self.0.row_len();
        let tile_len = Self::ROWS * row_len;
        let stride = to.channels;
        let channels = (to.channels - first).min(CHANNELS);
        // SAFETY: bias and scales are padded to 16 channels; as many rows are left.
        unsafe {
            let bias = vld1q_s32(to.bias.at(first));
            let scales = [vld1q_f32(to.scales.at(first)); 4];
            let zero_point = zero_point(to.zero_point);
            let finish = |products: [int32x4_t; 4]| {
                let [a, b, c, d] = products;
                let sum = |products| vaddq_s32(products, bias);
                requantize([sum(a), sum(b), sum(c), sum(d)], scales, zero_point)
            };
            let mut left = count;
            while left >= Self::ROWS {
                let bytes = finish(self.multiply_tile(rows, panel));
                if channels == CHANNELS {
                    let words = vreinterpretq_u32_u8(bytes);
                    vst1q_lane_u32::<0>(output.cast(), words);
                    output = output.add(stride);
                    vst1q_lane_u32::<1>(output.cast(), words);
                    output = output.add(stride);
                    vst1q_lane_u32::<2>(output.cast(), words);
                    output = output.add(stride);
                    vst1q_lane_u32::<3>(output.cast(), words);
                    output = output.add(stride);
                } else {
                    let mut stored = [0; LANES];
                    vst1q_u8(stored.as_mut_ptr(), bytes);
                    for bytes in stored.chunks_exact(CHANNELS) {
                        output.copy_from_nonoverlapping(bytes.as_ptr(), channels);
                        output = output.add(stride);
                    }
                }
                rows = rows.add(tile_len);
                left -= Self::ROWS;
            }
            for _ in 0..left {
                let bytes = finish([self.multiply_row(rows, panel); 4]);
                store_first(output, bytes, channels);
                rows = rows.add(row_len);
                output = output.add(stride);
            }
        }
    }

    /// The sums of products of one row and the channels of a panel.
    ///
    /// # Safety
    /// `row` is a tile of one row.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn multiply_row(&self, row: *const i8, panel: &Panel) -> int32x4_t {
        let mut sums = [vdupq_n_s32(0); CHANNELS];
        let mut weights = self.0.weights(panel);
        let (pairs, singles) = panel.chunks.split_at(panel.pairs);
        // SAFETY: the row has these chunks, the panel has weights for them.
        unsafe {
            for chunk in pairs {
                let row = row.add(*chunk as usize * LANES);
                let (first, second) = (vld1q_s8(row), vld1q_s8(row.add(LANES)));
                for sum in &mut sums {
                    let (a, b) = (vld1q_s8(weights), vld1q_s8(weights.add(LANES)));
                    let mut products = vmull_s8(vget_low_s8(a), vget_low_s8(first));
                    products = vmlal_high_s8(products, a, first);
                    products = vmlal_s8(products, vget_low_s8(b), vget_low_s8(second));
                    products = vmlal_high_s8(products, b, second);
                    *sum = vpadalq_s16(*sum, products);
                    weights = weights.add(2 * LANES);
                }
            }
            for chunk in singles {
                let bytes = vld1q_s8(row.add(*chunk as usize * LANES));
                for sum in &mut sums {
                    let a = vld1q_s8(weights);
                    let products = vmull_s8(vget_low_s8(a), vget_low_s8(bytes));
                    *sum = vpadalq_s16(*sum, vmlal_high_s8(products, a, bytes));
                    weights = weights.add(LANES);
                }
            }
            if self.0.half {
                let bytes = vld1_s8(row.add(self.0.chunks * LANES));
                for sum in &mut sums {
                    *sum = vpadalq_s16(*sum, vmull_s8(vld1_s8(weights), bytes));
                    weights = weights.add(LANES / 2);
                }
            }
        }
        lane_sums(sums)
    }

    /// The sums of products of each of `ROWS` rows and the channels of a panel: [`Self::multiply_row`] for all of them,
    /// in assembly because all 32 registers are in use.
    ///
    /// # Safety
    /// `rows` is a tile of `ROWS` rows.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn multiply_tile(&self, rows: *const i8, panel: &Panel) -> [int32x4_t; 4] {
        let mut sums = [vdupq_n_s32(0); 4];
        let [a, b, c, d] = &mut sums;
        // SAFETY: the tile has the chunks of the panel, which has weights for them; there is a chunk at least.
        unsafe {
            asm!(
                "cbz {pairs}, 3f",
                multiply_pair!("saddlp"),
                "b 2f",
                "1:",
                multiply_pair!("sadalp"),
                "2:",
                "subs {pairs}, {pairs}, #1",
                "b.ne 1b",
                "cbz {singles}, 6f",
                "b 4f",
                "3:",
                multiply_single!("saddlp"),
                "b 5f",
                "4:",
                multiply_single!("sadalp"),
                "5:",
                "subs {singles}, {singles}, #1",
                "b.ne 4b",
                "6:",
                "cbz {half}, 7f",
                "add {chunk}, {rows}, {half}",
                "ldp q0, q1, [{chunk}]",
                "ldp q2, q3, [{chunk}, #32]",
                "ldp d8, d9, [{weights}]",
                "ldp d10, d11, [{weights}, #16]",
                multiply_half!("v4", "v5", "v6", "v7", "v8", "v16", "v17", "v18", "v19"),
                multiply_half!("v12", "v13", "v14", "v15", "v9", "v20", "v21", "v22", "v23"),
                multiply_half!("v4", "v5", "v6", "v7", "v10", "v24", "v25", "v26", "v27"),
                multiply_half!("v12", "v13", "v14", "v15", "v11", "v28", "v29", "v30", "v31"),
                "7:",
                // The lanes of four channels become the channels of one row.
                "addp v16.4s, v16.4s, v20.4s",
                "addp v17.4s, v17.4s, v21.4s",
                "addp v18.4s, v18.4s, v22.4s",
                "addp v19.4s, v19.4s, v23.4s",
                "addp v24.4s, v24.4s, v28.4s",
                "addp v25.4s, v25.4s, v29.4s",
                "addp v26.4s, v26.4s, v30.4s",
                "addp v27.4s, v27.4s, v31.4s",
                "addp v16.4s, v16.4s, v24.4s",
                "addp v17.4s, v17.4s, v25.4s",
                "addp v18.4s, v18.4s, v26.4s",
                "addp v19.4s, v19.4s, v27.4s",
                rows = in(reg) rows,
                chunks = inout(reg) panel.chunks.as_ptr() => _,
                pairs = inout(reg) panel.pairs => _,
                singles = inout(reg) panel.chunks.len() - panel.pairs => _,
                half = in(reg) self.0.half_offset(Self::ROWS),
                weights = inout(reg) self.0.weights(panel) => _,
                chunk = out(reg) _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                out("v16") *a, out("v17") *b, out("v18") *c, out("v19") *d,
                out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                out("v24") _, out("v25") _, out("v26") _, out("v27") _,
                out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                options(pure, readonly, nostack)
            );
        }
        sums
    }
}
