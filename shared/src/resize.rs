//! Antialiased separable resize of RGB8 in fixed point, to the bit as Pillow's `Image.resize`.
//!
//! Pillow, `src/libImaging/Resample.c`, the 8-bit path: for each output column (row) the weights of the input columns
//! (rows) beneath the filter, widened by the scale when shrinking, are computed in f64 and rounded to 22 bits after the
//! point; the horizontal pass comes first, and its result is rounded to u8 before the vertical one. Of f64 only
//! + - * / are used, so that the weights are the same on every CPU.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::preprocess::{Filter, Pixels};

/// The part of the resized image that is wanted, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Window {
    /// The whole of a resized image.
    #[must_use]
    pub fn whole(width: usize, height: usize) -> Self {
        Self {
            left: 0,
            top: 0,
            width,
            height,
        }
    }
}

/// The part of an image that is resized, in its pixels. Its edges may lie within pixels; what is outside may be seen by
/// the filter all the same (Pillow's `box`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// The left edge.
    pub left: f64,
    /// The upper edge.
    pub top: f64,
    /// From the left to the right edge.
    pub width: f64,
    /// From the upper to the lower edge.
    pub height: f64,
}

impl Area {
    /// The whole of an image.
    #[must_use]
    pub fn whole(width: usize, height: usize) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            width: width as f64,
            height: height as f64,
        }
    }

    /// Whether it is not empty and not outside the image.
    fn is_inside(&self, image: &Pixels) -> bool {
        let inside = |start: f64, length: f64, whole: usize| {
            start >= 0.0 && length > 0.0 && start + length <= whole as f64
        };
        inside(self.left, self.width, image.width) && inside(self.top, self.height, image.height)
    }
}

/// Bits after the point of a weight. An accumulator holds 8 bits of pixel and 2 of overshoot above them.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The part `area` of `image` resized to `width` x `height`, and of that the part `window`. What lies outside the window
/// is never computed, and the result is the same as cutting it out of the whole.
///
/// # Errors
/// When the image is invalid, a size is 0, or the area or the window reaches outside.
pub fn resize(
    image: &Pixels,
    area: Area,
    width: usize,
    height: usize,
    filter: Filter,
    window: Window,
) -> Result<Pixels> {
    image.validate()?;
    let inside = |start: usize, length: usize, whole: usize| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
    };
    if !inside(window.left, window.width, width) || !inside(window.top, window.height, height) {
        return Err(Error::new(format!(
            "the window {window:?} is not inside {width} x {height} pixels"
        )));
    }
    if !area.is_inside(image) {
        return Err(Error::new(format!(
            "the area {area:?} is not inside {} x {} pixels",
            image.width, image.height
        )));
    }
    let columns = taps(
        image.width,
        (area.left, area.width / width as f64),
        window.left..window.left + window.width,
        filter,
    );
    let rows = taps(
        image.height,
        (area.top, area.height / height as f64),
        window.top..window.top + window.height,
        filter,
    );

    let first_row = rows.first().map_or(0, |tap| tap.start);
    let last_row = rows.last().map_or(0, |tap| tap.start + tap.weights.len());
    let stride = window.width * 3;
    let mut narrow = vec![0; (last_row - first_row) * stride];
    let source = image.data.chunks_exact(image.width * 3).skip(first_row);
    for (output, row) in narrow.chunks_exact_mut(stride).zip(source) {
        horizontal(row, &columns, output);
    }
    let mut data = vec![0; window.height * stride];
    let mut sums = vec![0; stride];
    for (output, tap) in data.chunks_exact_mut(stride).zip(&rows) {
        let start = (tap.start - first_row) * stride;
        vertical(&narrow[start..], &tap.weights, &mut sums, output);
    }
    Ok(Pixels {
        width: window.width,
        height: window.height,
        data,
    })
}

/// One output column or row: the weights of the inputs from `start` on.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

/// The taps of `outputs`, which lie `scale` inputs apart from `start` on, of `input` inputs.
fn taps(
    input: usize,
    (start, scale): (f64, f64),
    outputs: Range<usize>,
    filter: Filter,
) -> Vec<Tap> {
    let filter_scale = if scale < 1.0 { 1.0 } else { scale };
    let support = filter.radius() * filter_scale;
    let to_filter = 1.0 / filter_scale;
    let mut weights: Vec<f64> = Vec::new();
    outputs
        .map(|index| {
            let center = start + (index as f64 + 0.5) * scale;
            // Conversion to an integer saturates below at 0, as Pillow's clamp does.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            weights.clear();
            weights.extend(
                (start..end)
                    .map(|position| filter.weight((position as f64 - center + 0.5) * to_filter)),
            );
            let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
            let fixed = |weight: &f64| {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                (if scaled < 0.0 {
                    scaled - 0.5
                } else {
                    scaled + 0.5
                }) as i32
            };
            Tap {
                start,
                weights: weights.iter().map(fixed).collect(),
            }
        })
        .collect()
}

impl Filter {
    /// Where the filter ends, in output pixels when shrinking and input pixels when enlarging.
    fn radius(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The filter at `x`, each operation in Pillow's order. Cubic: Keys, "Cubic convolution interpolation for digital
    /// image processing", IEEE ASSP 29 (1981), equation 15.
    fn weight(self, x: f64) -> f64 {
        let x = if x < 0.0 { -x } else { x };
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// The free parameter of the cubic filter.
const A: f64 = -0.5;

/// Rounds an accumulator to u8.
#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Half of the last bit, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

// Sums can't overflow: the weights of a tap add up to 2^22 within rounding, negative ones to at most an eighth of it,
// times 255 is below 2^31. Wrapping operations keep the overflow checks out of the inner loops.

fn horizontal(row: &[u8], columns: &[Tap], output: &mut [u8]) {
    for (pixel, tap) in output.chunks_exact_mut(3).zip(columns) {
        let mut sums = [HALF; 3];
        let source = row[tap.start * 3..].chunks_exact(3);
        for (rgb, &weight) in source.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(rgb) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        for (value, sum) in pixel.iter_mut().zip(sums) {
            *value = to_u8(sum);
        }
    }
}

fn vertical(rows: &[u8], weights: &[i32], sums: &mut [i32], output: &mut [u8]) {
    sums.fill(HALF);
    for (row, &weight) in rows.chunks_exact(output.len()).zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
        }
    }
    for (value, &sum) in output.iter_mut().zip(sums.iter()) {
        *value = to_u8(sum);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::digest::{hex, sha256};

    /// Noise and hard edges in turn, 300 samples each.
    fn picture(width: usize, height: usize) -> Pixels {
        let sample = |index: usize| {
            let (x, y) = (index / 3 % width, index / 3 / width);
            if (index / 300).is_multiple_of(2) {
                ((index as u64 * 2_654_435_761) >> 7) as u8
            } else {
                ((x / 5 + y / 3) % 2 * 255) as u8
            }
        };
        Pixels {
            width,
            height,
            data: (0..width * height * 3).map(sample).collect(),
        }
    }

    /// From width x height to width x height by which filter, and how the SHA-256 of the result of Pillow 13.0 begins.
    const PILLOW: [(usize, usize, usize, usize, Filter, &str); 20] = [
        (64, 48, 64, 48, Filter::Bilinear, "620cbe99adae2b98"),
        (64, 48, 64, 48, Filter::Bicubic, "620cbe99adae2b98"),
        (64, 48, 24, 24, Filter::Bilinear, "26842ac0ce30b7a0"),
        (64, 48, 24, 24, Filter::Bicubic, "6a0c0f17512d0b4c"),
        (64, 48, 100, 75, Filter::Bilinear, "66cadd6e267e40dc"),
        (64, 48, 100, 75, Filter::Bicubic, "4f760726ddd676bb"),
        (37, 91, 13, 200, Filter::Bilinear, "e05f5d25da07b590"),
        (37, 91, 13, 200, Filter::Bicubic, "bbcc433562c74d34"),
        (300, 200, 8, 8, Filter::Bilinear, "efcac404242ffa9b"),
        (300, 200, 8, 8, Filter::Bicubic, "ad3b5c29da9b96ee"),
        (1, 1, 9, 7, Filter::Bilinear, "b203b57cbb504a5f"),
        (1, 1, 9, 7, Filter::Bicubic, "b203b57cbb504a5f"),
        (2, 3, 50, 40, Filter::Bilinear, "0981d13ae9fa538f"),
        (2, 3, 50, 40, Filter::Bicubic, "aa83b9317145149d"),
        (500, 3, 17, 3, Filter::Bilinear, "a2120a216683aa84"),
        (500, 3, 17, 3, Filter::Bicubic, "c885a33d8c8f4c95"),
        (5, 400, 5, 33, Filter::Bilinear, "ec9a4cc49beb54a7"),
        (5, 400, 5, 33, Filter::Bicubic, "90b1c0b6ef9c620b"),
        (257, 193, 224, 168, Filter::Bilinear, "e12d7c2ebfcca41f"),
        (257, 193, 224, 168, Filter::Bicubic, "febc31b9e0f7c3ff"),
    ];

    #[test]
    fn equals_pillow_to_the_bit() {
        for (from_width, from_height, width, height, filter, expected) in PILLOW {
            let window = Window::whole(width, height);
            let image = picture(from_width, from_height);
            let resized = resize(
                &image,
                Area::whole(image.width, image.height),
                width,
                height,
                filter,
                window,
            )
            .unwrap();
            assert_eq!(
                hex(&sha256(&resized.data))[..16],
                *expected,
                "{from_width} x {from_height} to {width} x {height}, {filter:?}"
            );
        }
    }

    #[test]
    fn a_window_is_cut_out_of_the_whole() {
        let image = picture(61, 47);
        for (width, height) in [(20, 30), (90, 31), (61, 47)] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let whole = resize(
                    &image,
                    Area::whole(image.width, image.height),
                    width,
                    height,
                    filter,
                    Window::whole(width, height),
                )
                .unwrap();
                for (left, top) in [(0, 0), (3, 7), (width - 11, height - 9)] {
                    let window = Window {
                        left,
                        top,
                        width: 11,
                        height: 9,
                    };
                    let cut = resize(
                        &image,
                        Area::whole(image.width, image.height),
                        width,
                        height,
                        filter,
                        window,
                    )
                    .unwrap();
                    for (y, row) in cut.data.chunks_exact(11 * 3).enumerate() {
                        let start = ((top + y) * width + left) * 3;
                        assert_eq!(row, &whole.data[start..][..11 * 3]);
                    }
                }
            }
        }
    }

    #[test]
    fn flat_colour_stays_and_extremes_are_clamped() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for value in [0, 1, 128, 255] {
                let flat = Pixels {
                    width: 97,
                    height: 3,
                    data: vec![value; 97 * 3 * 3],
                };
                let resized = resize(
                    &flat,
                    Area::whole(97, 3),
                    31,
                    200,
                    filter,
                    Window::whole(31, 200),
                )
                .unwrap();
                assert!(resized.data.iter().all(|&sample| sample == value));
            }
        }
        // The largest overshoot that two pixels give.
        let edge = Pixels {
            width: 2,
            height: 1,
            data: vec![0, 0, 0, 255, 255, 255],
        };
        let wide = resize(
            &edge,
            Area::whole(2, 1),
            4_000,
            1,
            Filter::Bicubic,
            Window::whole(4_000, 1),
        )
        .unwrap();
        assert_eq!((wide.data[0], wide.data[11_999]), (0, 255));
    }

    #[test]
    fn refuses_what_is_outside() {
        let image = picture(4, 4);
        for (left, top, width, height) in [
            (0, 0, 9, 8),
            (1, 0, 8, 8),
            (0, usize::MAX, 1, 1),
            (0, 0, 0, 8),
        ] {
            let window = Window {
                left,
                top,
                width,
                height,
            };
            assert!(resize(&image, Area::whole(4, 4), 8, 8, Filter::Bilinear, window).is_err());
        }
        let broken = Pixels {
            width: 4,
            height: 4,
            data: vec![0; 47],
        };
        assert!(
            resize(
                &broken,
                Area::whole(4, 4),
                8,
                8,
                Filter::Bilinear,
                Window::whole(8, 8)
            )
            .is_err()
        );
    }
}
