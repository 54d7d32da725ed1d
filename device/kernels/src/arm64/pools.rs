//! Pools, 16 channels at a time.

use std::arch::aarch64::*;
use std::ops::Range;

use super::vector::{LANES, requantize, store_first, zero_point};
use crate::operator::Kernel;
use crate::operators::{AveragePool, MaxPool, Padding};
use crate::window::Window;

/// The pixels that a pool sees at one output position.
struct Seen {
    first: *const u8,
    height: usize,
    width: usize,
    /// Bytes from one row to the next, from one pixel to the next.
    line: usize,
    step: usize,
}

impl Seen {
    fn new(window: &Window, input: &[u8], y: usize, x: usize) -> Seen {
        let rows = inside(
            y * window.stride[0],
            window.kernel[0],
            window.top,
            window.height,
        );
        let columns = inside(
            x * window.stride[1],
            window.kernel[1],
            window.left,
            window.width,
        );
        let line = window.width * window.channels;
        Seen {
            first: input[rows.start * line + columns.start * window.channels..].as_ptr(),
            height: rows.len(),
            width: columns.len(),
            line,
            step: window.channels,
        }
    }

    /// Calls `each` with every pixel, from channel `first` on.
    #[inline]
    fn each(&self, first: usize, mut each: impl FnMut(*const u8)) {
        let mut row = self.first.wrapping_add(first);
        for _ in 0..self.height {
            let mut pixel = row;
            for _ in 0..self.width {
                each(pixel);
                pixel = pixel.wrapping_add(self.step);
            }
            row = row.wrapping_add(self.line);
        }
    }
}

/// Of `kernel` taps from `start` of the padded input on, those that lie inside the input, which starts at `before`.
fn inside(start: usize, kernel: usize, before: usize, size: usize) -> Range<usize> {
    let place = |padded: usize| padded.saturating_sub(before).min(size);
    place(start)..place(start + kernel)
}

#[derive(Debug)]
pub(super) struct NeonMaxPool(pub(super) MaxPool);

impl Kernel for NeonMaxPool {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let window = &self.0.window;
        let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
        for ([y, x], output) in positions.zip(output.chunks_exact_mut(window.channels)) {
            // SAFETY: every 64-bit ARM processor has the instructions; the input has slack for a vector behind it.
            unsafe { largest(&Seen::new(window, inputs[0], y, x), output) };
        }
    }
}

/// # Safety
/// The pixels are readable from their first channel to a vector at their last.
#[target_feature(enable = "neon")]
unsafe fn largest(seen: &Seen, output: &mut [u8]) {
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let mut largest = vdupq_n_u8(0);
        // SAFETY: the caller vouches for the pixels; the chunk has as many bytes as it says.
        unsafe {
            seen.each(block * LANES, |pixel| {
                largest = vmaxq_u8(largest, vld1q_u8(pixel))
            });
            store_first(output.as_mut_ptr(), largest, output.len());
        }
    }
}

#[derive(Debug)]
pub(super) struct NeonAveragePool(pub(super) AveragePool);

impl Kernel for NeonAveragePool {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let window = &self.0.window;
        let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
        for ([y, x], output) in positions.zip(output.chunks_exact_mut(window.channels)) {
            // SAFETY: every 64-bit ARM processor has the instructions; the input has slack for a vector behind it.
            unsafe { mean(&self.0, &Seen::new(window, inputs[0], y, x), output) };
        }
    }
}

/// # Safety
/// The pixels are readable from their first channel to a vector at their last.
#[target_feature(enable = "neon")]
unsafe fn mean(pool: &AveragePool, seen: &Seen, output: &mut [u8]) {
    let count = seen.height * seen.width;
    let scale = pool.scale(match pool.padding {
        Padding::Counts => pool.window.kernel[0] * pool.window.kernel[1],
        Padding::IsLeftOut => count,
    });
    let scales = [vdupq_n_f32(scale); 4];
    let zero_point = zero_point(pool.output_zero_point);
    // Padding that counts adds the zero point, which is taken off again: it only divides.
    let offset = vdupq_n_s32(-(count as i32 * i32::from(pool.input_zero_point)));
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let mut sums = [vreinterpretq_u32_s32(offset); 4];
        // SAFETY: the caller vouches for the pixels; the chunk has as many bytes as it says.
        unsafe {
            seen.each(block * LANES, |pixel| {
                let bytes = vld1q_u8(pixel);
                let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
                sums[0] = vaddw_u16(sums[0], vget_low_u16(low));
                sums[1] = vaddw_high_u16(sums[1], low);
                sums[2] = vaddw_u16(sums[2], vget_low_u16(high));
                sums[3] = vaddw_high_u16(sums[3], high);
            });
            let bytes = requantize(sums.map(|s| vreinterpretq_s32_u32(s)), scales, zero_point);
            store_first(output.as_mut_ptr(), bytes, output.len());
        }
    }
}
