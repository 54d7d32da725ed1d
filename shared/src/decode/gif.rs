//! GIF through `image`: the first image, laid on its canvas.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::gif::GifDecoder;
use image::metadata::Orientation;

use super::samples::{limits, read};
use crate::error::{Context, Result};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).context("damaged header")?;
    // The image in the file may be larger than its canvas.
    let limits = limits(&decoder);
    decoder.set_limits(limits).context("too large")?;
    read(decoder, Orientation::NoTransforms)
}
