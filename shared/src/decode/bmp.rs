//! BMP through `image`.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::metadata::Orientation;

use super::samples::{check_pixels, read};
use crate::error::{Context, Result};
use crate::preprocess::Pixels;

/// Length of the oldest header, whose sides have 16 bits.
const CORE_HEADER: u32 = 12;

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    // What the decoder itself says of a picture that is too large depends on the processor's word.
    if let Some((width, height)) = sides(bytes) {
        check_pixels(width.into(), height.into(), most)?;
    }
    let decoder = BmpDecoder::new(Cursor::new(bytes)).context("damaged header")?;
    read(decoder, Orientation::NoTransforms, most)
}

/// Width and height in the header that follows the file header's 14 bytes; a negative height counts from the top.
fn sides(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if word(14)?.cast_unsigned() == CORE_HEADER {
        return Some((half(18)?.into(), half(20)?.into()));
    }
    Some((word(18)?.unsigned_abs(), word(22)?.unsigned_abs()))
}
