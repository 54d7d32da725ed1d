//! The preprocessing spec and its one implementation: image file -> RGB8 -> resize -> crop or pad -> the model's input.

use serde::{Deserialize, Serialize};

use crate::decode::{Needed, decode_within};
use crate::error::{Error, Result};
use crate::limits::{MAX_IMAGE_PIXELS, MAX_INPUT_SIDE, MIN_CROP_PCT, MIN_INPUT_SIDE};
use crate::resize::{Area, Window, resize};

/// How an image file becomes the model's input. Training, evaluation and the board all use [`Preprocess::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Width of the model's input in pixels.
    pub width: u16,
    /// Height of the model's input in pixels.
    pub height: u16,
    /// What happens where the image has another shape than the input.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: Filter,
    /// Whether a JPEG that is much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size
    /// ([`decode_reduced`](crate::decode::decode_reduced)): several times as fast, and nearly the same pixels.
    pub dct_scaling: bool,
}

/// What happens where the image has another shape than the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Fit {
    /// The image is scaled until it covers the input enlarged by 1 / `crop_pct`, then the middle is cut out.
    Crop {
        /// Share of the scaled image's shorter side that is kept, above 0 and at most 1; counted in millionths.
        crop_pct: f32,
    },
    /// The image is scaled until it fits into the input, then centred; the rest has one colour.
    Pad {
        /// Red, green, blue of the rest.
        colour: [u8; 3],
    },
    /// The image is scaled to the input, whatever that does to its shape.
    Squash,
}

/// The resampling filter, antialiased when it shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Filter {
    /// The triangle of radius 1.
    Bilinear,
    /// Keys' cubic of radius 2 with a = -0.5.
    Bicubic,
}

/// An image in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Red, green, blue of each pixel, row by row from the top left: `height * width * 3` bytes (HWC).
    pub data: Vec<u8>,
}

impl Pixels {
    /// Checks that there is at least one pixel, no more than [`MAX_IMAGE_PIXELS`], and 3 bytes for each.
    ///
    /// # Errors
    /// When the image is empty, too large, or its data does not match its size.
    pub fn validate(&self) -> Result<()> {
        let pixels = (self.width as u64).checked_mul(self.height as u64);
        let Some(pixels) = pixels.filter(|pixels| (1..=MAX_IMAGE_PIXELS).contains(pixels)) else {
            return Err(Error::new(format!(
                "an image of {} x {} pixels; from 1 to {MAX_IMAGE_PIXELS} pixels are possible",
                self.width, self.height
            )));
        };
        if self.data.len() as u64 != pixels * 3 {
            return Err(Error::new(format!(
                "{} bytes for {} x {} pixels, but RGB8 takes {}",
                self.data.len(),
                self.width,
                self.height,
                pixels * 3
            )));
        }
        Ok(())
    }
}

impl Preprocess {
    /// Checks that the numbers make sense: what a decoded card holds has passed this.
    ///
    /// # Errors
    /// When a side is outside [`MIN_INPUT_SIDE`]..=[`MAX_INPUT_SIDE`] or `crop_pct` outside [`MIN_CROP_PCT`]..=1.
    pub fn validate(&self) -> Result<()> {
        for (name, side) in [("width", self.width), ("height", self.height)] {
            if !(MIN_INPUT_SIDE..=MAX_INPUT_SIDE).contains(&side) {
                return Err(Error::new(format!(
                    "input {name} of {side} pixels; from {MIN_INPUT_SIDE} to {MAX_INPUT_SIDE} are possible"
                )));
            }
        }
        match self.fit {
            // A NaN is in no range.
            Fit::Crop { crop_pct } if !(MIN_CROP_PCT..=1.0).contains(&crop_pct) => Err(Error::new(
                format!("crop_pct {crop_pct}; from {MIN_CROP_PCT} to 1 is possible"),
            )),
            _ => Ok(()),
        }
    }

    /// The model's input, `[height, width, 3]`, from the bytes of an image file.
    ///
    /// The same bits on every CPU.
    ///
    /// # Errors
    /// When the file can't be decoded, or the spec is invalid.
    pub fn apply(&self, image_file: &[u8]) -> Result<Pixels> {
        self.apply_within(image_file, MAX_IMAGE_PIXELS)
    }

    /// [`Preprocess::apply`], but an image that has to be decoded whole may have at most `most` pixels.
    ///
    /// # Errors
    /// As [`Preprocess::apply`].
    pub fn apply_within(&self, image_file: &[u8], most: u64) -> Result<Pixels> {
        self.validate()?;
        let reduced = |width, height| self.scaled(width, height);
        let whole = |width, height| (width, height);
        let needed: Needed<'_> = if self.dct_scaling { &reduced } else { &whole };
        let image = decode_within(image_file, needed, most)?;
        self.fit(
            &image.pixels,
            image.area,
            self.scaled(image.width, image.height),
        )
    }

    /// The model's input, `[height, width, 3]`, from an image in memory, at its own size.
    ///
    /// # Errors
    /// When the image or the spec is invalid.
    pub fn apply_pixels(&self, image: &Pixels) -> Result<Pixels> {
        self.validate()?;
        image.validate()?;
        let area = Area::whole(image.width, image.height);
        self.fit(image, area, self.scaled(image.width, image.height))
    }

    /// The size to which an image of that size, at least one pixel each way, is scaled.
    fn scaled(&self, image_width: usize, image_height: usize) -> (usize, usize) {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let image = (image_width, image_height);
        match self.fit {
            Fit::Crop { crop_pct } => cover(image, width, height, millionths(crop_pct)),
            Fit::Pad { .. } => contain(image, width, height),
            Fit::Squash => (width, height),
        }
    }

    /// Scales the part `area` of the image, then crops or pads.
    fn fit(&self, image: &Pixels, area: Area, scaled: (usize, usize)) -> Result<Pixels> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let (scaled_width, scaled_height) = scaled;
        let resized = |window| {
            resize(
                image,
                area,
                scaled_width,
                scaled_height,
                self.filter,
                window,
            )
        };
        match self.fit {
            Fit::Crop { .. } => resized(Window {
                left: half_to_even(scaled_width - width),
                top: half_to_even(scaled_height - height),
                width,
                height,
            }),
            Fit::Pad { colour } => {
                let scaled = resized(Window::whole(scaled_width, scaled_height))?;
                let left = half_to_even(width - scaled_width);
                let top = half_to_even(height - scaled_height);
                Ok(pad(&scaled, width, height, left, top, colour))
            }
            Fit::Squash => resized(Window::whole(width, height)),
        }
    }
}

/// `crop_pct` in millionths, so that 224 / 0.8 is 280 although 0.8 is no binary fraction.
fn millionths(crop_pct: f32) -> usize {
    (f64::from(crop_pct) * 1e6 + 0.5) as usize
}

/// The size to scale to so that the input enlarged by 1 / crop_pct is covered, as timm and torchvision have it for a
/// square input: the shorter side becomes floor(size / crop_pct), the longer floor(that * long / short).
fn cover(
    image: (usize, usize),
    width: usize,
    height: usize,
    crop_millionths: usize,
) -> (usize, usize) {
    let width = width * 1_000_000 / crop_millionths;
    let height = height * 1_000_000 / crop_millionths;
    if wider(image, width, height) {
        (height * image.0 / image.1, height)
    } else {
        (width, width * image.1 / image.0)
    }
}

/// The size to scale to so that the image fits into the input, as Pillow's `ImageOps.contain` has it.
fn contain(image: (usize, usize), width: usize, height: usize) -> (usize, usize) {
    if wider(image, width, height) {
        let scaled = divide_to_even(width * image.1, image.0);
        (width, scaled.max(1))
    } else {
        let scaled = divide_to_even(height * image.0, image.1);
        (scaled.max(1), height)
    }
}

/// Whether the image is at least as wide for its height as the given box.
fn wider(image: (usize, usize), width: usize, height: usize) -> bool {
    image.0 as u64 * height as u64 >= image.1 as u64 * width as u64
}

/// numerator / denominator to the nearest integer, halves to the even one, as Python's `round`.
fn divide_to_even(numerator: usize, denominator: usize) -> usize {
    let (quotient, rest) = (numerator / denominator, numerator % denominator);
    match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Equal => quotient + quotient % 2,
        std::cmp::Ordering::Greater => quotient + 1,
    }
}

/// Where the middle begins: half of what is left over.
fn half_to_even(excess: usize) -> usize {
    divide_to_even(excess, 2)
}

fn pad(
    image: &Pixels,
    width: usize,
    height: usize,
    left: usize,
    top: usize,
    colour: [u8; 3],
) -> Pixels {
    let mut data = colour.repeat(width * height);
    let rows = data.chunks_exact_mut(width * 3).skip(top);
    for (row, source) in rows.zip(image.data.chunks_exact(image.width * 3)) {
        row[left * 3..][..source.len()].copy_from_slice(source);
    }
    Pixels {
        width,
        height,
        data,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn image(width: usize, height: usize) -> Pixels {
        Pixels {
            width,
            height,
            data: (0..width * height * 3).map(|index| index as u8).collect(),
        }
    }

    fn spec(width: u16, height: u16, fit: Fit) -> Preprocess {
        Preprocess {
            width,
            height,
            fit,
            filter: Filter::Bicubic,
            dct_scaling: true,
        }
    }

    #[test]
    fn crop_scales_as_torchvision_does() {
        // torchvision: Resize(floor(size / crop_pct)).
        for (width, height, size, crop_pct, expected) in [
            (500, 375, 224, 0.875, (341, 256)),
            (375, 500, 224, 0.875, (256, 341)),
            (300, 300, 224, 0.875, (256, 256)),
            (640, 480, 224, 0.8, (373, 280)),
            (640, 480, 240, 0.9, (354, 266)),
            (100, 1, 224, 1.0, (22_400, 224)),
            (256, 192, 224, 0.7, (426, 320)),
        ] {
            let scaled = cover((width, height), size, size, millionths(crop_pct));
            assert_eq!(scaled, expected, "{width} x {height}, {crop_pct}");
        }
        // Not square: the scaled image covers 200 x 100.
        assert_eq!(cover((400, 100), 200, 100, 1_000_000), (400, 100));
        assert_eq!(cover((100, 100), 200, 100, 1_000_000), (200, 200));
        assert_eq!(cover((100, 100), 200, 100, 500_000), (400, 400));
    }

    #[test]
    fn the_middle_is_rounded_half_to_even() {
        assert_eq!([0, 1, 2, 3, 5, 117].map(half_to_even), [0, 0, 1, 2, 2, 58]);
        // 11 columns, 8 wanted: 1.5 left over on each side, so columns 2 to 9.
        let input = spec(8, 8, Fit::Crop { crop_pct: 1.0 })
            .apply_pixels(&image(11, 8))
            .unwrap();
        assert_eq!(input.data[..24], image(11, 8).data[6..30]);
    }

    #[test]
    fn pad_centres_on_its_colour() {
        let colour = [9, 8, 7];
        let padded = spec(16, 16, Fit::Pad { colour })
            .apply_pixels(&image(16, 9))
            .unwrap();
        // 7 rows too many: 3.5 above, rounded to 4.
        assert_eq!(padded.data[..4 * 48], colour.repeat(64));
        assert_eq!(padded.data[4 * 48..13 * 48], image(16, 9).data);
        assert_eq!(padded.data[13 * 48..], colour.repeat(48));

        let padded = spec(16, 16, Fit::Pad { colour })
            .apply_pixels(&image(1, 1_000))
            .unwrap();
        assert_eq!(padded.data[..24], colour.repeat(8));
        assert_ne!(padded.data[24..27], colour);
        assert_eq!(contain((300, 200), 224, 224), (224, 149));
        assert_eq!(contain((200, 300), 224, 100), (67, 100));
        // Python's round: 4.5 gives 4.
        assert_eq!(contain((20, 9), 10, 10), (10, 4));
    }

    #[test]
    fn squash_fills_the_input() {
        let squashed = spec(16, 8, Fit::Squash)
            .apply_pixels(&image(16, 8))
            .unwrap();
        assert_eq!(squashed, image(16, 8));
        let squashed = spec(16, 8, Fit::Squash)
            .apply_pixels(&image(3, 77))
            .unwrap();
        assert_eq!((squashed.width, squashed.height), (16, 8));
    }

    #[test]
    fn every_shape_gives_the_input_size() {
        for fit in [
            Fit::Crop { crop_pct: 0.875 },
            Fit::Crop { crop_pct: 0.1 },
            Fit::Pad { colour: [0; 3] },
            Fit::Squash,
        ] {
            for (width, height) in [(1, 1), (1, 700), (700, 1), (2, 3), (640, 481)] {
                for (input_width, input_height) in [(8, 8), (33, 20), (20, 33)] {
                    let input = spec(input_width, input_height, fit)
                        .apply_pixels(&image(width, height))
                        .unwrap();
                    input.validate().unwrap();
                    assert_eq!(input.width, usize::from(input_width));
                    assert_eq!(input.height, usize::from(input_height));
                }
            }
        }
    }

    #[test]
    fn refuses_a_bad_spec_and_a_bad_image() {
        for (width, height, fit, reason) in [
            (7, 224, Fit::Squash, "input width of 7 pixels"),
            (224, 1_025, Fit::Squash, "input height of 1025 pixels"),
            (224, 224, Fit::Crop { crop_pct: 0.0 }, "crop_pct 0;"),
            (224, 224, Fit::Crop { crop_pct: 1.01 }, "crop_pct 1.01;"),
            (224, 224, Fit::Crop { crop_pct: f32::NAN }, "crop_pct NaN;"),
        ] {
            let error = spec(width, height, fit)
                .apply_pixels(&image(9, 9))
                .unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
        let mut broken = image(9, 9);
        broken.data.pop();
        let error = spec(8, 8, Fit::Squash).apply_pixels(&broken).unwrap_err();
        assert!(error.message().contains("242 bytes for 9 x 9 pixels"));
        broken.width = usize::MAX;
        assert!(spec(8, 8, Fit::Squash).apply_pixels(&broken).is_err());
    }
}
