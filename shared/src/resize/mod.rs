//! Antialiased separable resize of RGB8 in fixed point, to the bit as Pillow's `Image.resize`.
//!
//! Pillow, `src/libImaging/Resample.c`, the 8-bit path: for each output column (row) the weights of the input columns
//! (rows) beneath the filter, widened by the scale when shrinking, are computed in f64 and rounded to 22 bits after the
//! point; the horizontal pass comes first, and its result is rounded to u8 before the vertical one. Of f64 only
//! + - * / are used, so that the weights are the same on every CPU.
//!
//! | module | duty |
//! |---|---|
//! | `plain` | the two passes: the specification |
//! | `avx2`, `neon` | the same for x86-64 and 64-bit ARM, bit for bit |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;

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

    let passes = Passes::best();
    let needed = rows.inputs();
    let stride = window.width * 3;
    let mut narrow = vec![0; needed.len() * stride];
    let mut padded = vec![0; image.width * 3 + MARGIN];
    for (output, y) in narrow.chunks_exact_mut(stride).zip(needed.clone()) {
        let rest = &image.data[y * image.width * 3..];
        if rest.len() >= padded.len() {
            (passes.horizontal)(rest, &columns, output);
        } else {
            padded[..image.width * 3].copy_from_slice(&rest[..image.width * 3]);
            (passes.horizontal)(&padded, &columns, output);
        }
    }
    let mut data = vec![0; window.height * stride];
    for (output, (start, weights)) in data.chunks_exact_mut(stride).zip(rows.iter()) {
        let start = (start - needed.start) * stride;
        (passes.vertical)(&narrow[start..], weights, output);
    }
    Ok(Pixels {
        width: window.width,
        height: window.height,
        data,
    })
}

/// Bytes that a horizontal pass may read behind the end of a row.
const MARGIN: usize = 16;

/// The two passes for an instruction set.
struct Passes {
    /// A row and at least [`MARGIN`] bytes more, whatever they are; the taps of the columns; the narrowed row.
    horizontal: fn(&[u8], &Taps, &mut [u8]),
    /// Rows as long as the result, from the first beneath the tap on; its weights; the result.
    vertical: fn(&[u8], &[i32], &mut [u8]),
}

impl Passes {
    /// The specification.
    const PLAIN: Self = Self {
        horizontal: plain::horizontal,
        vertical: plain::vertical,
    };

    /// The fastest that the processor can run.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        let passes = avx2::passes();
        #[cfg(target_arch = "aarch64")]
        let passes = neon::passes();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let passes = None;
        passes.unwrap_or(Self::PLAIN)
    }
}

/// The outputs of one direction: which inputs each is made of, and their weights.
#[derive(Default)]
struct Taps {
    /// Of each output the first input and the number of inputs.
    inputs: Vec<(usize, usize)>,
    /// Of each output equally many, in fours; zeros behind those of its inputs.
    weights: Vec<[i32; 4]>,
}

impl Taps {
    /// Of each output the first input and the weights from there on.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.quads();
        weights
            .zip(&self.inputs)
            .map(|((start, weights), &(_, count))| (start, &weights.as_flattened()[..count]))
    }

    /// Of each output the first input and the weights from there on, in fours.
    fn quads(&self) -> impl Iterator<Item = (usize, &[[i32; 4]])> {
        let each = self.weights.len() / self.inputs.len().max(1);
        self.inputs
            .iter()
            .zip(self.weights.chunks_exact(each.max(1)))
            .map(|(&(start, count), weights)| (start, &weights[..count.div_ceil(4)]))
    }

    /// From the first to the last input of any output.
    fn inputs(&self) -> Range<usize> {
        let first = self.inputs.first().map_or(0, |(start, _)| *start);
        let last = self.inputs.last().map_or(0, |(start, count)| start + count);
        first..last
    }
}

/// The taps of `outputs`, which lie `scale` inputs apart from `start` on, of `input` inputs.
fn taps(input: usize, (start, scale): (f64, f64), outputs: Range<usize>, filter: Filter) -> Taps {
    let filter_scale = if scale < 1.0 { 1.0 } else { scale };
    let support = filter.radius() * filter_scale;
    let to_filter = 1.0 / filter_scale;
    // As many as lie within the support on either side, and the one in the middle.
    let most = (2.0 * support) as usize + 2;
    let mut taps = Taps {
        inputs: Vec::with_capacity(outputs.len()),
        weights: vec![[0; 4]; outputs.len() * most.div_ceil(4)],
    };
    let mut weights: Vec<f64> = Vec::with_capacity(most);
    for (index, output) in outputs.zip(taps.weights.chunks_exact_mut(most.div_ceil(4))) {
        let center = start + (index as f64 + 0.5) * scale;
        // Conversion to an integer saturates below at 0, as Pillow's clamp does.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        weights.clear();
        weights.extend(
            (first..end)
                .map(|position| filter.weight((position as f64 - center + 0.5) * to_filter)),
        );
        let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
        for (output, weight) in output.as_flattened_mut().iter_mut().zip(&weights) {
            let weight = if sum == 0.0 { *weight } else { weight / sum };
            let scaled = weight * f64::from(1 << PRECISION_BITS);
            *output = (if scaled < 0.0 {
                scaled - 0.5
            } else {
                scaled + 0.5
            }) as i32;
        }
        taps.inputs.push((first, weights.len()));
    }
    taps
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

/// Half of the last bit, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

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

    /// Also with weights and sums that no filter gives.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let mut state = 7_u64;
        let mut random = move |end: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % end
        };
        let passes = Passes::best();
        for round in 0..2_000 {
            let (input, output) = (1 + random(90), 1 + random(90));
            let filter = [Filter::Bilinear, Filter::Bicubic][round % 2];
            let scale = input as f64 / output as f64;
            let first = random(output);
            let mut taps = taps(input, (0.0, scale), first..output, filter);
            if round % 3 == 0 {
                let each = taps.weights.len() / taps.inputs.len();
                for (weights, (_, count)) in taps.weights.chunks_mut(each).zip(&taps.inputs) {
                    for weight in &mut weights.as_flattened_mut()[..*count] {
                        *weight = (random(1 << 31) as i32).wrapping_mul(2);
                    }
                }
            }
            let row: Vec<u8> = (0..input * 3 + MARGIN).map(|_| random(256) as u8).collect();
            let mut results = [&Passes::PLAIN, &passes].map(|passes| {
                let mut output = vec![0; taps.inputs.len() * 3];
                (passes.horizontal)(&row, &taps, &mut output);
                output
            });
            assert_eq!(
                results[0], results[1],
                "{input} to {first}..{output}, {filter:?}"
            );

            let width = 1 + random(150);
            let (start, weights) = taps.iter().nth(random(taps.inputs.len())).unwrap();
            let rows: Vec<u8> = (0..weights.len() * width)
                .map(|_| random(256) as u8)
                .collect();
            results = [&Passes::PLAIN, &passes].map(|passes| {
                let mut output = vec![0; width];
                (passes.vertical)(&rows, weights, &mut output);
                output
            });
            assert_eq!(
                results[0], results[1],
                "{width} columns, {start}, {weights:?}"
            );
        }
    }

    #[test]
    fn an_area_is_resized_as_pillow_does() {
        let image = picture(61, 47);
        for (left, top, width, height, filter, expected) in [
            (0.0, 0.0, 60.125, 46.5, Filter::Bilinear, "9bb5e9adc3738547"),
            (0.0, 0.0, 60.125, 46.5, Filter::Bicubic, "684c4ce7ca78d647"),
            (
                0.875,
                0.5,
                60.125,
                46.5,
                Filter::Bilinear,
                "551fb0f25a763d50",
            ),
            (
                0.875,
                0.5,
                60.125,
                46.5,
                Filter::Bicubic,
                "2be0f25c1124203a",
            ),
        ] {
            let area = Area {
                left,
                top,
                width,
                height,
            };
            let resized = resize(&image, area, 40, 31, filter, Window::whole(40, 31)).unwrap();
            assert_eq!(hex(&sha256(&resized.data))[..16], *expected, "{area:?}");
        }
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
