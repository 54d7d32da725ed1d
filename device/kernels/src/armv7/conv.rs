//! Dense convolution: what the kernel sees at two output positions is gathered in a tile of two rows, and multiplied by
//! panels of four channels.

use std::ops::Range;

use super::assembly::{LIMITS, Tiles, graft_armv7_tiles};
use crate::arm::pairs::{CHANNELS, PairedWeights};
use crate::operator::Kernel;
use crate::operators::Conv;
use crate::packed::{Packed, cut, len_of, padded};
use crate::window::Window;

/// Rows of a tile.
const ROWS: usize = 2;

/// Bytes of a row that are neighbours in a tile.
const CHUNK: usize = 16;

/// Rows that are kept in the first-level cache while all channels are computed from them, in bytes.
const BLOCK: usize = 20 * 1024;

#[derive(Debug)]
pub(super) struct NeonConv {
    window: Window,
    channels: usize,
    depth: usize,
    weights: PairedWeights,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
    /// Rows of a block, a multiple of those of a tile.
    block: usize,
}

impl NeonConv {
    pub(super) fn new(conv: &Conv) -> NeonConv {
        let depth = conv.depth();
        let weights = PairedWeights::pack(&conv.weights, depth);
        let rows = conv.weights.chunks_exact(depth).zip(&conv.bias);
        // The bytes are multiplied as signed ones, 128 less.
        let bias: Vec<i32> = rows
            .map(|(row, bias)| {
                row.iter()
                    .fold(*bias, |sum, w| sum.wrapping_add(128 * i32::from(*w)))
            })
            .collect();
        NeonConv {
            window: conv.window,
            channels: conv.channels,
            depth,
            block: (BLOCK / (weights.row_len() * ROWS)).max(1) * ROWS,
            weights,
            bias: Packed::integers(&padded(&bias, CHANNELS)),
            scales: Packed::floats(&padded(&conv.requantize.scales, CHANNELS)),
            input_zero_point: conv.input_zero_point,
            output_zero_point: conv.requantize.zero_point,
        }
    }

    /// Bytes of scratch: a block of rows, one row on its way with a chunk behind it.
    fn pieces(&self) -> [usize; 2] {
        let row = self.weights.row_len();
        [self.block * row, row + CHUNK]
    }

    /// Copies what the kernel sees at an output position; the row has a chunk behind it.
    fn copy(&self, [y, x]: [usize; 2], input: &[u8], row: &mut [u8]) {
        let window = &self.window;
        let [_, width] = window.kernel;
        let channels = window.channels;
        let (top, left) = (y * window.stride[0], x * window.stride[1]);
        // Of the taps of one kernel row, those before `first` and from `end` on are padding.
        let first = window.left.saturating_sub(left).min(width);
        let end = (window.width + window.left).saturating_sub(left).min(width);
        let run = width * channels;
        let mut at = 0;
        for y in (top..top + window.kernel[0]).map(|y| y.wrapping_sub(window.top)) {
            let inside = y < window.height && first < end;
            let to = &mut row[at..];
            at += run;
            if !inside || end - first < width {
                to[..run].fill(self.input_zero_point);
            }
            if !inside {
                continue;
            }
            let from = (y * window.width + left + first - window.left) * channels;
            let from = &input[from..];
            if end - first == width {
                // Whole chunks reach too far, where the next kernel row is copied to, or nothing.
                let chunks = run.div_ceil(CHUNK) * CHUNK;
                let from = from[..chunks].as_chunks::<CHUNK>().0;
                let to = to[..chunks].as_chunks_mut::<CHUNK>().0;
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            } else {
                let to = &mut to[first * channels..end * channels];
                to.copy_from_slice(&from[..to.len()]);
            }
        }
    }

    /// Multiplies the tiles of a block by all panels.
    fn multiply(&self, block: &[u8], output: &mut [u8]) {
        let rows = output.len() / self.channels;
        let tile_len = ROWS * self.weights.row_len();
        let panels = (0..self.channels)
            .step_by(CHANNELS)
            .zip(&self.weights.panels);
        for (first, panel) in panels {
            let mut tiles = Tiles {
                rows: block.as_ptr().cast(),
                chunks: panel.chunks.as_ptr(),
                pairs: panel.pairs,
                singles: panel.chunks.len() - panel.pairs,
                half: self.weights.half_offset(ROWS),
                weights: self.weights.weights(panel),
                bias: self.bias.at(first),
                scales: self.scales.at(first),
                zero_point: i32::from(self.output_zero_point),
                output: output[first..].as_mut_ptr(),
                stride: self.channels,
                tiles: rows / ROWS,
                tile_len,
                limits: &LIMITS,
            };
            let whole = if self.channels - first < CHANNELS {
                0
            } else {
                rows / ROWS
            };
            if whole > 0 {
                // SAFETY: the processor has NEON; the block has these tiles, the output their rows.
                unsafe { graft_armv7_tiles(&tiles) };
            }
            // What is not a whole tile of the output goes there by way of one.
            for tile in whole..rows.div_ceil(ROWS) {
                let mut bytes = [0; ROWS * CHANNELS];
                tiles.rows = block[tile * tile_len..].as_ptr().cast();
                (tiles.output, tiles.stride, tiles.tiles) = (bytes.as_mut_ptr(), CHANNELS, 1);
                // SAFETY: as before; the output is a tile.
                unsafe { graft_armv7_tiles(&tiles) };
                let output = output.chunks_exact_mut(self.channels).skip(tile * ROWS);
                for (output, bytes) in output.zip(bytes.chunks_exact(CHANNELS)) {
                    let output = &mut output[first..];
                    let count = output.len().min(CHANNELS);
                    output[..count].copy_from_slice(&bytes[..count]);
                }
            }
        }
    }
}

/// Stores a row of whole chunks, made signed, as row `row` of a tile.
fn interleave(bytes: &[u8], row: usize, tile: &mut [u8]) {
    let chunks = tile.as_chunks_mut::<CHUNK>().0[row..].iter_mut();
    for (bytes, chunk) in bytes
        .as_chunks::<CHUNK>()
        .0
        .iter()
        .zip(chunks.step_by(ROWS))
    {
        let signed = u128::from_ne_bytes(*bytes) ^ u128::from_ne_bytes([0x80; CHUNK]);
        *chunk = signed.to_ne_bytes();
    }
}

impl Kernel for NeonConv {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        ROWS
    }

    fn run(
        &self,
        positions: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [u8],
        scratch: &mut [u8],
    ) {
        let window = &self.window;
        let input = inputs[0];
        let [block, row] = cut(scratch, self.pieces());
        let row_len = self.weights.row_len();
        let tile_len = ROWS * row_len;
        let pixels = window.kernel == [1, 1] && window.stride == [1, 1];
        let mut first = positions.start;
        let mut y = first / window.out_width;
        let mut x = first % window.out_width;
        for output in output.chunks_mut(self.block * self.channels) {
            let count = output.len() / self.channels;
            for i in 0..count {
                let tile = &mut block[i / ROWS * tile_len..][..tile_len];
                let bytes = if pixels {
                    &input[(first + i) * self.depth..][..row_len]
                } else {
                    self.copy([y, x], input, row);
                    &row[..row_len]
                };
                x += 1;
                if x == window.out_width {
                    (x, y) = (0, y + 1);
                }
                interleave(bytes, i % ROWS, tile);
            }
            self.multiply(block, output);
            first += count;
        }
    }
}
