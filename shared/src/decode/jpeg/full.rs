//! JPEG of any kind at its whole size through `zune-jpeg`, which gives the same bits with and without SIMD and on every
//! CPU. It runs in its strict mode.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::orientation;
use crate::decode::orientation::oriented;
use crate::decode::samples::check_pixels;
use crate::error::{Context, Result};
use crate::limits::{
    MAX_IMAGE_SIDE, MAX_JPEG_SCANNED_PIXELS, MAX_JPEG_SCANS, MAX_PROGRESSIVE_PIXELS,
};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(MAX_IMAGE_SIDE as usize)
        .set_max_height(MAX_IMAGE_SIDE as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().context("damaged header")?;
    let info = decoder.info().context("no frame in the header")?;
    let most = if info.sof.is_progressive() {
        most.min(MAX_PROGRESSIVE_PIXELS)
    } else {
        most
    };
    check_pixels(info.width.into(), info.height.into(), most)?;
    if info.sof.is_progressive() {
        let pixels = usize::from(info.width) * usize::from(info.height);
        let scans = MAX_JPEG_SCANS.min(MAX_JPEG_SCANNED_PIXELS / pixels);
        let options = decoder.options().jpeg_set_max_scans(scans);
        decoder.set_options(options);
    }
    let data = decoder.decode().context("damaged or cut off")?;
    let orientation = orientation(info.exif_data.as_deref());
    oriented(info.width.into(), info.height.into(), data, orientation)
}
