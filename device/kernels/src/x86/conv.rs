//! Dense convolution as a matrix product of output positions and output channels, without building the matrix: a tile
//! reads the bytes under the kernel where they lie, row of the kernel after row, as each row is contiguous in NHWC.
//!
//! Only where the kernel reaches into padding are a few rows of the picture copied first ("staged").
//!
//! Where a dot product of bytes is not exact for all weights, the groups of taps that it is exact for are summed first, the
//! others over bytes widened to 16 bits ("words").

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::vector::{Dot, Vector, fits, scale};
use crate::SLACK;
use crate::groups::{self, Row};
use crate::memory::AlignedBytes;
use crate::operator::Kernel;
use crate::operators;
use crate::packed::{Packed, cut, len_of};
use crate::window::Window;

/// Input and output bytes that are kept in the second-level cache while all channels are computed from them.
const BAND: usize = 192 * 1024;

/// Products of one lane in a step over bytes.
const TAPS: usize = 4;

/// The widest vector of a set.
type Wide<S> = <<S as Set>::Wide as Dot>::V;

/// Output channels that are computed together, as wide as their vectors.
#[derive(Debug, Clone, Copy)]
enum Width {
    Pair,
    One,
    Half,
}

#[derive(Debug, Clone)]
struct Panel {
    width: Width,
    /// First output channel.
    first: usize,
    /// Output channels, at most the lanes of the vectors.
    channels: usize,
    /// Its lanes in the bias and scales.
    lanes: usize,
    /// Steps over bytes, and where their weights start.
    byte_steps: Range<usize>,
    byte_weights: usize,
    /// Steps over bytes widened to 16 bits, and where their weights start.
    word_steps: Range<usize>,
    word_weights: usize,
}

#[derive(Debug)]
pub(super) struct Conv<S: Set> {
    window: Window,
    channels: usize,
    panels: Vec<Panel>,
    /// Bytes from the first one under the kernel to the group of taps of a step.
    steps: Vec<u32>,
    /// Panel x step x vector x lane x 4 taps.
    byte_weights: Packed,
    /// Panel x step x vector x lane x 2 taps.
    word_weights: Packed,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
    /// Output rows in a band.
    band: usize,
    set: PhantomData<S>,
}

impl<S: Set> Conv<S> {
    pub(super) fn new(conv: &operators::Conv) -> Conv<S> {
        const { assert!(<S::Wide as Dot>::TAPS == TAPS && <S::Half as Dot>::TAPS == TAPS) };
        let half = <<S::Half as Dot>::V as Vector>::LANES;
        let wide = Wide::<S>::LANES;
        let mut window = conv.window;
        if window.kernel == [1, 1] && window.stride == [1, 1] {
            // Every position is alike: one column of them makes bands of any length.
            (window.height, window.width) = (window.positions(), 1);
            (window.out_height, window.out_width) = (window.height, 1);
        }
        let [height, width] = window.kernel;
        let row = width * window.channels;
        // Groups of four taps, row of the kernel after row.
        let groups_of_row = row.div_ceil(TAPS);
        let groups = height * groups_of_row;
        let offset = |group: usize| {
            let (y, i) = (group / groups_of_row, group % groups_of_row * TAPS);
            (y * seen_row(&window) + i) as u32
        };
        let mut steps: Vec<u32> = (0..groups).map(offset).collect();
        let weights = groups::whole::<TAPS>(&conv.weights, row);
        let (taps, _) = weights.as_chunks::<TAPS>();
        let most = conv.channels.next_multiple_of(half) * groups * TAPS;
        let mut byte_weights = AlignedBytes::with_capacity(most);
        let mut word_weights = AlignedBytes::default();
        let mut panels = vec![];
        let (mut bias, mut scales) = (vec![], vec![]);
        let mut first = 0;
        while first < conv.channels {
            let (width, vectors, lanes) = match conv.channels - first {
                left if left > wide + half => (Width::Pair, 2, wide),
                left if left > half => (Width::One, 1, wide),
                _ => (Width::Half, 1, half),
            };
            let channels = (conv.channels - first).min(vectors * lanes);
            // Within 128 bits, two vectors hold eight neighbours: so their bytes come out in order when packed.
            let lane_of = |channel: usize| match vectors {
                2 => channel / 4 % 2 * lanes + channel / 8 * 4 + channel % 4,
                _ => channel,
            };
            let rows: Vec<Row<TAPS>> = (0..channels)
                .zip(taps[first * groups..].chunks_exact(groups))
                .map(|(channel, row)| (lane_of(channel), row))
                .collect();
            let in_words = if S::Wide::EXACT {
                vec![false; groups]
            } else {
                groups_in_words(&rows, groups)
            };
            let mut panel = Panel {
                width,
                first,
                channels,
                lanes: bias.len(),
                byte_steps: 0..groups,
                byte_weights: byte_weights.len(),
                word_steps: 0..0,
                word_weights: word_weights.len(),
            };
            if in_words.contains(&true) {
                let (words, bytes): (Vec<usize>, Vec<usize>) =
                    (0..groups).partition(|group| in_words[*group]);
                let start = steps.len();
                steps.extend(bytes.iter().map(|group| offset(*group)));
                let middle = steps.len();
                let pairs = words
                    .iter()
                    .flat_map(|group| [offset(*group), offset(*group) + 2]);
                steps.extend(pairs.map(|offset| offset * 2));
                (panel.byte_steps, panel.word_steps) = (start..middle, middle..steps.len());
                groups::pack(&rows, &bytes, vectors * lanes, &mut byte_weights);
                pack_words(&rows, &words, vectors * lanes, &mut word_weights);
            } else {
                let all: Vec<usize> = (0..groups).collect();
                groups::pack(&rows, &all, vectors * lanes, &mut byte_weights);
            }
            panels.push(panel);
            let lane_start = bias.len();
            bias.resize(lane_start + vectors * lanes, 0);
            scales.resize(lane_start + vectors * lanes, 0.0);
            for (channel, (lane, _)) in rows.iter().enumerate() {
                bias[lane_start + lane] = conv.bias[first + channel];
                scales[lane_start + lane] = conv.requantize.scales[first + channel];
            }
            first += vectors * lanes;
        }
        let bytes_of_value = if word_weights.is_empty() { 1 } else { 3 };
        let out_row = seen_row(&window) * window.stride[0] * bytes_of_value
            + window.out_width * conv.channels;
        Conv {
            window,
            channels: conv.channels,
            panels,
            steps,
            byte_weights: byte_weights.into(),
            word_weights: word_weights.into(),
            bias: Packed::integers(&bias),
            scales: Packed::floats(&scales),
            input_zero_point: conv.input_zero_point,
            output_zero_point: conv.requantize.zero_point,
            band: (BAND / out_row)
                .next_multiple_of(if window.out_width == 1 { S::ROWS } else { 1 })
                .clamp(1, window.out_height),
            set: PhantomData,
        }
    }

    /// Bytes of scratch: the offset of each position of a band, its staged rows, the same as words.
    fn pieces(&self) -> [usize; 3] {
        let rows = (self.band - 1) * self.window.stride[0] + self.window.kernel[0];
        let rows = rows * seen_row(&self.window) + SLACK;
        let words = self.panels.iter().any(|panel| !panel.word_steps.is_empty());
        [
            self.band * self.window.out_width * size_of::<u32>(),
            if self.window.reaches_padding() {
                rows
            } else {
                0
            },
            if words { rows * 2 } else { 0 },
        ]
    }
}

/// Which groups of taps no dot product of bytes is exact for, in any of the rows.
fn groups_in_words(rows: &[Row<TAPS>], groups: usize) -> Vec<bool> {
    let mut in_words = vec![false; groups];
    for (_, row) in rows {
        for (in_words, taps) in in_words.iter_mut().zip(*row) {
            *in_words |= taps.chunks(2).any(|pair| !fits(pair.iter()));
        }
    }
    // A few groups over bytes would not be worth a second loop.
    if in_words.iter().filter(|in_words| **in_words).count() > groups * 7 / 8 {
        in_words.fill(true);
    }
    in_words
}

/// Appends `groups` of the rows, which stand beside their lanes: group x pair of taps x lane x 2 taps of 16 bits.
fn pack_words(rows: &[Row<TAPS>], groups: &[usize], lanes: usize, packed: &mut AlignedBytes) {
    let packed = packed.append(groups.len() * lanes * TAPS * 2);
    for (group, packed) in groups.iter().zip(packed.chunks_exact_mut(lanes * TAPS * 2)) {
        let (to, _) = packed.as_chunks_mut::<4>();
        for (lane, row) in rows {
            let [a, b, c, d] = row[*group].map(|tap| i16::from(tap).to_ne_bytes());
            to[*lane] = [a[0], a[1], b[0], b[1]];
            to[lanes + lane] = [c[0], c[1], d[0], d[1]];
        }
    }
}

/// Bytes of a row as the kernel sees it: of the input, or of the stage where it reaches into padding.
fn seen_row(window: &Window) -> usize {
    let pixels = match window.reaches_padding() {
        true => window.reach()[1],
        false => window.width,
    };
    pixels * window.channels
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
    let [offsets, stage, words] = cut(scratch, conv.pieces());
    let offsets = offsets.as_mut_ptr().cast::<u32>();
    let row_len = seen_row(window);
    let mut start = positions.start;
    while start < positions.end {
        let first_row = start / window.out_width;
        let end = ((first_row + conv.band) * window.out_width).min(positions.end);
        let rows = (end - 1) / window.out_width - first_row;
        let seen_rows = rows * window.stride[0] + window.kernel[0];
        let bytes = if stage.is_empty() {
            input[first_row * window.stride[0] * row_len..].as_ptr()
        } else {
            stage_rows(conv, first_row, seen_rows, input, stage);
            stage.as_ptr()
        };
        if !words.is_empty() {
            // SAFETY: as for the caller: so many rows are in the input or stage and fit the words; vectors overrun them by
            // less than their slack.
            unsafe { widen::<Wide<S>>(words.as_mut_ptr(), bytes, seen_rows * row_len) };
        }
        let (mut x, mut row) = (start % window.out_width, 0);
        for i in 0..end - start {
            let offset = row * window.stride[0] * row_len + x * window.stride[1] * window.channels;
            // SAFETY: `end - start` is at most the positions of a band, each of which has an offset.
            unsafe { offsets.add(i).write(offset as u32) };
            x += 1;
            if x == window.out_width {
                (x, row) = (0, row + 1);
            }
        }
        let band = Band {
            bytes,
            words: words.as_ptr(),
            offsets,
            count: end - start,
            output: output[(start - positions.start) * conv.channels..].as_mut_ptr(),
            stride: conv.channels,
            zero_point: conv.output_zero_point,
        };
        for panel in &conv.panels {
            let lanes = Lanes {
                byte_steps: &conv.steps[panel.byte_steps.clone()],
                byte_weights: conv.byte_weights.at(panel.byte_weights),
                word_steps: &conv.steps[panel.word_steps.clone()],
                word_weights: conv.word_weights.at(panel.word_weights),
                bias: conv.bias.at(panel.lanes * 4),
                scales: conv.scales.at(panel.lanes),
                first: panel.first,
                channels: panel.channels,
            };
            // SAFETY: as for the caller: the offsets lead to whole kernels within the input or stage, with slack behind; the
            // panel has weights for them and channels in the output.
            unsafe {
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

/// Copies `rows` rows that the kernel sees from output row `first` on, with padding around them.
fn stage_rows<S: Set>(conv: &Conv<S>, first: usize, rows: usize, input: &[u8], stage: &mut [u8]) {
    let window = &conv.window;
    let channels = window.channels;
    let row_len = seen_row(window);
    let left = window.left * channels;
    let middle = (row_len - left).min(window.width * channels);
    for (row, staged) in stage.chunks_exact_mut(row_len).enumerate().take(rows) {
        let y = (first * window.stride[0] + row).wrapping_sub(window.top);
        if y < window.height {
            let input = &input[y * window.width * channels..][..middle];
            staged[..left].fill(conv.input_zero_point);
            staged[left..left + middle].copy_from_slice(input);
            staged[left + middle..].fill(conv.input_zero_point);
        } else {
            staged.fill(conv.input_zero_point);
        }
    }
}

/// # Safety
/// The processor has the vector; `to` has a vector more than `count` words, `from` a vector more than `count` bytes.
#[inline(always)]
unsafe fn widen<V: Vector>(to: *mut u8, from: *const u8, count: usize) {
    for at in (0..count).step_by(V::LANES * 2) {
        // SAFETY: as for the caller.
        unsafe { V::store(to.add(at * 2), V::widen_8_to_16(from.add(at))) };
    }
}

/// Positions whose channels are all computed before the next ones.
struct Band {
    /// The first byte under the kernel is at `bytes` plus the position's offset, the same as a word at `words` plus twice
    /// that.
    bytes: *const u8,
    words: *const u8,
    offsets: *const u32,
    count: usize,
    output: *mut u8,
    /// Bytes from one position of the output to the next.
    stride: usize,
    zero_point: u8,
}

/// The weights of a panel, and where its channels go.
struct Lanes<'a> {
    byte_steps: &'a [u32],
    byte_weights: *const u8,
    word_steps: &'a [u32],
    word_weights: *const u8,
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
        let mut sums = [[D::V::splat_32(0); VECTORS]; ROWS];
        for v in 0..VECTORS {
            let bias = D::V::load(lanes.bias.add(v * vector));
            for sums in &mut sums {
                sums[v] = bias;
            }
        }
        let mut rows = [band.bytes; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = band.bytes.add(*offsets.add(i) as usize);
        }
        sum::<D, false, ROWS, VECTORS>(lanes.byte_steps, rows, lanes.byte_weights, &mut sums);
        if !D::EXACT && !lanes.word_steps.is_empty() {
            for (i, row) in rows.iter_mut().enumerate() {
                *row = band.words.add(2 * *offsets.add(i) as usize);
            }
            sum::<D, true, ROWS, VECTORS>(lanes.word_steps, rows, lanes.word_weights, &mut sums);
        }
        store::<D::V, ROWS, VECTORS>(band, lanes, output, sums);
    }
}

/// Adds the products of all `steps`, over words or bytes, to the sums of a tile.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn sum<D: Dot, const WORDS: bool, const ROWS: usize, const VECTORS: usize>(
    steps: &[u32],
    rows: [*const u8; ROWS],
    mut weights: *const u8,
    sums: &mut [[D::V; VECTORS]; ROWS],
) {
    let vector = D::V::LANES * 4;
    // SAFETY: as for the caller: at each step from each row on there are four bytes, or two words; and as many weights.
    unsafe {
        for step in steps {
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
                    sums[v] = if WORDS {
                        D::V::add_32(sums[v], D::V::multiply_pairs_16(x, w[v]))
                    } else {
                        D::dot(sums[v], x, w[v])
                    };
                    // Else the compiler loads all rows first, and has no registers left for the sums.
                    at = D::V::after(sums[v], at);
                }
            }
        }
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
