//! What `image`'s decoders give -> RGB8, and the limits on size and memory.

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};

use super::orientation::oriented;
use crate::error::{Context, Error, Result};
use crate::limits::{DECODING_BYTES, DECODING_BYTES_PER_PIXEL, MAX_DECODED_BYTES};
use crate::preprocess::Pixels;

/// Checks what a header says of the image's size.
///
/// # Errors
/// When the image has no pixel or more than `most`.
pub(super) fn check_pixels(width: u64, height: u64, most: u64) -> Result<()> {
    // Sides are 32 bits at most: the product does not overflow.
    let pixels = width * height;
    if pixels == 0 {
        return Err(Error::new(format!(
            "the image has {width} x {height} pixels: none"
        )));
    }
    if pixels > most {
        return Err(Error::new(format!(
            "the image has {width} x {height} pixels, at most {most} are possible"
        ))
        .hint("scale the image down first"));
    }
    Ok(())
}

/// Checks that an image whose decoder takes that many bytes a pixel, the result among them, stays within
/// [`DECODING_BYTES`] and [`DECODING_BYTES_PER_PIXEL`].
pub(super) fn check_memory(width: u32, height: u32, bytes_per_pixel: u64) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    let most = memory(pixels);
    if pixels.saturating_mul(bytes_per_pixel) > most {
        return Err(Error::new(format!(
            "{width} x {height} pixels of this kind take {bytes_per_pixel} bytes each to decode; {most} are possible in all"
        ))
        .hint("scale the image down first, or convert it to JPEG"));
    }
    Ok(())
}

/// Bytes that decoding an image of so many pixels may take.
pub(super) fn memory(pixels: u64) -> u64 {
    DECODING_BYTES.saturating_add(DECODING_BYTES_PER_PIXEL.saturating_mul(pixels))
}

/// Decodes to RGB8, of at most so many pixels, and applies the orientation. The size is checked first.
pub(super) fn read(
    decoder: impl ImageDecoder,
    orientation: Orientation,
    most: u64,
) -> Result<Pixels> {
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), most)?;
    let color = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes())
        .ok()
        .filter(|&size| size <= MAX_DECODED_BYTES)
        .with_context(|| {
            format!(
                "{width} x {height} pixels of {} bytes each; at most {MAX_DECODED_BYTES} bytes are possible",
                color.bytes_per_pixel()
            )
        })?;
    let convert = converter(color)?;
    let mut samples = vec![0; size];
    decoder
        .read_image(&mut samples)
        .context("damaged or cut off")?;
    oriented(width, height, convert(samples), orientation)
}

/// Samples of that kind, `[height, width, channels]` -> RGB8.
fn converter(color: ColorType) -> Result<fn(Vec<u8>) -> Vec<u8>> {
    Ok(match color {
        ColorType::L8 => |samples| rgb(samples, |[grey]| [grey; 3]),
        ColorType::La8 => |samples| rgb(samples, |[grey, alpha]| [on_white(grey, alpha); 3]),
        ColorType::Rgb8 => |samples| samples,
        ColorType::Rgba8 => |samples| {
            rgb(samples, |[red, green, blue, alpha]| {
                [red, green, blue].map(|value| on_white(value, alpha))
            })
        },
        ColorType::L16 => |samples| rgb(samples, |pixel: [u8; 2]| [narrow(pixel)[0]; 3]),
        ColorType::La16 => |samples| {
            rgb(samples, |pixel: [u8; 4]| {
                let [grey, alpha, ..] = narrow(pixel);
                [on_white(grey, alpha); 3]
            })
        },
        ColorType::Rgb16 => |samples| {
            rgb(samples, |pixel: [u8; 6]| {
                let [red, green, blue, ..] = narrow(pixel);
                [red, green, blue]
            })
        },
        ColorType::Rgba16 => |samples| {
            rgb(samples, |pixel: [u8; 8]| {
                let [red, green, blue, alpha] = narrow(pixel);
                [red, green, blue].map(|value| on_white(value, alpha))
            })
        },
        other => {
            return Err(
                Error::new(format!("samples of the kind {other:?} are not supported"))
                    .hint("convert the image to 8 bits a sample first"),
            );
        }
    })
}

/// Pixels of `BYTES` bytes each to RGB8, in place where they don't grow.
fn rgb<const BYTES: usize>(
    mut samples: Vec<u8>,
    convert: impl Fn([u8; BYTES]) -> [u8; 3],
) -> Vec<u8> {
    if BYTES < 3 {
        let pixels = samples.as_chunks::<BYTES>().0;
        return pixels.iter().flat_map(|&pixel| convert(pixel)).collect();
    }
    let pixels = samples.len() / BYTES;
    let bytes: &mut [u8] = &mut samples;
    for index in 0..pixels {
        let mut pixel = [0; BYTES];
        pixel.copy_from_slice(&bytes[index * BYTES..][..BYTES]);
        bytes[index * 3..][..3].copy_from_slice(&convert(pixel));
    }
    samples.truncate(pixels * 3);
    samples.shrink_to_fit();
    samples
}

/// Up to four 16-bit samples, in the processor's byte order, to the nearest 8-bit ones.
fn narrow<const BYTES: usize>(pixel: [u8; BYTES]) -> [u8; 4] {
    let mut narrowed = [0; 4];
    for (narrowed, &sample) in narrowed.iter_mut().zip(pixel.as_chunks::<2>().0) {
        let sample = u32::from(u16::from_ne_bytes(sample));
        *narrowed = ((sample * 255 + 32_767) / 65_535) as u8;
    }
    narrowed
}

/// A sample of that opacity on white, to the nearest integer.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
