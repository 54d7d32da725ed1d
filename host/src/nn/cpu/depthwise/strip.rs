//! Planes of one channel side by side, so that whole vectors are computed however small the planes are.
//!
//! Rows are padded. Neighbours share the zeros between them: what follows one plane on the right precedes the next.

use std::ops::Range;

use pulp::Simd;

use super::super::{Geometry, rows};

/// Columns of a strip, about: a few of the widest vectors.
const COLUMNS: usize = 128;
/// Room behind a row for the vectors that begin in it: the widest one, of which a tap may be the last value.
const SLACK: usize = 32;
/// Lanes of the widest vector.
const LANES: usize = 16;

/// Repeats a block for each line that a tile's rows may read, at most 13 (a kernel of 7, a stride of 2, 4 rows), with its
/// number as a constant: the block is compiled for each, where a loop would leave the rows' sums in memory.
macro_rules! for_each_line {
    ($line:ident, $block:block) => {
        for_each_line!($line, $block, 0 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($line:ident, $block:block, $($number:literal)*) => {
        $({
            const $line: usize = $number;
            $block
        })*
    };
}
pub(super) use for_each_line;

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

    /// Writes `[width]`: 1 in the columns of so many planes, `count` in each from column `first` of its pitch, else 0.
    pub(super) fn mask(self, images: usize, first: usize, count: usize, mask: &mut [f32]) {
        mask.fill(0.0);
        for plane in mask.chunks_exact_mut(self.pitch).take(images) {
            plane[first..first + count].fill(1.0);
        }
    }
}

/// Planes of some neighbouring channels in a strip's images. Small ones are copied together, so that memory is read in long
/// runs.
pub(super) struct Stage {
    /// `[images, channels of the stage, area]`, empty if planes are read where they are.
    copies: Vec<f32>,
    images: Range<usize>,
    channels: Range<usize>,
    all_channels: usize,
    area: usize,
}

impl Stage {
    /// For planes of `area` values, `channels` at once of `all_channels`.
    pub(super) fn new(strip: Strip, channels: usize, all_channels: usize, area: usize) -> Stage {
        let copied = if strip.images > 1 { strip.images } else { 0 };
        Stage {
            copies: vec![0.0; copied * channels * area],
            images: 0..0,
            channels: 0..0,
            all_channels,
            area,
        }
    }

    /// Takes the planes of these images and channels out of `values`, `[n, all channels, area]`.
    pub(super) fn set(&mut self, values: &[f32], images: Range<usize>, channels: Range<usize>) {
        let length = channels.len() * self.area;
        for (copy, image) in self.copies.chunks_exact_mut(length).zip(images.clone()) {
            let start = (image * self.all_channels + channels.start) * self.area;
            copy.copy_from_slice(&values[start..][..length]);
        }
        self.images = images;
        self.channels = channels;
    }

    /// The plane of a channel and an image, both counted from the first in the stage; `values` are those that were set.
    #[inline(always)]
    pub(super) fn plane<'a>(
        &'a self,
        values: &'a [f32],
        image: usize,
        channel: usize,
    ) -> &'a [f32] {
        let (values, plane) = if self.copies.is_empty() {
            let image = self.images.start + image;
            (
                values,
                image * self.all_channels + self.channels.start + channel,
            )
        } else {
            (&self.copies[..], image * self.channels.len() + channel)
        };
        &values[plane * self.area..][..self.area]
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

impl Place {
    /// Columns of the first phase before a row's first whole pair of even and odd, and whether an odd one comes before it.
    #[inline(always)]
    fn first_pair(self) -> (usize, usize) {
        (self.first + self.left.div_ceil(2), self.left % 2)
    }
}

/// Writes `operation` of a plane's row to its place in `phases`.
#[inline(always)]
pub(super) fn spread_row<const STRIDE: usize>(
    row: &[f32],
    phases: &mut [f32],
    place: Place,
    operation: impl Fn(f32) -> f32,
) {
    if STRIDE == 1 {
        let target = &mut phases[place.first + place.left..][..row.len()];
        rows::map(row, target, operation);
        return;
    }
    let (first, odd) = place.first_pair();
    if odd == 1 {
        phases[first - 1 + place.phase_len] = operation(row[0]);
    }
    let row = &row[odd..];
    let pairs = row.len() / 2;
    if row.len() % 2 == 1 {
        phases[first + pairs] = operation(row[2 * pairs]);
    }
    let (evens, odds) = phases[first..].split_at_mut(place.phase_len);
    rows::split(row, &mut evens[..pairs], &mut odds[..pairs], operation);
}

/// The inverse: a plane's row out of its place in `phases`, into `row` if the stride is 2.
#[inline(always)]
pub(super) fn gather_row<'a, const STRIDE: usize>(
    phases: &'a [f32],
    place: Place,
    row: &'a mut [f32],
) -> &'a [f32] {
    if STRIDE == 1 {
        return &phases[place.first + place.left..][..row.len()];
    }
    let (first, odd) = place.first_pair();
    if odd == 1 {
        row[0] = phases[first - 1 + place.phase_len];
    }
    let (_, rest) = row.split_at_mut(odd);
    let pairs = rest.len() / 2;
    if rest.len() % 2 == 1 {
        rest[2 * pairs] = phases[first + pairs];
    }
    let odds = &phases[place.phase_len..];
    rows::join(&phases[first..][..pairs], &odds[first..][..pairs], rest);
    row
}

/// The vector at the beginning of `values`.
#[inline(always)]
pub(super) fn load<S: Simd>(values: &[f32]) -> S::f32s {
    S::as_simd_f32s(&values[..S::F32_LANES]).0[0]
}

/// Writes a vector to the beginning of `values`.
#[inline(always)]
pub(super) fn store<S: Simd>(_simd: S, vector: S::f32s, values: &mut [f32]) {
    S::as_mut_simd_f32s(&mut values[..S::F32_LANES]).0[0] = vector;
}
