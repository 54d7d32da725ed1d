//! Planes of one channel side by side, so that whole vectors are computed however small the planes are.
//!
//! Rows are padded. Neighbours share the zeros between them: what follows one plane on the right precedes the next.

use pulp::Simd;

use super::super::{Finish, Geometry};

/// Columns of a strip, about: a few of the widest vectors.
const COLUMNS: usize = 128;
/// Room behind a row for the vectors that begin in it: the widest one, of which a tap may be the last value.
const SLACK: usize = 32;
/// Lanes of the widest vector.
const LANES: usize = 16;

/// Sizes of a strip of padded planes that are split by stride into phases (row and column modulo stride).
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// Planes in it, at most.
    pub(super) images: usize,
    /// Columns from one plane to the next, in a phase.
    pub(super) pitch: usize,
    /// Values of a phase's row.
    pub(super) width: usize,
}

impl Strip {
    /// `gradient_taps` is how many values a phase's row reads of an output gradient's row, 0 if none.
    pub(super) fn new(geometry: &Geometry, kernel: usize, gradient_taps: usize) -> Strip {
        let (stride, left) = (geometry.stride, geometry.padding.left);
        let output = geometry.output.width;
        let columns = (left + geometry.input.width)
            .max((stride * (output - 1) + kernel).saturating_sub(left))
            .max(stride * output)
            .div_ceil(stride);
        let pitch = columns.max((output + gradient_taps).saturating_sub(1 + left / stride));
        let images = (COLUMNS / pitch).clamp(1, geometry.images);
        Strip {
            images,
            pitch,
            width: (images * pitch).next_multiple_of(LANES) + SLACK,
        }
    }
}

/// Where a row of a plane lies in padded phases.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Of the phase of even columns, where the padded plane's row begins.
    pub(super) first: usize,
    /// Values from there to the same place in the phase of odd columns.
    pub(super) phase_len: usize,
    /// Zeros on the left, in pixels.
    pub(super) left: usize,
}

/// Writes a plane's row, as read, to its place in `phases`. What `line` holds before and behind the row goes there too.
#[inline(always)]
pub(super) fn spread_row<S: Simd, const STRIDE: usize>(
    read: Finish<S>,
    row: &[f32],
    phases: &mut [f32],
    place: Place,
    line: &mut [f32],
) {
    if STRIDE == 1 {
        read.row(row, &mut phases[place.first + place.left..][..row.len()]);
        return;
    }
    let odd = place.left % STRIDE;
    read.row(row, &mut line[odd..][..row.len()]);
    let pairs = (odd + row.len()).div_ceil(2);
    let (pairs, _) = line[..2 * pairs].as_chunks::<2>();
    let (evens, odds) = phases[place.first..].split_at_mut(place.phase_len);
    let evens = &mut evens[place.left / STRIDE..][..pairs.len()];
    let odds = &mut odds[place.left / STRIDE..][..pairs.len()];
    for ((even, odd), pair) in evens.iter_mut().zip(odds).zip(pairs) {
        *even = pair[0];
        *odd = pair[1];
    }
}

/// The inverse: a plane's row out of its place in `phases`. It is in `line` if the stride is 2.
#[inline(always)]
pub(super) fn gather_row<'a, const STRIDE: usize>(
    width: usize,
    phases: &'a [f32],
    place: Place,
    line: &'a mut [f32],
) -> &'a [f32] {
    if STRIDE == 1 {
        return &phases[place.first + place.left..][..width];
    }
    let odd = place.left % STRIDE;
    let pairs = (odd + width).div_ceil(2);
    let (pairs, _) = line[..2 * pairs].as_chunks_mut::<2>();
    let evens = &phases[place.first + place.left / STRIDE..][..pairs.len()];
    let odds = &phases[place.first + place.phase_len + place.left / STRIDE..][..pairs.len()];
    for ((pair, &even), &odd) in pairs.iter_mut().zip(evens).zip(odds) {
        *pair = [even, odd];
    }
    &line[odd..][..width]
}

/// The vector at the beginning of `values`.
#[inline(always)]
pub(super) fn load<S: Simd>(values: &[f32]) -> S::f32s {
    S::as_simd_f32s(&values[..S::F32_LANES]).0[0]
}
