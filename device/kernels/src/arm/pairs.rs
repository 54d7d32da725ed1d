//! Weights for multiplying instructions that add products of bytes in 16 bits, and pairs of these in 32 bits: what NEON
//! has without a dot product.
//!
//! Two products of a signed byte and a weight of [-127, 127] always fit 16 bits, and so do four where the magnitudes of
//! the weights add up to 255 at most, which is most often true: bell-shaped weights are rarely large together. So the
//! chunks of 16 bytes of a row are multiplied in pairs where all channels of a panel allow it (with weights of seven
//! bits: almost everywhere), and one by one where they do not.

use crate::memory::AlignedBytes;
use crate::packed::{Packed, padded};

/// Channels of a panel.
pub(crate) const CHANNELS: usize = 4;

/// Bytes of a chunk.
const CHUNK: usize = 16;

/// Largest sum of magnitudes of weights whose products with signed bytes are added in 16 bits.
const LARGEST_SUM: u16 = (i16::MAX as u16) / 128;

/// Whether these weights can be packed: with one of -128, two products may leave 16 bits.
pub(crate) fn fit(weights: &[i8]) -> bool {
    weights.iter().all(|w| *w > i8::MIN)
}

/// The weights of four channels.
#[derive(Debug)]
pub(crate) struct Panel {
    /// Where its weights start, in bytes.
    weights: usize,
    /// The first chunks of its pairs, then its single chunks.
    pub(crate) chunks: Vec<u32>,
    pub(crate) pairs: usize,
}

#[derive(Debug)]
pub(crate) struct PairedWeights {
    /// For each panel: pair x channel x 32 bytes, single chunk x channel x 16 bytes, channel x 8 bytes.
    packed: Packed,
    pub(crate) panels: Vec<Panel>,
    /// Whole chunks of a row, at least one.
    pub(crate) chunks: usize,
    /// Whether up to eight bytes of a row are left.
    pub(crate) half: bool,
}

impl PairedWeights {
    /// Packs `weights`, channel x depth.
    pub(crate) fn pack(weights: &[i8], depth: usize) -> Self {
        let half = depth > CHUNK && (1..=CHUNK / 2).contains(&(depth % CHUNK));
        let chunks = if half {
            depth / CHUNK
        } else {
            depth.div_ceil(CHUNK)
        };
        let panel_len = CHANNELS * (chunks * CHUNK + if half { CHUNK / 2 } else { 0 });
        let count = weights.len().div_ceil(CHANNELS * depth);
        let mut packed = AlignedBytes::with_capacity(count * panel_len);
        let mut panels = Vec::with_capacity(count);
        for panel in weights.chunks(CHANNELS * depth) {
            let mut rows: Vec<Vec<i8>> = panel
                .chunks_exact(depth)
                .map(|row| padded(row, CHUNK))
                .collect();
            rows.resize(CHANNELS, vec![0; depth.next_multiple_of(CHUNK)]);
            let start = packed.len();
            let (mut pairs, mut singles) = (vec![], vec![]);
            let mut chunk = 0;
            while chunk < chunks {
                if chunk + 1 < chunks && rows.iter().all(|row| fits(&row[chunk * CHUNK..])) {
                    pairs.push(chunk as u32);
                    chunk += 2;
                } else {
                    singles.push(chunk as u32);
                    chunk += 1;
                }
            }
            let mut rest = packed.append(panel_len);
            let mut put = |weights: &[i8]| {
                let (to, after) = std::mem::take(&mut rest).split_at_mut(weights.len());
                for (to, weight) in to.iter_mut().zip(weights) {
                    *to = weight.cast_unsigned();
                }
                rest = after;
            };
            for (chunks, len) in [(&pairs, 2 * CHUNK), (&singles, CHUNK)] {
                for chunk in chunks {
                    for row in &rows {
                        put(&row[*chunk as usize * CHUNK..][..len]);
                    }
                }
            }
            if half {
                for row in &rows {
                    put(&row[chunks * CHUNK..][..CHUNK / 2]);
                }
            }
            panels.push(Panel {
                weights: start,
                pairs: pairs.len(),
                chunks: [pairs, singles].concat(),
            });
        }
        PairedWeights {
            packed: packed.into(),
            panels,
            chunks,
            half,
        }
    }

    /// Bytes of a row in whole chunks.
    pub(crate) fn row_len(&self) -> usize {
        (self.chunks + usize::from(self.half)) * CHUNK
    }

    /// Where the half chunk of a tile of `rows` rows starts, if there is one; else 0.
    pub(crate) fn half_offset(&self, rows: usize) -> usize {
        if self.half {
            self.chunks * rows * CHUNK
        } else {
            0
        }
    }

    pub(crate) fn weights(&self, panel: &Panel) -> *const i8 {
        self.packed.at(panel.weights)
    }
}

/// Whether the products of the pair of chunks that `row` starts with can be added in 16 bits.
fn fits(row: &[i8]) -> bool {
    let mut sums = [0u16; CHUNK / 2];
    for lanes in row[..2 * CHUNK].chunks_exact(CHUNK / 2) {
        for (sum, weight) in sums.iter_mut().zip(lanes) {
            *sum += u16::from(weight.unsigned_abs());
        }
    }
    sums.iter().all(|sum| *sum <= LARGEST_SUM)
}
