//! Depthwise convolution of square kernels of 3 and 5 and strides of 1 and 2, whichever instructions multiply.
//!
//! Channels are taken 16 at a time. What the kernel sees of a few output rows is first laid out, padding included, in two
//! halves of 8 channels, column after column. Each half is then computed a few neighbouring outputs at a time.

use std::arch::aarch64::*;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

use super::vector::{LANES, requantize, store_first, zero_point};
use crate::SLACK;
use crate::operator::Kernel;
use crate::operators::Depthwise;
use crate::packed::{Packed, cut, len_of, padded};
use crate::window::Window;

/// Channels that are computed together.
pub(super) const HALF: usize = LANES / 2;

/// Neighbouring outputs that are computed together.
const OUTPUTS: usize = 4;

/// What is laid out of one block of channels stays in the first-level cache.
const LAYOUT: usize = 24 * 1024;

/// Most padded rows that are laid out together.
const ROWS: usize = 11;

/// How one instruction set lays out what the kernel sees, and multiplies it.
pub(super) trait Taps: Debug + Send + Sync + Sized + 'static {
    /// Output rows that are laid out together, at most.
    fn rows(kernel: usize, stride: usize) -> usize;

    /// Padded rows that are laid out for `rows` output rows: those that they see, or more.
    fn seen(kernel: usize, stride: usize, rows: usize) -> usize;

    /// Bytes of a column of half a block, of `rows` padded rows.
    fn column_len(rows: usize) -> usize;

    /// What the next output row finds further on: in a layout of rows of `line` bytes, and in the weights.
    fn next_row(kernel: usize, stride: usize, line: usize) -> [usize; 2];

    /// Bytes of the weights of half a block.
    fn weights_len(kernel: usize, stride: usize) -> usize;

    /// The weights, half after half, and the folded biases.
    fn pack(depthwise: &Depthwise) -> [Packed; 2];

    /// # Safety
    /// The processor has the instruction set. Each of the rows has its columns, with a vector at the last; `layout` has
    /// two halves of all columns.
    unsafe fn lay_out<const KERNEL: usize>(seen: &Seen, layout: *mut u8);

    /// Bytes from one column that an output sees to the next.
    fn step(kernel: usize) -> usize;

    /// The sums of `COUNT` neighbouring outputs of half a block, from these columns on.
    ///
    /// # Safety
    /// The processor has the instruction set. What the outputs see is laid out from `columns` on; `row` is of this layout.
    unsafe fn sums<const KERNEL: usize, const STRIDE: usize, const COUNT: usize>(
        columns: *const u8,
        row: &Row,
    ) -> [[int32x4_t; 2]; COUNT];

    /// [`run`] with the features of the instruction set.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn run<const KERNEL: usize, const STRIDE: usize>(layout: *const u8, row: &Row);
}

/// Computes a row of outputs of half a block, a few neighbours at a time.
///
/// # Safety
/// The processor has the instruction set. What the outputs see is laid out from `layout` on; `row` is of this layout.
#[inline(always)]
pub(super) unsafe fn run<T: Taps, const KERNEL: usize, const STRIDE: usize>(
    layout: *const u8,
    row: &Row,
) {
    let step = STRIDE * T::step(KERNEL);
    let mut columns = layout;
    let mut output = row.output;
    let mut left = row.outputs;
    // SAFETY: the caller vouches for the columns of all outputs.
    unsafe {
        while left >= OUTPUTS {
            let sums = T::sums::<KERNEL, STRIDE, OUTPUTS>(columns, row);
            output = row.finish(sums, output);
            columns = columns.add(OUTPUTS * step);
            left -= OUTPUTS;
        }
        for _ in 0..left {
            let sums = T::sums::<KERNEL, STRIDE, 1>(columns, row);
            output = row.finish(sums, output);
            columns = columns.add(step);
        }
    }
}

/// The padded rows that some outputs see, from the first channel of a block on.
#[derive(Debug)]
pub(super) struct Seen {
    rows: [*const u8; ROWS],
    count: usize,
    /// Columns of padding, columns of the input, all columns.
    pub(super) before: usize,
    pub(super) width: usize,
    pub(super) columns: usize,
    /// Bytes from one column to the next.
    pub(super) step: usize,
    pub(super) zero_point: u8,
}

impl Seen {
    pub(super) fn rows(&self) -> &[*const u8] {
        &self.rows[..self.count]
    }
}

/// A row of outputs of half a block.
#[derive(Debug)]
pub(super) struct Row {
    /// Bytes from one padded row to the next in the layout.
    pub(super) line: usize,
    pub(super) weights: *const i8,
    pub(super) bias: *const i32,
    scales: *const f32,
    zero_point: int16x8_t,
    /// Outputs, and channels of each.
    pub(super) outputs: usize,
    channels: usize,
    /// Where the first output belongs; bytes to the next.
    pub(super) output: *mut u8,
    step: usize,
}

impl Row {
    /// Requantizes and stores neighbouring outputs; returns where the next one belongs.
    ///
    /// # Safety
    /// The outputs exist.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn finish<const COUNT: usize>(
        &self,
        sums: [[int32x4_t; 2]; COUNT],
        mut output: *mut u8,
    ) -> *mut u8 {
        // SAFETY: there are scales for 8 channels; the caller vouches for the outputs.
        unsafe {
            let (low, high) = (vld1q_f32(self.scales), vld1q_f32(self.scales.add(4)));
            for pair in sums.chunks(2) {
                let (first, second) = (pair[0], pair[pair.len() - 1]);
                let sums = [first[0], first[1], second[0], second[1]];
                let bytes = requantize(sums, [low, high, low, high], self.zero_point);
                if self.channels < HALF {
                    self.store_some(bytes, pair.len(), output);
                } else {
                    vst1_u8(output, vget_low_u8(bytes));
                    if pair.len() == 2 {
                        let second = output.add(self.step);
                        vst1q_lane_u64::<1>(second.cast(), vreinterpretq_u64_u8(bytes));
                    }
                }
                output = output.add(pair.len() * self.step);
            }
        }
        output
    }

    /// Stores one or two outputs of less than 8 channels.
    ///
    /// # Safety
    /// The outputs exist.
    #[cold]
    #[target_feature(enable = "neon")]
    unsafe fn store_some(&self, bytes: uint8x16_t, count: usize, output: *mut u8) {
        // SAFETY: as for the caller.
        unsafe {
            store_first(output, bytes, self.channels);
            if count == 2 {
                store_first(
                    output.add(self.step),
                    vextq_u8::<8>(bytes, bytes),
                    self.channels,
                );
            }
        }
    }
}

/// Repeats code for each value of a constant, since loops over registers have to be gone when registers are chosen.
macro_rules! for_each {
    ($name:ident in $($value:literal)* $body:block) => {
        $({
            const $name: usize = $value;
            $body
        })*
    };
}
pub(super) use for_each;

#[derive(Debug)]
pub(super) struct PackedDepthwise<T> {
    window: Window,
    weights: Packed,
    /// Bytes of the weights of half a block.
    half: usize,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
    /// Columns of a padded row, as far as they are seen.
    columns: usize,
    /// Output rows that are laid out together.
    band: usize,
    taps: PhantomData<T>,
}

impl<T: Taps> PackedDepthwise<T> {
    /// None for a kernel or stride that there is no code for.
    pub(super) fn new(depthwise: &Depthwise) -> Option<Self> {
        let window = depthwise.window;
        let [height, width] = window.kernel;
        let [down, right] = window.stride;
        if height != width || !matches!(height, 3 | 5) || down != right || !matches!(down, 1 | 2) {
            return None;
        }
        let columns = window.reach()[1];
        let mut band = T::rows(height, down).min(window.out_height);
        let len = |rows| 2 * columns * T::column_len(T::seen(height, down, rows));
        while band > 1 && len(band) > LAYOUT {
            band -= 1;
        }
        let [weights, bias] = T::pack(depthwise);
        Some(PackedDepthwise {
            window,
            half: T::weights_len(height, down),
            weights,
            bias,
            scales: Packed::floats(&padded(&depthwise.requantize.scales, LANES)),
            input_zero_point: depthwise.input_zero_point,
            output_zero_point: depthwise.requantize.zero_point,
            columns,
            band,
            taps: PhantomData,
        })
    }

    /// Padded rows that are laid out for some output rows.
    fn seen(&self, rows: usize) -> usize {
        T::seen(self.window.kernel[0], self.window.stride[0], rows)
    }

    /// Bytes of half a layout for some padded rows.
    fn half_len(&self, rows: usize) -> usize {
        self.columns * T::column_len(rows)
    }

    /// Bytes of scratch: a row of zero points, the layout.
    fn pieces(&self) -> [usize; 2] {
        [
            self.window.width * self.window.channels + SLACK,
            2 * self.half_len(self.seen(self.band)),
        ]
    }

    /// # Safety
    /// The processor has the instruction set; the kernel has this size and stride.
    unsafe fn compute<const KERNEL: usize, const STRIDE: usize>(
        &self,
        rows: Range<usize>,
        input: &[u8],
        output: &mut [u8],
        scratch: &mut [u8],
    ) {
        let window = &self.window;
        let channels = window.channels;
        let [padding, layout] = cut(scratch, self.pieces());
        padding.fill(self.input_zero_point);
        let line = window.width * channels;
        let row_len = window.out_width * channels;
        let mut seen = Seen {
            rows: [padding.as_ptr(); ROWS],
            count: 0,
            before: window.left,
            width: window.width.min(self.columns.saturating_sub(window.left)),
            columns: self.columns,
            step: channels,
            zero_point: self.input_zero_point,
        };
        let mut y = rows.start;
        for output in output.chunks_mut(self.band * row_len) {
            let count = output.len() / row_len;
            seen.count = self.seen(count);
            let half_len = self.half_len(seen.count);
            for (i, row) in seen.rows[..seen.count].iter_mut().enumerate() {
                let inside = (y * STRIDE + i).checked_sub(window.top);
                *row = match inside.filter(|y| *y < window.height) {
                    Some(y) => input[y * line..].as_ptr(),
                    None => padding.as_ptr(),
                };
            }
            for first in (0..channels).step_by(HALF) {
                let half = first / HALF % 2;
                // SAFETY: each row has all channels, with slack at the end of the input and of the padding; scratch is
                // as long as its pieces; bias and scales are padded to 16 channels.
                unsafe {
                    if half == 0 {
                        T::lay_out::<KERNEL>(&seen, layout.as_mut_ptr());
                    }
                    for row in &mut seen.rows[..seen.count] {
                        *row = row.wrapping_add(HALF);
                    }
                    let line = self.columns * T::column_len(1);
                    let mut layout = layout.as_ptr().add(half * half_len);
                    let mut row = Row {
                        line,
                        weights: self.weights.at(first / HALF * self.half),
                        bias: self.bias.at(first),
                        scales: self.scales.at(first),
                        zero_point: zero_point(self.output_zero_point),
                        outputs: window.out_width,
                        channels: HALF.min(channels - first),
                        output: output.as_mut_ptr().add(first),
                        step: channels,
                    };
                    let [line, weights] = T::next_row(KERNEL, STRIDE, line);
                    for _ in 0..count {
                        T::run::<KERNEL, STRIDE>(layout, &row);
                        layout = layout.add(line);
                        row.weights = row.weights.wrapping_add(weights);
                        row.output = row.output.add(row_len);
                    }
                }
            }
            y += count;
        }
    }
}

impl<T: Taps> Kernel for PackedDepthwise<T> {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        self.band
    }

    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], scratch: &mut [u8]) {
        let input = inputs[0];
        // SAFETY: weights are packed only for a processor that multiplies them; the input has been checked.
        unsafe {
            match (self.window.kernel[0], self.window.stride[0]) {
                (3, 1) => self.compute::<3, 1>(rows, input, output, scratch),
                (3, _) => self.compute::<3, 2>(rows, input, output, scratch),
                (_, 1) => self.compute::<5, 1>(rows, input, output, scratch),
                (_, _) => self.compute::<5, 2>(rows, input, output, scratch),
            }
        }
    }
}
