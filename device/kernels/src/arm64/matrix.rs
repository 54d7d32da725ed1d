//! Dense convolutions and linear layers: rows of bytes times packed weights, whichever instructions multiply.

use std::fmt::Debug;
use std::ops::Range;

use super::rows::{self, Rows};
use super::vector::LANES;
use crate::operator::Kernel;
use crate::operators::{Conv, Linear};
use crate::packed::{Packed, cut, len_of, padded};

/// Rows that are kept in the first-level cache while all channels are computed from them, in bytes.
const BLOCK: usize = 20 * 1024;

/// Weights in the order in which one instruction set multiplies them.
pub(super) trait Weights: Debug + Send + Sync + Sized + 'static {
    /// Rows that are multiplied at once.
    const ROWS: usize;

    /// Packs `weights`, channel x depth.
    fn pack(weights: &[i8], depth: usize) -> Self;

    /// Stores the rows of `positions` as tiles: of `ROWS` rows, and of one row each for those that are left.
    ///
    /// # Safety
    /// As for [`Rows::gather`]; the tiles fit into `block`.
    unsafe fn gather(
        rows: &Rows,
        positions: Range<usize>,
        input: *const u8,
        scratch: *mut u8,
        block: *mut u8,
    );

    /// Multiplies blocks of rows by the weights of all channels, and requantizes.
    ///
    /// # Safety
    /// The processor has the instruction set. `rows` are the tiles of `count` rows; `output` has a byte for each of `count` rows and all channels.
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
        .map(|(row, bias)| {
            row.iter()
                .fold(*bias, |sum, w| sum.wrapping_add(128 * i32::from(*w)))
        })
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

    /// Bytes of scratch: a block of rows, a tile of them on its way.
    fn pieces(&self) -> [usize; 2] {
        let tile = self.rows.scratch_len(W::ROWS);
        [self.block * self.rows.len(), tile]
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
        let (block, row) = (block.as_mut_ptr(), row.as_mut_ptr());
        let mut first = positions.start;
        for output in output.chunks_mut(self.block * self.to.channels) {
            let count = output.len() / self.to.channels;
            // SAFETY: weights are packed only for a processor that multiplies them; the input has been checked, row and
            // block are as long as their pieces, and the block holds `count` rows.
            unsafe {
                W::gather(
                    &self.rows,
                    first..first + count,
                    inputs[0].as_ptr(),
                    row,
                    block,
                );
                self.weights
                    .requantized(block.cast(), count, &self.to, output.as_mut_ptr());
            }
            first += count;
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
            let sums = unsafe {
                self.weights
                    .sums(row.as_ptr().cast(), first + i * LANES, &self.bias)
            };
            for ((logit, sum), scale) in logits.iter_mut().zip(sums).zip(scales) {
                *logit = sum as f32 * scale;
            }
        }
    }
}

/// [`Weights::gather`] for tiles of `ROWS` rows.
///
/// # Safety
/// As for [`Weights::gather`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn gather<const ROWS: usize>(
    rows: &Rows,
    positions: Range<usize>,
    input: *const u8,
    scratch: *mut u8,
    mut block: *mut u8,
) {
    let mut place = rows.place(positions.start, input);
    let mut left = positions.len();
    // SAFETY: as for the caller.
    unsafe {
        while left >= ROWS {
            rows.gather::<ROWS>(&mut place, input, scratch, block);
            block = block.add(ROWS * rows.len());
            left -= ROWS;
        }
        for _ in 0..left {
            rows.gather::<1>(&mut place, input, scratch, block);
            block = block.add(rows.len());
        }
    }
}
