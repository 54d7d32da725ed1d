//! Matrix product of Armv8.0, which has no dot product: `smull` and `smlal` multiply bytes to 16 bits, `sadalp` adds
//! pairs of these to sums of 32 bits.
//!
//! Two products of a signed byte and a weight of [-127, 127] always fit 16 bits, and so do four where the magnitudes of
//! the weights add up to 255 at most, which is most often true: bell-shaped weights are rarely large together. So the
//! chunks of 16 bytes of a row are multiplied in pairs where all channels of a panel allow it (with weights of seven
//! bits: almost everywhere), and one by one where they do not.
//!
//! A tile is 4 rows x 4 channels. Each row and channel has its own vector of sums, whose lanes are added at the end.

use std::arch::aarch64::*;

use super::matrix::{Requantized, Weights};
use super::memory::{Packed, padded};
use super::vector::{LANES, lane_sums, requantize, store_first, zero_point};

/// Channels of a panel.
const CHANNELS: usize = 4;

/// Largest sum of magnitudes of weights whose products with signed bytes are added in 16 bits.
const LARGEST_SUM: u32 = (i16::MAX as u32) / 128;

/// Largest magnitude of a weight that can be packed: with one more, two products may leave 16 bits.
pub(super) const LARGEST_WEIGHT: u8 = 127;

#[derive(Debug)]
struct Panel {
    /// Where its weights start, in bytes.
    weights: usize,
    /// The first chunks of its pairs, then its single chunks.
    chunks: Vec<u32>,
    pairs: usize,
}

#[derive(Debug)]
pub(super) struct NeonWeights {
    /// For each panel: pair x channel x 32 bytes, single chunk x channel x 16 bytes, channel x 8 bytes.
    packed: Packed,
    panels: Vec<Panel>,
    /// Whole chunks of a row.
    chunks: usize,
    /// Whether up to eight bytes of a row are left.
    half: bool,
    channels: usize,
}

impl Weights for NeonWeights {
    const ROWS: usize = 4;

    fn pack(weights: &[i8], depth: usize) -> Self {
        let half = (1..=LANES / 2).contains(&(depth % LANES));
        let chunks = if half { depth / LANES } else { depth.div_ceil(LANES) };
        let channels = weights.len() / depth;
        let mut packed = vec![];
        let mut panels = vec![];
        for panel in weights.chunks(CHANNELS * depth) {
            let mut rows: Vec<Vec<i8>> =
                panel.chunks_exact(depth).map(|row| padded(row, LANES)).collect();
            rows.resize(CHANNELS, vec![0; depth.next_multiple_of(LANES)]);
            let start = packed.len();
            let (mut pairs, mut singles) = (vec![], vec![]);
            let mut chunk = 0;
            while chunk < chunks {
                if chunk + 1 < chunks && rows.iter().all(|row| fits(&row[chunk * LANES..])) {
                    pairs.push(chunk as u32);
                    chunk += 2;
                } else {
                    singles.push(chunk as u32);
                    chunk += 1;
                }
            }
            for (chunks, len) in [(&pairs, 2 * LANES), (&singles, LANES)] {
                for chunk in chunks {
                    for row in &rows {
                        packed.extend(&row[*chunk as usize * LANES..][..len]);
                    }
                }
            }
            if half {
                for row in &rows {
                    packed.extend(&row[chunks * LANES..][..LANES / 2]);
                }
            }
            panels.push(Panel {
                weights: start,
                pairs: pairs.len(),
                chunks: [pairs, singles].concat(),
            });
        }
        NeonWeights {
            packed: Packed::bytes(&packed),
            panels,
            chunks,
            half,
            channels,
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn requantized(&self, rows: &[u8], count: usize, to: &Requantized, output: &mut [u8]) {
        let row_len = (self.chunks + usize::from(self.half)) * LANES;
        for (panel, first) in self.panels.iter().zip((0..self.channels).step_by(CHANNELS)) {
            for start in (0..count).step_by(Self::ROWS) {
                let tile = rows[start * row_len..].as_ptr().cast();
                let output = output[start * self.channels + first..].as_mut_ptr();
                // SAFETY: as for the caller; the tile has this many rows.
                unsafe {
                    match count - start {
                        1 => self.tile::<1>(tile, panel, first, to, output),
                        2 => self.tile::<2>(tile, panel, first, to, output),
                        3 => self.tile::<3>(tile, panel, first, to, output),
                        _ => self.tile::<4>(tile, panel, first, to, output),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn sums(&self, row: &[u8], first: usize, bias: &Packed) -> [i32; LANES] {
        let mut sums = [0; LANES];
        let panels = self.panels[first / CHANNELS..].iter();
        for ((sums, panel), i) in sums.chunks_exact_mut(CHANNELS).zip(panels).zip(0..) {
            // SAFETY: as for the caller; the bias is padded to 16 channels, the chunk has four sums.
            unsafe {
                let [products] = self.multiply::<1>(row.as_ptr().cast(), panel);
                let bias = vld1q_s32(bias.at(first + i * CHANNELS));
                vst1q_s32(sums.as_mut_ptr(), vaddq_s32(products, bias));
            }
        }
        sums
    }
}

/// Whether the products of the pair of chunks that `row` starts with can be added in 16 bits.
fn fits(row: &[i8]) -> bool {
    (0..LANES / 2).all(|lane| {
        let lanes = row[lane..2 * LANES].iter().step_by(LANES / 2);
        lanes.map(|w| u32::from(w.unsigned_abs())).sum::<u32>() <= LARGEST_SUM
    })
}

impl NeonWeights {
    /// # Safety
    /// `rows` is a tile of `ROWS` rows, `output` is where the first channel of the first row belongs.
    #[target_feature(enable = "neon")]
    unsafe fn tile<const ROWS: usize>(
        &self,
        rows: *const i8,
        panel: &Panel,
        first: usize,
        to: &Requantized,
        output: *mut u8,
    ) {
        // SAFETY: bias and scales are padded to 16 channels; each row of the output has `count` more channels.
        unsafe {
            let products = self.multiply::<ROWS>(rows, panel);
            let bias = vld1q_s32(to.bias.at(first));
            let scales = [vld1q_f32(to.scales.at(first)); 4];
            let mut sums = [bias; 4];
            for row in 0..ROWS {
                sums[row] = vaddq_s32(products[row], bias);
            }
            let bytes = requantize(sums, scales, zero_point(to.zero_point));
            let count = to.channels - first;
            if count >= CHANNELS {
                let words = vreinterpretq_u32_u8(bytes);
                let to = |row: usize| output.add(row * to.channels).cast::<u32>();
                vst1q_lane_u32::<0>(to(0), words);
                if ROWS > 1 {
                    vst1q_lane_u32::<1>(to(1), words);
                }
                if ROWS > 2 {
                    vst1q_lane_u32::<2>(to(2), words);
                }
                if ROWS > 3 {
                    vst1q_lane_u32::<3>(to(3), words);
                }
            } else {
                let mut stored = [0; LANES];
                store_first(stored.as_mut_ptr(), bytes, LANES);
                for (row, bytes) in stored.chunks_exact(CHANNELS).take(ROWS).enumerate() {
                    let output = output.add(row * to.channels);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), output, count);
                }
            }
        }
    }

    /// The sums of products of `ROWS` rows and the channels of a panel.
    ///
    /// # Safety
    /// `rows` is a tile of `ROWS` rows.
    #[inline]
#[target_feature(enable = "neon")]
    unsafe fn multiply<const ROWS: usize>(
        &self,
        rows: *const i8,
        panel: &Panel,
    ) -> [int32x4_t; ROWS] {
        let mut sums = [[vdupq_n_s32(0); CHANNELS]; ROWS];
        let mut weights = self.packed.at::<i8>(panel.weights);
        let (pairs, singles) = panel.chunks.split_at(panel.pairs);
        for chunk in pairs {
            // SAFETY: the tile has both chunks of each row, the panel has weights for them.
            unsafe {
                let rows = rows.add(*chunk as usize * (ROWS * LANES));
                let mut bytes = [[vdupq_n_s8(0); 2]; ROWS];
                for row in 0..ROWS {
                    bytes[row][0] = vld1q_s8(rows.add(row * LANES));
                    bytes[row][1] = vld1q_s8(rows.add((ROWS + row) * LANES));
                }
                for channel in 0..CHANNELS {
                    let a = vld1q_s8(weights.add(channel * 2 * LANES));
                    let b = vld1q_s8(weights.add(channel * 2 * LANES + LANES));
                    let mut products = [vdupq_n_s16(0); ROWS];
                    for row in 0..ROWS {
                        products[row] = vmull_s8(vget_low_s8(a), vget_low_s8(bytes[row][0]));
                    }
                    for row in 0..ROWS {
                        products[row] = vmlal_high_s8(products[row], a, bytes[row][0]);
                    }
                    for row in 0..ROWS {
                        let (b, bytes) = (vget_low_s8(b), vget_low_s8(bytes[row][1]));
                        products[row] = vmlal_s8(products[row], b, bytes);
                    }
                    for row in 0..ROWS {
                        products[row] = vmlal_high_s8(products[row], b, bytes[row][1]);
                    }
                    for row in 0..ROWS {
                        sums[row][channel] = vpadalq_s16(sums[row][channel], products[row]);
                    }
                }
                weights = weights.add(CHANNELS * 2 * LANES);
            }
        }
        for chunk in singles {
            // SAFETY: the tile has the chunk of each row, the panel has weights for it.
            unsafe {
                let rows = rows.add(*chunk as usize * (ROWS * LANES));
                let mut bytes = [vdupq_n_s8(0); ROWS];
                for row in 0..ROWS {
                    bytes[row] = vld1q_s8(rows.add(row * LANES));
                }
                for channel in 0..CHANNELS {
                    let a = vld1q_s8(weights.add(channel * LANES));
                    let mut products = [vdupq_n_s16(0); ROWS];
                    for row in 0..ROWS {
                        products[row] = vmull_s8(vget_low_s8(a), vget_low_s8(bytes[row]));
                    }
                    for row in 0..ROWS {
                        products[row] = vmlal_high_s8(products[row], a, bytes[row]);
                    }
                    for row in 0..ROWS {
                        sums[row][channel] = vpadalq_s16(sums[row][channel], products[row]);
                    }
                }
                weights = weights.add(CHANNELS * LANES);
            }
        }
        if self.half {
            // SAFETY: the tile has a last chunk of each row, the panel has weights for half of it.
            unsafe {
                let rows = rows.add(self.chunks * (ROWS * LANES));
                for row in 0..ROWS {
                    let bytes = vld1_s8(rows.add(row * LANES));
                    for channel in 0..CHANNELS {
                        let a = vld1_s8(weights.add(channel * LANES / 2));
                        let products = vmull_s8(a, bytes);
                        sums[row][channel] = vpadalq_s16(sums[row][channel], products);
                    }
                }
            }
        }
        let mut products = [vdupq_n_s32(0); ROWS];
        for row in 0..ROWS {
            products[row] = lane_sums(sums[row]);
        }
        products
    }
}
