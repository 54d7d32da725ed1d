//! PNG through `image`. Compressed text is never inflated, a colour profile to [`MAX_PNG_EXTRA_BYTES`] at most.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ImageDecoder, Limits};

use super::samples::read;
use crate::error::{Context, Result};
use crate::limits::{MAX_IMAGE_SIDE, MAX_PNG_EXTRA_BYTES};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_IMAGE_SIDE);
    limits.max_image_height = Some(MAX_IMAGE_SIDE);
    limits.max_alloc = Some(MAX_PNG_EXTRA_BYTES);
    let mut decoder =
        PngDecoder::with_limits(Cursor::new(bytes), limits).context("damaged header")?;
    let orientation = decoder.orientation().context("damaged header")?;
    read(decoder, orientation, most)
}
