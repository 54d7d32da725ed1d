//! GIF through `image`: the first image, laid on its canvas.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::metadata::Orientation;
use image::{ImageDecoder, Limits};

use super::samples::{check_pixels, memory, read};
use crate::error::{Context, Result};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).context("damaged header")?;
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), most)?;
    // The image in the file may be larger than its canvas: it may take what the canvas leaves.
    let memory = memory(u64::from(width) * u64::from(height));
    let mut limits = Limits::default();
    limits.max_alloc = Some(memory.saturating_sub(decoder.total_bytes()));
    decoder.set_limits(limits).context("too large")?;
    read(decoder, Orientation::NoTransforms, most)
}
