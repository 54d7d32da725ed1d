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
    /// Whether a row is a pixel, and the next row the next pixel.
    pixels: bool,
    /// Places of the kernel in a row of the input without padding.
    places: usize,
}

/// An output position, and what the kernel sees there.
pub(super) struct Place {
    x: usize,
    /// Where the kernel starts in the padded input.
    top: usize,
    left: usize,
    /// The first byte that it sees; outside of the input where that is padding.
    seen: *const u8,
    /// Whether all its rows are inside of the input.
    rows_inside: bool,
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
            pixels: window.kernel == [1, 1] && window.stride == [1, 1],
            places: (window.width + 1).saturating_sub(window.kernel[1]),
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

    /// The output position `position` on `input`, the whole input.
    pub(super) fn place(&self, position: usize, input: *const u8) -> Place {
        let window = &self.window;
        let (y, x) = (position / window.out_width, position % window.out_width);
        let mut place = Place {
            x,
            top: y * window.stride[0],
            left: x * window.stride[1],
            seen: input,
            rows_inside: false,
        };
        self.look(&mut place, input);
        place
    }

    /// Finds what the kernel sees.
    fn look(&self, place: &mut Place, input: *const u8) {
        let window = &self.window;
        let (top, left) = (place.top, place.left);
        let before = window.top * self.line + window.left * window.channels;
        let seen = input.wrapping_add(top * self.line + left * window.channels);
        place.seen = seen.wrapping_sub(before);
        place.rows_inside =
            top >= window.top && top + window.kernel[0] <= window.height + window.top;
    }

    /// Goes to the next output position.
    #[inline]
    fn advance(&self, place: &mut Place, input: *const u8) {
        let stride = self.window.stride[1];
        place.x += 1;
        place.left += stride;
        place.seen = place.seen.wrapping_add(stride * self.window.channels);
        if place.x == self.window.out_width {
            (place.x, place.left) = (0, 0);
            place.top += self.window.stride[0];
            self.look(place, input);
        }
    }

    /// Stores the rows of `ROWS` positions from `place` on as one tile, and goes on behind them.
    ///
    /// # Safety
    /// The positions exist. `input` is the whole input with its slack, `scratch` has `scratch_len` bytes, `tile` has
    /// `len` bytes for each position.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn gather<const ROWS: usize>(
        &self,
        place: &mut Place,
        input: *const u8,
        scratch: *mut u8,
        tile: *mut u8,
    ) {
        let window = &self.window;
        let mut rows = [input; ROWS];
        let mut steps = [self.run; ROWS];
        let mut copied = scratch;
        // SAFETY: what is read lies inside the input, or less than a vector behind it, where there is slack. What is
        // written are the chunks of the tile, and in scratch the bytes of a row with less than a vector behind it.
        unsafe {
            if self.pixels {
                for row in &mut rows {
                    *row = place.seen;
                    place.seen = place.seen.wrapping_add(window.channels);
                }
                interleave(&rows, self.depth, tile);
                return;
            }
            for (row, step) in rows.iter_mut().zip(&mut steps) {
                let inside = place.left.wrapping_sub(window.left) < self.places;
                *row = copied;
                if !(inside && place.rows_inside) {
                    self.copy_padded([place.top, place.left], input, copied);
                } else if self.direct {
                    (*row, *step) = (place.seen, self.line);
                } else {
                    self.copy(place.seen, copied);
                }
                copied = copied.add(self.len + LANES);
                self.advance(place, input);
            }
            let mut tile = tile;
            if self.direct {
                for _ in 0..window.kernel[0] {
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
