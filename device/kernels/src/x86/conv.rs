//! Dense convolution as a matrix product of output positions and output channels, without building the matrix: a tile
//! reads the bytes under the kernel where they lie, row of the kernel after row, as each row is contiguous in NHWC.
//!
//! Only where the kernel reaches into padding, or where the dot product wants wider values, are a few rows of the
//! picture copied first ("staged").

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::scratch::{Packed, cut, len_of};
use super::vector::{Dot, Vector, scale};
use crate::SLACK;
use crate::operator::Kernel;
use crate::operators;
use crate::window::Window;

/// Input and output bytes that are kept in the second-level cache while all channels are computed from them.
const BAND: usize = 192 * 1024;

/// The widest vector of a set.
type Wide<S> = <<S as Set>::Wide as Dot>::V;

/// Output channels that are computed together, as wide as their vectors.
#[derive(Debug, Clone, Copy)]
enum Width {
    Pair,
    One,
    Half,
}

#[derive(Debug, Clone, Copy)]
struct Panel {
    width: Width,
    /// First output channel.
    first: usize,
    /// Output channels, at most the lanes of the vectors.
    channels: usize,
    /// Where its weights start, in bytes; and its lanes, in the bias and scales.
    weights: usize,
    lanes: usize,
}

#[derive(Debug)]
pub(super) struct Conv<S: Set> {
    window: Window,
    channels: usize,
    panels: Vec<Panel>,
    /// Panel x kernel row x step x vector x lane x tap.
    weights: Packed,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
    staged: bool,
    /// Output rows in a band.
    band: usize,
    /// Bytes from the first one under the kernel to each group of taps.
    steps: Vec<u32>,
    set: PhantomData<S>,
}

impl<S: Set> Conv<S> {
    pub(super) fn new(conv: &operators::Conv) -> Conv<S> {
        let taps = <S::Wide as Dot>::TAPS;
        let wide = Wide::<S>::LANES;
        let half = <<S::Half as Dot>::V as Vector>::LANES;
        let [height, width] = conv.window.kernel;
        let row = width * conv.window.channels;
        let mut panels = vec![];
        let (mut weights, mut bias, mut scales) = (vec![], vec![], vec![]);
        let mut first = 0;
        while first < conv.channels {
            let (width, vectors, lanes) = match conv.channels - first {
                left if left > wide + half => (Width::Pair, 2, wide),
                left if left > half => (Width::One, 1, wide),
                _ => (Width::Half, 1, half),
            };
            panels.push(Panel {
                width,
                first,
                channels: (conv.channels - first).min(vectors * lanes),
                weights: weights.len() * (4 / taps),
                lanes: bias.len(),
            });
            // Within 128 bits, two vectors hold eight neighbours: so their bytes come out in order when packed.
            let order = |vector: usize, lane: usize| match vectors {
                2 => first + lane / 4 * 8 + vector * 4 + lane % 4,
                _ => first + lane,
            };
            for kernel_row in 0..height {
                for step in (0..row).step_by(taps) {
                    for (vector, lane) in lanes_of(vectors, lanes) {
                        let channel = order(vector, lane);
                        let weight = |tap: usize| match step + tap {
                            i if i < row && channel < conv.channels => {
                                conv.weights[(channel * height + kernel_row) * row + i]
                            }
                            _ => 0,
                        };
                        weights.extend((0..taps).map(weight));
                    }
                }
            }
            for (vector, lane) in lanes_of(vectors, lanes) {
                let channel = order(vector, lane);
                bias.push(conv.bias.get(channel).copied().unwrap_or(0));
                scales.push(conv.requantize.scales.get(channel).copied().unwrap_or(0.0));
            }
            first += vectors * lanes;
        }
        let mut window = conv.window;
        if window.kernel == [1, 1] && window.stride == [1, 1] {
            // Every position is alike: one column of them makes bands of any length.
            (window.height, window.width) = (window.positions(), 1);
            (window.out_height, window.out_width) = (window.height, 1);
        }
        let value = 4 / taps;
        let staged = window.reaches_padding() || value > 1;
        let row_len = match staged {
            true => window.reach()[1] * window.channels * value,
            false => window.width * window.channels,
        };
        let starts = (0..height).map(|kernel_row| kernel_row * row_len);
        let steps = starts.flat_map(|start| {
            (0..row)
                .step_by(taps)
                .map(move |i| (start + i * value) as u32)
        });
        let out_row = window.reach()[1] * window.stride[0] * window.channels * value
            + window.out_width * conv.channels;
        Conv {
            window,
            channels: conv.channels,
            panels,
            weights: if taps == 4 {
                Packed::bytes(&weights)
            } else {
                Packed::words(&weights.iter().map(|w| i16::from(*w)).collect::<Vec<i16>>())
            },
            bias: Packed::integers(&bias),
            scales: Packed::floats(&scales),
            input_zero_point: conv.input_zero_point,
            output_zero_point: conv.requantize.zero_point,
            staged,
            steps: steps.collect(),
            band: (BAND / out_row)
                .next_multiple_of(if window.out_width == 1 { S::ROWS } else { 1 })
                .clamp(1, window.out_height),
            set: PhantomData,
        }
    }

    /// Bytes of one staged value.
    const VALUE: usize = 4 / <S::Wide as Dot>::TAPS;

    /// Pixels of a staged row, and rows of a band.
    fn stage(&self) -> [usize; 2] {
        [
            self.window.reach()[1],
            (self.band - 1) * self.window.stride[0] + self.window.kernel[0],
        ]
    }

    /// Bytes of scratch: the offset of each position of a band, the staged rows.
    fn pieces(&self) -> [usize; 2] {
        let [pixels, rows] = self.stage();
        let staged = pixels * rows * self.window.channels * Self::VALUE + SLACK;
        [
            self.band * self.window.out_width * size_of::<u32>(),
            if self.staged { staged } else { 0 },
        ]
    }
}

fn lanes_of(vectors: usize, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..vectors).flat_map(move |vector| (0..lanes).map(move |lane| (vector, lane)))
}

impl<S: Set> Kernel for Conv<S> {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        S::ROWS
    }

    fn run(
        &self,
        positions: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [u8],
        scratch: &mut [u8],
    ) {
        // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
        unsafe { S::conv(self, positions, inputs[0], output, scratch) }
    }
}

/// # Safety
/// The processor has the set; `input` is the whole input with its slack, `output` the part of `positions`, `scratch` as
/// long as `scratch_len`.
#[inline(always)]
pub(super) unsafe fn run<S: Set>(
    conv: &Conv<S>,
    positions: Range<usize>,
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) {
    let window = &conv.window;
    let [offsets, stage] = cut(scratch, conv.pieces());
    let offsets = offsets.as_mut_ptr().cast::<u32>();
    let mut start = positions.start;
    while start < positions.end {
        let first_row = start / window.out_width;
        let end = ((first_row + conv.band) * window.out_width).min(positions.end);
        let rows = (end - 1) / window.out_width + 1 - first_row;
        let (base, row_len, pixel_len) = if conv.staged {
            // SAFETY: as for the caller.
            unsafe { stage_rows(conv, first_row, rows, input, stage) };
            let pixel = window.channels * Conv::<S>::VALUE;
            (stage.as_ptr(), conv.stage()[0] * pixel, pixel)
        } else {
            let row = window.width * window.channels;
            let base = input[first_row * window.stride[0] * row..].as_ptr();
            (base, row, window.channels)
        };
        let (mut x, mut row) = (start % window.out_width, 0);
        for i in 0..end - start {
            let offset = row * window.stride[0] * row_len + x * window.stride[1] * pixel_len;
            // SAFETY: `end - start` is at most the positions of a band, each of which has an offset.
            unsafe { offsets.add(i).write(offset as u32) };
            x += 1;
            if x == window.out_width {
                (x, row) = (0, row + 1);
            }
        }
        let band = Band {
            base,
            offsets,
            count: end - start,
            steps: &conv.steps,
            output: output[(start - positions.start) * conv.channels..].as_mut_ptr(),
            stride: conv.channels,
            zero_point: conv.output_zero_point,
        };
        for panel in &conv.panels {
            // SAFETY: the offsets lead to whole kernels within the input or stage, with slack behind; the panel has
            // weights for them and channels in the output.
            unsafe {
                let weights = conv.weights.at(panel.weights);
                let bias = conv.bias.at(panel.lanes * 4);
                let scales = conv.scales.at(panel.lanes * 4).cast();
                let lanes = Lanes {
                    weights,
                    bias,
                    scales,
                    first: panel.first,
                    channels: panel.channels,
                };
                match panel.width {
                    Width::Pair => tiles::<S, S::Wide, 2>(&band, &lanes),
                    Width::One => tiles::<S, S::Wide, 1>(&band, &lanes),
                    Width::Half => tiles::<S, S::Half, 1>(&band, &lanes),
                }
            }
        }
        start = end;
    }
}

/// Copies what the kernel sees of output rows `first..first + rows`, with padding around it.
///
/// # Safety
/// As for [`run`]; `stage` holds the rows of a band.
#[inline(always)]
unsafe fn stage_rows<S: Set>(
    conv: &Conv<S>,
    first: usize,
    rows: usize,
    input: &[u8],
    stage: &mut [u8],
) {
    let window = &conv.window;
    let channels = window.channels;
    let [pixels, _] = conv.stage();
    let seen = (pixels - window.left).min(window.width);
    let row_len = pixels * channels;
    for row in 0..(rows - 1) * window.stride[0] + window.kernel[0] {
        let staged =
            &mut stage[row * row_len * Conv::<S>::VALUE..][..row_len * Conv::<S>::VALUE + SLACK];
        let y = (first * window.stride[0] + row).wrapping_sub(window.top);
        let (left, middle) = if y < window.height {
            (window.left * channels, seen * channels)
        } else {
            (row_len, 0)
        };
        let source = y.min(window.height - 1) * window.width * channels;
        if Conv::<S>::VALUE == 1 {
            staged[..left].fill(conv.input_zero_point);
            staged[left..left + middle].copy_from_slice(&input[source..source + middle]);
            staged[left + middle..row_len].fill(conv.input_zero_point);
        } else {
            // SAFETY: widening writes whole vectors, less than the slack too far, in the order of the row; reading
            // overruns the input by less than its slack.
            unsafe {
                let to = staged.as_mut_ptr();
                fill_words::<S>(to, left, conv.input_zero_point);
                widen::<S>(to.add(left * 2), input[source..].as_ptr(), middle);
                let right = left + middle;
                fill_words::<S>(to.add(right * 2), row_len - right, conv.input_zero_point);
            }
        }
    }
}

/// # Safety
/// As for [`run`]; `to` has a vector more than `count` words.
#[inline(always)]
unsafe fn fill_words<S: Set>(to: *mut u8, count: usize, value: u8) {
    for at in (0..count).step_by(Wide::<S>::LANES * 2) {
        // SAFETY: as for the caller.
        unsafe { Wide::<S>::store(to.add(at * 2), Wide::<S>::splat_16(i16::from(value))) };
    }
}

/// # Safety
/// As for [`run`]; `to` has a vector more than `count` words, `from` a vector more than `count` bytes.
#[inline(always)]
unsafe fn widen<S: Set>(to: *mut u8, from: *const u8, count: usize) {
    for at in (0..count).step_by(Wide::<S>::LANES * 2) {
        // SAFETY: as for the caller.
        unsafe { Wide::<S>::store(to.add(at * 2), Wide::<S>::widen_8_to_16(from.add(at))) };
    }
}

/// Positions whose channels are all computed before the next ones.
struct Band<'a> {
    /// The first byte under the kernel is at `base` plus the position's offset.
    base: *const u8,
    offsets: *const u32,
    count: usize,
    /// Bytes from there to each group of taps.
    steps: &'a [u32],
    output: *mut u8,
    /// Bytes from one position of the output to the next.
    stride: usize,
    zero_point: u8,
}

/// The weights of a panel, and where its channels go.
struct Lanes {
    weights: *const u8,
    bias: *const u8,
    scales: *const f32,
    first: usize,
    channels: usize,
}

/// All positions of a band, in tiles of about the same height.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn tiles<S: Set, D: Dot, const VECTORS: usize>(band: &Band, lanes: &Lanes) {
    let tiles = band.count.div_ceil(S::ROWS);
    let (height, higher) = (band.count / tiles, band.count % tiles);
    let mut offsets = band.offsets;
    let mut output = band.output.wrapping_add(lanes.first);
    for i in 0..tiles {
        let rows = height + usize::from(i < higher);
        macro_rules! tile {
            ($($rows:literal)*) => {
                match rows {
                    // SAFETY: as for the caller: as many positions are left.
                    $($rows if $rows <= S::ROWS => unsafe {
                        tile::<D, $rows, VECTORS>(band, lanes, offsets, output)
                    },)*
                    _ => {}
                }
            };
        }
        tile!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
        offsets = offsets.wrapping_add(rows);
        output = output.wrapping_add(rows.wrapping_mul(band.stride));
    }
}

/// `ROWS` positions: where they start in the input, and the first one in the output.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn tile<D: Dot, const ROWS: usize, const VECTORS: usize>(
    band: &Band,
    lanes: &Lanes,
    offsets: *const u32,
    output: *mut u8,
) {
    let vector = D::V::LANES * 4;
    // SAFETY: as for the caller: from each offset on, the bytes of every step can be read; there are as many weights.
    unsafe {
        let mut rows = [band.base; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = band.base.add(*offsets.add(i) as usize);
        }
        let mut sums = [[D::V::splat_32(0); VECTORS]; ROWS];
        for v in 0..VECTORS {
            let bias = D::V::load(lanes.bias.add(v * vector));
            for sums in &mut sums {
                sums[v] = bias;
            }
        }
        let mut weights = lanes.weights;
        for step in band.steps {
            let mut w = [D::V::splat_32(0); VECTORS];
            for (v, w) in w.iter_mut().enumerate() {
                *w = D::V::load(weights.add(v * vector));
            }
            weights = weights.add(VECTORS * vector);
            let mut at = *step as usize;
            for (sums, row) in sums.iter_mut().zip(rows) {
                let x = row.add(at).cast::<i32>().read_unaligned();
                let x = D::V::splat_32(x);
                for v in 0..VECTORS {
                    sums[v] = D::dot(sums[v], x, w[v]);
                    // Else the compiler loads all rows first, and has no registers left for the sums.
                    at = D::V::after(sums[v], at);
                }
            }
        }
        store::<D::V, ROWS, VECTORS>(band, lanes, output, sums);
    }
}

/// Requantizes and stores a tile, which fills whole vectors of bytes with two or four of its rows.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn store<V: Vector, const ROWS: usize, const VECTORS: usize>(
    band: &Band,
    lanes: &Lanes,
    output: *mut u8,
    sums: [[V; VECTORS]; ROWS],
) {
    let piece = V::LANES * VECTORS;
    // SAFETY: as for the caller: `ROWS` positions follow in the output, each with the panel's channels.
    unsafe {
        let zero_point = V::splat_16(i16::from(band.zero_point));
        let mut scales = [V::load_floats(lanes.scales); VECTORS];
        for (v, scales) in scales.iter_mut().enumerate() {
            *scales = V::load_floats(lanes.scales.add(v * V::LANES));
        }
        // Beyond the last row, the last row again: storing it twice does no harm.
        let mut to = [output; ROWS];
        for i in 1..ROWS {
            to[i] = to[i - 1].wrapping_add(band.stride);
        }
        for row in (0..ROWS).step_by(4 / VECTORS) {
            let [a, b, c, d] = [row, row + 1, row + 2, row + 3].map(|row| row.min(ROWS - 1));
            let (low, high) = if VECTORS == 2 {
                (
                    words(sums[a][0], scales[0], sums[a][1], scales[1]),
                    words(sums[b][0], scales[0], sums[b][1], scales[1]),
                )
            } else {
                (
                    words(sums[a][0], scales[0], sums[b][0], scales[0]),
                    words(sums[c][0], scales[0], sums[d][0], scales[0]),
                )
            };
            let bytes = V::pack_16(
                V::add_saturating_16(low, zero_point),
                V::add_saturating_16(high, zero_point),
            );
            let bytes = if VECTORS == 2 {
                V::gather_halves(bytes)
            } else {
                V::gather_quarters(bytes)
            };
            if lanes.channels < piece {
                let mut ordered = [0u8; 64];
                V::store(ordered.as_mut_ptr(), bytes);
                let rows = ordered[..V::LANES * 4].chunks_exact(piece);
                for (from, to) in rows.zip(&to[row..]) {
                    std::ptr::copy_nonoverlapping(from.as_ptr(), *to, lanes.channels);
                }
            } else if VECTORS == 2 {
                V::store_halves([to[a], to[b]], bytes);
            } else {
                V::store_quarters([to[a], to[b], to[c], to[d]], bytes);
            }
        }
    }
}

/// Two vectors of sums as 16-bit integers.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
unsafe fn words<V: Vector>(a: V, a_scales: V::Floats, b: V, b_scales: V::Floats) -> V {
    // SAFETY: as for the caller.
    unsafe { V::pack_32(scale(a, a_scales), scale(b, b_scales)) }
}
