//! WebP through `image`: lossy, lossless, with alpha; of an animation the first frame.
//!
//! The container is walked here first (RFC 9649, section 2): the decoder would take what it says for granted, and
//! reserve memory for more than there is.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;

use super::samples::{check_memory, check_pixels, read};
use crate::error::{Context, Error, Result};
use crate::preprocess::Pixels;

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    let container = Container::walk(bytes)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes)).context("damaged header")?;
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), most)?;
    // The decoder would decode a frame of any size before it finds that it is not the image's.
    if let Some((frame_width, frame_height)) = container.lossy_frame
        && (frame_width > width || frame_height > height)
    {
        return Err(Error::new(format!(
            "damaged: a frame of {frame_width} x {frame_height} pixels in an image of {width} x {height}"
        )));
    }
    // Result, frame and canvas, each with alpha; or result, frame and its alpha as an image.
    let layers = decoder.has_animation() || container.lossy_alpha;
    check_memory(width, height, if layers { 12 } else { 8 })?;
    let orientation = container
        .exif
        .map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    read(decoder, orientation, most)
}

/// What the chunks of a file say.
#[derive(Debug, Default)]
struct Container<'a> {
    exif: Option<&'a [u8]>,
    /// Width and height of the first lossy frame.
    lossy_frame: Option<(u32, u32)>,
    lossy_alpha: bool,
}

impl<'a> Container<'a> {
    fn walk(bytes: &'a [u8]) -> Result<Self> {
        let mut container = Self::default();
        container.chunks(bytes.get(12..).context("cut off in its header")?)?;
        Ok(container)
    }

    fn chunks(&mut self, mut bytes: &'a [u8]) -> Result<()> {
        while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
            let [a, b, c, d, length @ ..] = *head;
            let length = u32::from_le_bytes(length) as usize;
            let content = rest.get(..length).context("cut off")?;
            match &[a, b, c, d] {
                b"EXIF" => self.exif = self.exif.or(Some(content)),
                b"ALPH" => self.lossy_alpha = true,
                b"VP8 " => self.lossy_frame = self.lossy_frame.or(lossy_size(content)),
                // A frame of an animation: 16 bytes of header, then chunks.
                b"ANMF" if self.lossy_frame.is_none() => {
                    self.chunks(content.get(16..).unwrap_or_default())?;
                }
                _ => {}
            }
            // Chunks begin at even offsets; a missing last byte of padding does no harm.
            bytes = rest.get(length + length % 2..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Width and height of a VP8 key frame (RFC 6386, section 9.1), of 14 bits each.
fn lossy_size(frame: &[u8]) -> Option<(u32, u32)> {
    let &[width_low, width_high, height_low, height_high] = frame.get(6..)?.first_chunk()?;
    let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
    Some((
        side([width_low, width_high]),
        side([height_low, height_high]),
    ))
}
