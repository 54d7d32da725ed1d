//! What a convolution sees at each output position, as rows of signed bytes, interleaved for the matrix product.
//!
//! A tile of `n` rows is stored chunk after chunk: 16 bytes of its first row, of its second, ..., of its last, then the
//! next 16 bytes of each. So a kernel loads neighbouring vectors, all from one pointer.

use std::arch::aarch64::*;

use super::vector::{LANES, load_signed};
use crate::window::Window;

#[derive(Debug)]
pub(super) struct Rows {
    window: Window,
    zero_point: u8,
    /// Bytes of one row, and as whole chunks.
    depth: usize,
    len: usize,
    /// Bytes of a row of the kernel, which are neighbours in the input; bytes of a row of the input.
    run: usize,
    line: usize,
    /// Whether a row can be taken from the input itself, wherever it sees no padding.
    direct: bool,
}

impl Rows {
    pub(super) fn new(window: Window, zero_point: u8) -> Rows {
        let run = window.kernel[1] * window.channels;
        let depth = window.kernel[0] * run;
        Rows {
            window,
            zero_point,
            depth,
            len: padded_len(depth),
            run,
            line: window.width * window.channels,
            direct: window.kernel[0] == 1 || run.is_multiple_of(LANES),
        }
    }

    /// Bytes of one row in a tile.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that `rows` rows need on their way.
    pub(super) fn scratch_len(&self, rows: usize) -> usize {
        rows * (self.len + LANES)
    }

    /// Stores the rows of `ROWS` positions from `first` on as one tile.
    ///
    /// # Safety
    /// The positions exist. `input` is the whole input with its slack, `scratch` has `scratch_len` bytes, `tile` has
    /// `len` bytes for each position.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn gather<const ROWS: usize>(
        &self,
        first: usize,
        input: *const u8,
        scratch: *mut u8,
        tile: *mut u8,
    ) {
        let window = &self.window;
        let [height, width] = window.kernel;
        let mut rows = [input; ROWS];
        let mut steps = [self.run; ROWS];
        // SAFETY: what is read lies inside the input, or less than a vector behind it, where there is slack. What is
        // written are the chunks of the tile, and in scratch the bytes of a row with less than a vector behind it.
        unsafe {
            if window.kernel == [1, 1] && window.stride == [1, 1] {
                let mut pixel = input.add(first * window.channels);
                for row in &mut rows {
                    *row = pixel;
                    pixel = pixel.add(window.channels);
                }
            } else {
                let mut y = first / window.out_width;
                let mut x = first % window.out_width;
                for (row, (from, step)) in rows.iter_mut().zip(&mut steps).enumerate() {
                    let (top, left) = (y * window.stride[0], x * window.stride[1]);
                    let inside = top >= window.top
                        && left >= window.left
                        && top + height <= window.height + window.top
                        && left + width <= window.width + window.left;
                    let copied = scratch.add(row * (self.len + LANES));
                    *from = copied;
                    if inside {
                        let column = (left - window.left) * window.channels;
                        let seen = input.add((top - window.top) * self.line + column);
                        if self.direct {
                            (*from, *step) = (seen, self.line);
                        } else {
                            self.copy(seen, copied);
                        }
                    } else {
                        self.copy_padded([top, left], input, copied);
                    }
                    x += 1;
                    if x == window.out_width {
                        (x, y) = (0, y + 1);
                    }
                }
            }
            let mut tile = tile;
            if self.direct {
                for _ in 0..height {
                    tile = interleave(&rows, self.run, tile);
                    for (row, step) in rows.iter_mut().zip(&steps) {
                        *row = row.wrapping_add(*step);
                    }
                }
            } else {
                interleave(&rows, self.depth, tile);
            }
        }
    }

    /// Copies what the kernel sees from `seen` on.
    ///
    /// # Safety
    /// The kernel sees no padding; `row` has `depth` bytes and a vector behind them.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn copy(&self, mut seen: *const u8, mut row: *mut u8) {
        for _ in 0..self.window.kernel[0] {
            let (mut from, mut to) = (seen, row);
            let mut left = self.run;
            // SAFETY: whole vectors reach less than a vector too far, where the next row of the kernel, or nothing,
            // is copied to.
            unsafe {
                loop {
                    vst1q_u8(to, vld1q_u8(from));
                    if left <= LANES {
                        break;
                    }
                    left -= LANES;
                    (from, to) = (from.add(LANES), to.add(LANES));
                }
                seen = seen.add(self.line);
                row = row.add(self.run);
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
                let y = (top + dy)
                    .checked_sub(window.top)
                    .filter(|y| *y < window.height);
                if let Some(y) = y
                    && first < end
                {
                    let from = (y * window.width + left + first - window.left) * channels;
                    let to = to.add(first * channels);
                    to.copy_from_nonoverlapping(input.add(from), (end - first) * channels);
                }
            }
        }
    }
}

/// Interleaves `len` bytes of each row, made signed, in whole chunks; returns where the next chunks go.
///
/// # Safety
/// All of them are readable and writable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn interleave<const ROWS: usize>(
    rows: &[*const u8; ROWS],
    len: usize,
    mut tile: *mut u8,
) -> *mut u8 {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller vouches for the bytes.
        unsafe {
            for row in rows {
                vst1q_s8(tile.cast(), load_signed(*row, at));
                tile = tile.add(LANES);
            }
        }
        at += LANES;
    }
    tile
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
    unsafe { interleave(&[row.as_ptr()], depth, tile.as_mut_ptr()) };
}
