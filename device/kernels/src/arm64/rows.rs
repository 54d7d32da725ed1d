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
    /// `input` is the whole input with its slack, `scratch` has `scratch_len` bytes, `tile` has `len` bytes for each
    /// position.
    pub(super) fn gather(
        &self,
        positions: Range<usize>,
        input: &[u8],
        scratch: &mut [u8],
        tile: &mut [u8],
    ) {
        let window = &self.window;
        let count = positions.len();
        assert!(tile.len() >= self.len() * count && scratch.len() >= self.scratch_len());
        let pixels = window.kernel == [1, 1];
        for (row, position) in positions.enumerate() {
            let y = position / window.out_width * window.stride[0];
            let x = position % window.out_width * window.stride[1];
            let bytes = if pixels {
                let pixel = y * window.width + x;
                input[pixel * window.channels..].as_ptr()
            } else {
                self.copy([y, x], input, scratch);
                scratch.as_ptr()
            };
            let tile = tile[row * LANES..].as_mut_ptr();
            // SAFETY: `len` bytes are readable from `bytes` on: a pixel has slack behind it, and less than a vector of
            // it is read. The last chunk ends within the tile, whose length has been checked.
            unsafe { interleave(bytes, self.len() / LANES, tile, count * LANES) };
        }
    }

    /// Copies what the kernel sees with its upper left at (`y`, `x`) of the padded input.
    fn copy(&self, [y, x]: [usize; 2], input: &[u8], row: &mut [u8]) {
        let window = &self.window;
        let (width, channels) = (window.kernel[1], window.channels);
        // Of the taps of one kernel row, those before `first` and from `end` on are padding.
        let first = window.left.saturating_sub(x).min(width);
        let end = (window.width + window.left).saturating_sub(x).min(width);
        for (dy, to) in row[..self.depth].chunks_exact_mut(width * channels).enumerate() {
            let y = (y + dy).checked_sub(window.top).filter(|y| *y < window.height);
            let (first, end) = if y.is_some() { (first, end.max(first)) } else { (width, width) };
            to[..first * channels].fill(self.zero_point);
            to[end * channels..].fill(self.zero_point);
            if let Some(y) = y && first < end {
                let from = (y * window.width + x + first - window.left) * channels;
                let from = &input[from..][..(end - first) * channels];
                to[first * channels..end * channels].copy_from_slice(from);
            }
        }
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
