//! What a convolution sees at each output position, as rows of signed bytes, interleaved for the matrix product.
//!
//! A tile of `n` rows is stored chunk after chunk: 16 bytes of its first row, of its second, ..., of its last, then the
//! next 16 bytes of each. So a kernel loads neighbouring vectors, all from one pointer.

use std::arch::aarch64::*;
use std::ops::Range;

use super::vector::{LANES, load_signed};
use crate::window::Window;

#[derive(Debug)]
pub(super) struct Rows {
    window: Window,
    /// Bytes of one row.
    depth: usize,
    zero_point: u8,
}

impl Rows {
    pub(super) fn new(window: Window, zero_point: u8) -> Rows {
        Rows {
            window,
            depth: window.kernel[0] * window.kernel[1] * window.channels,
            zero_point,
        }
    }

    /// Bytes of one row in a tile.
    pub(super) fn len(&self) -> usize {
        padded_len(self.depth)
    }

    /// Bytes that one row needs on its way.
    pub(super) fn scratch_len(&self) -> usize {
        self.len() + LANES
    }

    /// Stores the rows of `positions` as one tile.
    ///
    /// # Safety
    /// `input` is the whole input with its slack, `scratch` has `scratch_len` bytes, `tile` has `len` bytes for each
    /// position.
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn gather(
        &self,
        positions: Range<usize>,
        input: *const u8,
        scratch: *mut u8,
        tile: *mut u8,
    ) {
        let window = &self.window;
        let [height, width] = window.kernel;
        let step = positions.len() * LANES;
        let line = window.width * window.channels;
        // A kernel row, which is contiguous in the input.
        let run = width * window.channels;
        let mut y = positions.start / window.out_width;
        let mut x = positions.start % window.out_width;
        for row in 0..positions.len() {
            let (top, left) = (y * window.stride[0], x * window.stride[1]);
            let inside = top >= window.top
                && left >= window.left
                && top + height <= window.height + window.top
                && left + width <= window.width + window.left;
            // SAFETY: what is read lies inside the input, or less than a vector behind it, where there is slack. What
            // is written lies inside the tile: the last chunk of the last row ends it.
            unsafe {
                let tile = tile.add(row * LANES);
                if inside {
                    let first = (top - window.top) * line + (left - window.left) * window.channels;
                    let first = input.add(first);
                    if height == 1 || run.is_multiple_of(LANES) {
                        let chunks = run.div_ceil(LANES);
                        for dy in 0..height {
                            let tile = tile.add(dy * chunks * step);
                            interleave(first.add(dy * line), chunks, tile, step);
                        }
                    } else {
                        for dy in 0..height {
                            copy(first.add(dy * line), run, scratch.add(dy * run));
                        }
                        interleave(scratch, self.len() / LANES, tile, step);
                    }
                } else {
                    self.copy_padded([top, left], input, scratch);
                    interleave(scratch, self.len() / LANES, tile, step);
                }
            }
            x += 1;
            if x == window.out_width {
                (x, y) = (0, y + 1);
            }
        }
    }

    /// Copies what the kernel sees with its upper left at `top` and `left` of the padded input.
    ///
    /// # Safety
    /// `input` is the whole input, `row` has `depth` bytes.
    unsafe fn copy_padded(&self, [top, left]: [usize; 2], input: *const u8, row: *mut u8) {
        let window = &self.window;
        let [height, width] = window.kernel;
        let channels = window.channels;
        // Of the taps of one kernel row, those before `first` and from `end` on are padding.
        let first = window.left.saturating_sub(left).min(width);
        let end = (window.width + window.left).saturating_sub(left).min(width);
        for dy in 0..height {
            // SAFETY: there is a row of bytes for each `dy`; the taps from `first` to `end` see bytes of the input.
            unsafe {
                let to = row.add(dy * width * channels);
                to.write_bytes(self.zero_point, width * channels);
                let y = (top + dy).checked_sub(window.top).filter(|y| *y < window.height);
                if let Some(y) = y && first < end {
                    let from = (y * window.width + left + first - window.left) * channels;
                    let to = to.add(first * channels);
                    to.copy_from_nonoverlapping(input.add(from), (end - first) * channels);
                }
            }
        }
    }
}

/// Copies `len` bytes, in whole vectors.
///
/// # Safety
/// The vectors are readable and writable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn copy(from: *const u8, len: usize, to: *mut u8) {
    for at in (0..len).step_by(LANES) {
        // SAFETY: the caller vouches for the bytes.
        unsafe { vst1q_u8(to.add(at), vld1q_u8(from.add(at))) };
    }
}

/// Copies `chunks` vectors, made signed, to every `step`th byte of `to`.
///
/// # Safety
/// All of them are readable and writable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn interleave(mut from: *const u8, chunks: usize, mut to: *mut u8, step: usize) {
    for _ in 0..chunks {
        // SAFETY: the caller vouches for the bytes.
        unsafe {
            vst1q_s8(to.cast(), load_signed(from, 0));
            from = from.add(LANES);
            to = to.add(step);
        }
    }
}

/// Bytes of a row of `depth` in a tile of its own.
pub(super) fn padded_len(depth: usize) -> usize {
    depth.next_multiple_of(LANES)
}

/// Stores one row as a tile of its own; `row` has slack behind it, `tile` has [`padded_len`] bytes.
pub(super) fn single(row: &[u8], depth: usize, tile: &mut [u8]) {
    let len = padded_len(depth);
    assert!(row.len() >= len && tile.len() >= len);
    // SAFETY: both lengths have been checked.
    unsafe { interleave(row.as_ptr(), len / LANES, tile.as_mut_ptr(), LANES) };
}
