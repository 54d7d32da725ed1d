//! BMP through `image`.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::metadata::Orientation;

use super::samples::read;
use crate::error::{Context, Result};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).context("damaged header")?;
    read(decoder, Orientation::NoTransforms)
}
