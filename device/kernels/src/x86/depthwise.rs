//! Depthwise convolution: the rows under the kernel interleaved, channel by channel, so that one dot product does a column
//! of taps; every column is interleaved once and used by all kernel columns and by two rows of output.
//!
//! Four vectors of sums are computed together: their bytes, packed, are neighbours again.

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::vector::{Dot, Vector, interleave, scale};
use crate::SLACK;
use crate::operator::Kernel;
use crate::operators;
use crate::packed::{Packed, cut, len_of};
use crate::window::Window;

/// Bytes of interleaved columns that stay in the first-level cache.
const COLUMNS: usize = 20 * 1024;

#[derive(Debug, Clone, Copy)]
enum Width {
    Wide,
    Half,
    Quarter,
}

/// Channels that are computed together: four per 32-bit lane.
#[derive(Debug, Clone, Copy)]
struct Block {
    width: Width,
    first: usize,
    /// At most four times the lanes.
    channels: usize,
    /// Where its weights start, in bytes; and its lanes, in the bias and scales.
    weights: usize,
    lanes: usize,
}

#[derive(Debug)]
pub(super) struct Depthwise<S: Set> {
    window: Window,
    blocks: Vec<Block>,
    /// Block x kernel column x group of rows x vector x output row x lane x tap.
    weights: Packed,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
    /// Output rows computed together.
    rows: usize,
    /// Groups of `TAPS` input rows.
    groups: usize,
    /// Output columns computed from columns in the cache.
    chunk: usize,
    set: PhantomData<S>,
}

impl<S: Set> Depthwise<S> {
    pub(super) fn new(depthwise: &operators::Depthwise) -> Depthwise<S> {
        let window = depthwise.window;
        let channels = window.channels;
        let taps = <S::Wide as Dot>::TAPS;
        let wide = lanes::<S::Wide>();
        let half = lanes::<S::Half>();
        let quarter = lanes::<S::Quarter>();
        let [height, kernel_width] = window.kernel;
        let rows = if window.stride[0] == 1 { 2 } else { 1 };
        let groups = (height + rows - 1).div_ceil(taps);
        let mut blocks = vec![];
        let (mut weights, mut bias, mut scales) = (vec![], vec![], vec![]);
        let mut first = 0;
        while first < channels {
            let (width, lanes) = match channels - first {
                left if left > 4 * half => (Width::Wide, wide),
                left if left > 4 * quarter => (Width::Half, half),
                _ => (Width::Quarter, quarter),
            };
            blocks.push(Block {
                width,
                first,
                channels: (channels - first).min(4 * lanes),
                weights: weights.len() * (4 / taps),
                lanes: bias.len(),
            });
            // Within 128 bits, four vectors hold sixteen neighbours.
            let order = |vector: usize, lane: usize| first + lane / 4 * 16 + vector * 4 + lane % 4;
            let start = weights.len();
            weights.resize(start + kernel_width * groups * 4 * rows * lanes * taps, 0);
            let block = &mut weights[start..];
            let count = (channels - first).min(4 * lanes);
            for (tap, pixel) in depthwise.weights.chunks_exact(channels).enumerate() {
                let (y, column) = (tap / kernel_width, tap % kernel_width);
                for row in 0..rows {
                    let (group, below) = ((y + row) / taps, (y + row) % taps);
                    let fours = pixel[first..first + count].chunks(4).enumerate();
                    for (i, four) in fours {
                        let (vector, lane) = (i % 4, i / 4 * 4);
                        let at = ((column * groups + group) * 4 + vector) * rows + row;
                        let lanes = block[(at * lanes + lane) * taps..].chunks_exact_mut(taps);
                        for (lane, weight) in lanes.zip(four) {
                            lane[below] = *weight;
                        }
                    }
                }
            }
            for vector in 0..4 {
                for lane in 0..lanes {
                    let channel = order(vector, lane);
                    bias.push(depthwise.bias.get(channel).copied().unwrap_or(0));
                    let scale = depthwise.requantize.scales.get(channel);
                    scales.push(scale.copied().unwrap_or(0.0));
                }
            }
            first += 4 * lanes;
        }
        let column = groups * 16 * wide;
        let fitting = (COLUMNS / column).saturating_sub(kernel_width) / window.stride[1] + 1;
        Depthwise {
            window,
            blocks,
            weights: if taps == 4 {
                Packed::bytes(&weights)
            } else {
                Packed::words(&weights)
            },
            bias: Packed::integers(&bias),
            scales: Packed::floats(&scales),
            input_zero_point: depthwise.input_zero_point,
            output_zero_point: depthwise.requantize.zero_point,
            rows,
            groups,
            chunk: fitting.next_multiple_of(4).min(window.out_width),
            set: PhantomData,
        }
    }

    /// Bytes of scratch: a row of padding, a row of output that nobody reads, interleaved columns.
    fn pieces(&self) -> [usize; 3] {
        let window = &self.window;
        let columns = (self.chunk - 1) * window.stride[1] + window.kernel[1];
        [
            window.width * window.channels + SLACK,
            window.out_width * window.channels,
            columns * self.groups * 16 * lanes::<S::Wide>(),
        ]
    }
}

const fn lanes<D: Dot>() -> usize {
    <D::V as Vector>::LANES
}

impl<S: Set> Kernel for Depthwise<S> {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        self.rows
    }

    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], scratch: &mut [u8]) {
        // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
        unsafe { S::depthwise(self, rows, inputs[0], output, scratch) }
    }
}

/// Where a block of one chunk of output columns is read and written.
struct Place<'a> {
    /// First output row of those computed together, first and last output column of the chunk.
    y: usize,
    x: Range<usize>,
    padding: *const u8,
    columns: *mut u8,
    input: &'a [u8],
    /// Position `x` of each output row.
    output: [*mut u8; 2],
}

/// # Safety
/// The processor has the set; `input` is the whole input with its slack, `output` the part of `rows`, `scratch` as long as
/// `scratch_len`.
#[inline(always)]
pub(super) unsafe fn run<S: Set>(
    depthwise: &Depthwise<S>,
    rows: Range<usize>,
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) {
    let window = &depthwise.window;
    let [padding, unread, columns] = cut(scratch, depthwise.pieces());
    padding.fill(depthwise.input_zero_point);
    let row_len = window.out_width * window.channels;
    for y in rows.clone().step_by(depthwise.rows) {
        for x in (0..window.out_width).step_by(depthwise.chunk) {
            let at = (y - rows.start) * row_len + x * window.channels;
            let first = output[at..].as_mut_ptr();
            let second = if y + 1 < rows.end && depthwise.rows == 2 {
                output[at + row_len..].as_mut_ptr()
            } else {
                unread[x * window.channels..].as_mut_ptr()
            };
            let place = Place {
                y,
                x: x..(x + depthwise.chunk).min(window.out_width),
                padding: padding.as_ptr(),
                columns: columns.as_mut_ptr(),
                input,
                output: [first, second],
            };
            for block in &depthwise.blocks {
                // SAFETY: as for the caller.
                unsafe {
                    match block.width {
                        Width::Wide => compute::<S, S::Wide>(depthwise, block, &place),
                        Width::Half => compute::<S, S::Half>(depthwise, block, &place),
                        Width::Quarter => compute::<S, S::Quarter>(depthwise, block, &place),
                    }
                }
            }
        }
    }
}

/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn compute<S: Set, D: Dot>(depthwise: &Depthwise<S>, block: &Block, place: &Place) {
    // SAFETY: as for the caller.
    unsafe {
        interleave_columns::<S, D>(depthwise, block, place);
        match (depthwise.rows, depthwise.groups) {
            (2, 1) => sum_columns::<S, D, 2, 1>(depthwise, block, place),
            (2, _) => sum_columns::<S, D, 2, 0>(depthwise, block, place),
            (_, 1) => sum_columns::<S, D, 1, 1>(depthwise, block, place),
            (_, _) => sum_columns::<S, D, 1, 0>(depthwise, block, place),
        }
    }
}

/// Fills the columns under a chunk: column x group of rows x four vectors.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn interleave_columns<S: Set, D: Dot>(
    depthwise: &Depthwise<S>,
    block: &Block,
    place: &Place,
) {
    let window = &depthwise.window;
    let vector = lanes::<D>() * 4;
    let column_len = depthwise.groups * 4 * vector;
    let left = place.x.start * window.stride[1];
    let count = (place.x.len() - 1) * window.stride[1] + window.kernel[1];
    // Columns inside the picture.
    let from = window.left.saturating_sub(left).min(count);
    let to = (window.left + window.width)
        .saturating_sub(left)
        .clamp(from, count);
    let skipped = (left + from).saturating_sub(window.left) * window.channels + block.first;
    // SAFETY: as for the caller; a block may read as far as its vectors beyond its channels: that is within the slack.
    unsafe {
        for group in 0..depthwise.groups {
            let mut rows = [place.padding; 4];
            for (i, row) in rows.iter_mut().enumerate().take(D::TAPS) {
                let y = (place.y * window.stride[0] + group * D::TAPS + i).wrapping_sub(window.top);
                *row = if y < window.height {
                    place
                        .input
                        .as_ptr()
                        .add(y * window.width * window.channels + skipped)
                } else {
                    place.padding
                };
            }
            let mut columns = place.columns.add(group * 4 * vector);
            let padding = if D::TAPS == 4 {
                D::V::splat_8(depthwise.input_zero_point)
            } else {
                D::V::splat_16(i16::from(depthwise.input_zero_point))
            };
            for i in (0..from).chain(to..count) {
                for j in 0..4 {
                    D::V::store(columns.add(i * column_len + j * vector), padding);
                }
            }
            columns = columns.add(from * column_len);
            let mut at = 0;
            for _ in from..to {
                let pixels = rows.map(|row| row.wrapping_add(at));
                let mixed = interleave::<D>(pixels);
                for (j, mixed) in mixed.into_iter().enumerate() {
                    D::V::store(columns.add(j * vector), mixed);
                }
                columns = columns.add(column_len);
                at += window.channels;
            }
        }
    }
}

/// All output columns of a chunk, `ROWS` output rows; `GROUPS` of 0 is any number.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn sum_columns<S: Set, D: Dot, const ROWS: usize, const GROUPS: usize>(
    depthwise: &Depthwise<S>,
    block: &Block,
    place: &Place,
) {
    let width = place.x.len();
    let mut x = 0;
    // SAFETY: as for the caller.
    unsafe {
        // A quarter of the registers, or half of them, for sums.
        while S::REGISTERS == 32 && ROWS == 1 && x + 4 <= width {
            sum::<S, D, ROWS, GROUPS, 4>(depthwise, block, place, x);
            x += 4;
        }
        while (S::REGISTERS == 32 || ROWS == 1) && x + 2 <= width {
            sum::<S, D, ROWS, GROUPS, 2>(depthwise, block, place, x);
            x += 2;
        }
        while x < width {
            sum::<S, D, ROWS, GROUPS, 1>(depthwise, block, place, x);
            x += 1;
        }
    }
}

/// `COLUMNS` output columns from `x` of the chunk on.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn sum<S: Set, D: Dot, const ROWS: usize, const GROUPS: usize, const COLUMNS: usize>(
    depthwise: &Depthwise<S>,
    block: &Block,
    place: &Place,
    x: usize,
) {
    let window = &depthwise.window;
    let vector = lanes::<D>() * 4;
    let groups = if GROUPS == 0 {
        depthwise.groups
    } else {
        GROUPS
    };
    let column_len = groups * 4 * vector;
    let step = window.stride[1] * column_len;
    // SAFETY: as for the caller: the columns under the kernel at these output columns have been interleaved.
    unsafe {
        let zero = D::V::splat_32(0);
        let bias = depthwise.bias.at::<u8>(block.lanes * 4);
        let mut sums = [[[zero; 4]; ROWS]; COLUMNS];
        for j in 0..4 {
            let bias = D::V::load(bias.add(j * vector));
            for sums in sums.as_flattened_mut() {
                sums[j] = bias;
            }
        }
        let mut weights = depthwise.weights.at(block.weights);
        let mut columns = place.columns.cast_const().add(x * step);
        for _ in 0..window.kernel[1] * groups {
            for j in 0..4 {
                let mut w = [zero; ROWS];
                for w in &mut w {
                    *w = D::V::load(weights);
                    weights = weights.add(vector);
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let pixels = D::V::load(columns.wrapping_add(i * step).add(j * vector));
                    for (sums, w) in sums.iter_mut().zip(w) {
                        sums[j] = D::dot(sums[j], pixels, w);
                    }
                }
            }
            columns = columns.add(4 * vector);
        }
        let scales = depthwise.scales.at::<f32>(block.lanes);
        let mut s = [D::V::load_floats(scales); 4];
        for (j, s) in s.iter_mut().enumerate() {
            *s = D::V::load_floats(scales.add(j * lanes::<D>()));
        }
        let zero_point = D::V::splat_16(i16::from(depthwise.output_zero_point));
        for (i, sums) in sums.into_iter().enumerate() {
            for (output, [a, b, c, d]) in place.output.into_iter().zip(sums) {
                let low = D::V::pack_32(scale(a, s[0]), scale(b, s[1]));
                let high = D::V::pack_32(scale(c, s[2]), scale(d, s[3]));
                let bytes = D::V::pack_16(
                    D::V::add_saturating_16(low, zero_point),
                    D::V::add_saturating_16(high, zero_point),
                );
                let to = output.wrapping_add((x + i) * window.channels + block.first);
                if block.channels == vector {
                    D::V::store(to, bytes);
                } else {
                    D::V::store_first(to, bytes, block.channels);
                }
            }
        }
    }
}
