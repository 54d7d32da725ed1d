//! Dense convolutions and linear layers: rows of bytes times packed weights, whichever instructions multiply.

use std::fmt::Debug;
use std::ops::Range;

use super::memory::{Packed, cut, len_of, padded};
use super::rows::{self, Rows};
use super::vector::LANES;
use crate::operator::Kernel;
use crate::operators::{Conv, Linear};

/// Rows that are kept in the first-level cache while all channels are computed from them, in bytes.
const BLOCK: usize = 20 * 1024;

/// Weights in the order in which one instruction set multiplies them.
pub(super) trait Weights: Debug + Send + Sync + Sized + 'static {
    /// Rows that are multiplied at once.
    const ROWS: usize;

    /// Packs `weights`, channel x depth.
    fn pack(weights: &[i8], depth: usize) -> Self;

    /// Multiplies blocks of rows by the weights of all channels, and requantizes.
    ///
    /// # Safety
    /// The processor has the instruction set. `rows` are tiles of `ROWS` rows, and what `count` leaves in tiles of one
    /// row; `output` has a byte for each of `count` rows and all channels.
    unsafe fn requantized(&self, rows: *const i8, count: usize, to: &Requantized, output: *mut u8);

    /// Multiplies one row by the weights of the 16 channels from `first` on.
    ///
    /// # Safety
    /// The processor has the instruction set. `row` is a tile of one row; the channels exist, or pad the last ones.
    unsafe fn sums(&self, row: *const i8, first: usize, bias: &Packed) -> [i32; LANES];
}

/// What becomes of the sums of a convolution.
#[derive(Debug)]
pub(super) struct Requantized {
    pub(super) channels: usize,
    /// Of each channel, padded to whole vectors of bytes.
    pub(super) bias: Packed,
    pub(super) scales: Packed,
    pub(super) zero_point: u8,
}

/// The folded bias for inputs that are 128 less, since they are signed.
fn signed_bias(bias: &[i32], weights: &[i8], depth: usize) -> Packed {
    let rows = weights.chunks_exact(depth).zip(bias);
    let bias: Vec<i32> = rows
        .map(|(row, bias)| row.iter().fold(*bias, |sum, w| sum.wrapping_add(128 * i32::from(*w))))
        .collect();
    Packed::integers(&padded(&bias, LANES))
}

/// A dense convolution.
#[derive(Debug)]
pub(super) struct PackedConv<W> {
    rows: Rows,
    weights: W,
    to: Requantized,
    /// Rows of a block, a multiple of those of a tile.
    block: usize,
}

impl<W: Weights> PackedConv<W> {
    pub(super) fn new(conv: &Conv) -> Self {
        let depth = conv.depth();
        let rows = Rows::new(conv.window, conv.input_zero_point);
        let tiles = (BLOCK / (rows.len() * W::ROWS)).max(1);
        PackedConv {
            weights: W::pack(&conv.weights, depth),
            to: Requantized {
                channels: conv.channels,
                bias: signed_bias(&conv.bias, &conv.weights, depth),
                scales: Packed::floats(&padded(&conv.requantize.scales, LANES)),
                zero_point: conv.requantize.zero_point,
            },
            block: (tiles * W::ROWS).min(conv.window.positions().next_multiple_of(W::ROWS)),
            rows,
        }
    }

    /// Bytes of scratch: a block of rows, one row on its way.
    fn pieces(&self) -> [usize; 2] {
        [self.block * self.rows.len(), self.rows.scratch_len()]
    }
}

impl<W: Weights> Kernel for PackedConv<W> {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        W::ROWS
    }

    fn run(
        &self,
        positions: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [u8],
        scratch: &mut [u8],
    ) {
        let [block, row] = cut(scratch, self.pieces());
        let mut first = positions.start;
        for output in output.chunks_mut(self.block * self.to.channels) {
            let count = output.len() / self.to.channels;
            let last = first + count;
            let mut tile = block.as_mut_ptr();
            while first < last {
                let rows = if last - first < W::ROWS { 1 } else { W::ROWS };
                // SAFETY: the input has been checked, row and block are as long as their pieces, and the block holds
                // `count` rows.
                unsafe {
                    let positions = first..first + rows;
                    self.rows.gather(positions, inputs[0].as_ptr(), row.as_mut_ptr(), tile);
                    tile = tile.add(rows * self.rows.len());
                }
                first += rows;
            }
            let rows = block.as_ptr().cast();
            // SAFETY: weights are packed only for a processor that multiplies them.
            unsafe { self.weights.requantized(rows, count, &self.to, output.as_mut_ptr()) };
        }
    }
}

/// A linear layer.
#[derive(Debug)]
pub(super) struct PackedLinear<W> {
    inputs: usize,
    weights: W,
    bias: Packed,
    scales: Vec<f32>,
}

impl<W: Weights> PackedLinear<W> {
    pub(super) fn new(linear: &Linear) -> Self {
        PackedLinear {
            inputs: linear.inputs,
            weights: W::pack(&linear.weights, linear.inputs),
            bias: signed_bias(&linear.bias, &linear.weights, linear.inputs),
            scales: linear.scales.clone(),
        }
    }
}

impl<W: Weights> Kernel<f32> for PackedLinear<W> {
    fn scratch_len(&self) -> usize {
        len_of([rows::padded_len(self.inputs)])
    }

    fn run(&self, units: Range<usize>, inputs: &[&[u8]], logits: &mut [f32], scratch: &mut [u8]) {
        let [row] = cut(scratch, [rows::padded_len(self.inputs)]);
        rows::single(inputs[0], self.inputs, row);
        let first = units.start * Linear::UNIT;
        let scales = self.scales[first..].chunks(LANES);
        for (i, (logits, scales)) in logits.chunks_mut(LANES).zip(scales).enumerate() {
            // SAFETY: weights are packed only for a processor that multiplies them; there are logits left.
            let sums = unsafe { self.weights.sums(row.as_ptr().cast(), first + i * LANES, &self.bias) };
            for ((logit, sum), scale) in logits.iter_mut().zip(sums).zip(scales) {
                *logit = sum as f32 * scale;
            }
        }
    }
}
