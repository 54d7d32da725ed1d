//! Image file -> RGB8, by content: JPEG through `zune-jpeg`, PNG through `image`; orientation applied.
//!
//! `zune-jpeg` gives the same bits with and without SIMD and on every CPU. It runs in its strict mode: a file that is
//! cut off or whose coded data is damaged is refused, rather than filled up with grey.

use std::any::Any;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{ImageDecoder, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::error::{Context, Error, Result};
use crate::limits::{
    MAX_DECODED_BYTES, MAX_IMAGE_FILE_BYTES, MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE, MAX_JPEG_SCANS,
    MAX_PNG_EXTRA_BYTES, MAX_PROGRESSIVE_PIXELS,
};
use crate::preprocess::Pixels;

/// Decodes a JPEG or PNG file, whatever its name, to RGB8 as a viewer shows it.
///
/// EXIF orientation is applied. Grey becomes three equal channels, CMYK is converted without a colour profile, 16-bit
/// samples are rounded to 8, and what is transparent is laid on white. Of an animation the first image counts. Colour
/// profiles are not applied.
///
/// # Errors
/// When the file is empty, too large, of another format, damaged or cut off, or announces more pixels than
/// [`MAX_IMAGE_PIXELS`]: that is read from its header, before anything is decoded. A panic inside a decoder is an error
/// too.
pub fn decode(image_file: &[u8]) -> Result<Pixels> {
    if image_file.len() > MAX_IMAGE_FILE_BYTES {
        return Err(Error::new(format!(
            "the image file has {} bytes, at most {MAX_IMAGE_FILE_BYTES} are possible",
            image_file.len()
        )));
    }
    let (name, decoder): (_, fn(&[u8]) -> Result<Pixels>) = match format(image_file) {
        Format::Jpeg => ("JPEG", decode_jpeg),
        Format::Png => ("PNG", decode_png),
        Format::Empty => return Err(Error::new("the image file is empty")),
        Format::Other(name) => {
            return Err(Error::new(format!(
                "{name} images are not supported, only JPEG and PNG"
            ))
            .hint("convert the image to JPEG or PNG first"));
        }
        Format::Unknown => return Err(Error::new("this is not a JPEG or PNG image")),
    };
    // The decoders keep no state beyond the call that panicked.
    catch_unwind(AssertUnwindSafe(|| decoder(image_file)))
        .unwrap_or_else(|panic| {
            Err(Error::new(format!(
                "the decoder failed: {}",
                panic_message(&*panic)
            )))
        })
        .with_context(|| format!("can't decode the {name} image"))
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    Other(&'static str),
    Empty,
    Unknown,
}

fn format(bytes: &[u8]) -> Format {
    let at = |offset: usize, magic: &[u8]| {
        bytes
            .get(offset..)
            .is_some_and(|bytes| bytes.starts_with(magic))
    };
    // ISO base media files: the brand follows the box's length and `ftyp`.
    let brand = |names: &[&[u8; 4]]| at(4, b"ftyp") && names.iter().any(|&name| at(8, name));
    match () {
        () if bytes.is_empty() => Format::Empty,
        () if at(0, b"\xff\xd8\xff") => Format::Jpeg,
        () if at(0, b"\x89PNG\r\n\x1a\n") => Format::Png,
        () if brand(&[
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
        ]) =>
        {
            Format::Other("HEIC (HEIF)")
        }
        () if brand(&[b"avif", b"avis"]) => Format::Other("AVIF"),
        () if brand(&[b"crx "]) => Format::Other("camera raw"),
        () if at(4, b"ftyp") => Format::Other("video files or unknown"),
        () if at(0, b"RIFF") && at(8, b"WEBP") => Format::Other("WebP"),
        () if at(0, b"GIF87a") || at(0, b"GIF89a") => Format::Other("GIF"),
        () if at(0, b"II*\0") || at(0, b"MM\0*") => Format::Other("TIFF (or camera raw)"),
        () if at(0, b"BM") => Format::Other("BMP"),
        () if at(0, b"\xff\x0a") || at(0, b"\0\0\0\x0cJXL \r\n\x87\n") => Format::Other("JPEG XL"),
        () if at(0, b"\0\0\0\x0cjP  \r\n\x87\n") || at(0, b"\xff\x4f\xff\x51") => {
            Format::Other("JPEG 2000")
        }
        () if at(0, b"\0\0\x01\0") => Format::Other("ICO"),
        () if at(0, b"8BPS") => Format::Other("Photoshop"),
        () if at(0, b"%PDF") => Format::Other("PDF"),
        () if at(0, b"<svg") => Format::Other("SVG"),
        () => Format::Unknown,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

fn check_pixels(width: u64, height: u64, most: u64) -> Result<()> {
    // Sides are 32 bits at most: the product does not overflow.
    if width * height > most {
        return Err(Error::new(format!(
            "the image has {width} x {height} pixels, at most {most} are possible"
        ))
        .hint("scale the image down first"));
    }
    Ok(())
}

fn decode_jpeg(bytes: &[u8]) -> Result<Pixels> {
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(MAX_IMAGE_SIDE as usize)
        .set_max_height(MAX_IMAGE_SIDE as usize)
        .jpeg_set_max_scans(MAX_JPEG_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().context("damaged header")?;
    let info = decoder.info().context("no frame in the header")?;
    let most = if info.sof.is_progressive() {
        MAX_PROGRESSIVE_PIXELS
    } else {
        MAX_IMAGE_PIXELS
    };
    check_pixels(info.width.into(), info.height.into(), most)?;
    let data = decoder.decode().context("damaged or cut off")?;
    let orientation = info
        .exif_data
        .as_deref()
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    oriented(info.width.into(), info.height.into(), data, orientation)
}

fn decode_png(bytes: &[u8]) -> Result<Pixels> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_IMAGE_SIDE);
    limits.max_image_height = Some(MAX_IMAGE_SIDE);
    limits.max_alloc = Some(MAX_PNG_EXTRA_BYTES);
    let mut decoder =
        PngDecoder::with_limits(Cursor::new(bytes), limits).context("damaged header")?;
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), MAX_IMAGE_PIXELS)?;
    let orientation = decoder.orientation().context("damaged header")?;
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
    let mut samples = vec![0; size];
    decoder
        .read_image(&mut samples)
        .context("damaged or cut off")?;
    if color.bytes_per_pixel() > color.channel_count() {
        samples = samples
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&sample| narrow(u16::from_ne_bytes(sample)))
            .collect();
    }
    let data = match color.channel_count() {
        1 => rgb(&samples, |[grey]| [grey; 3]),
        2 => rgb(&samples, |[grey, alpha]| [on_white(grey, alpha); 3]),
        3 => samples,
        _ => rgb(&samples, |[red, green, blue, alpha]| {
            [red, green, blue].map(|value| on_white(value, alpha))
        }),
    };
    oriented(width, height, data, orientation)
}

/// Pixels of any channels to RGB8.
fn rgb<const CHANNELS: usize>(
    samples: &[u8],
    convert: impl Fn([u8; CHANNELS]) -> [u8; 3],
) -> Vec<u8> {
    let pixels = samples.as_chunks::<CHANNELS>().0;
    pixels.iter().flat_map(|&pixel| convert(pixel)).collect()
}

/// A 16-bit sample to the nearest 8-bit one.
fn narrow(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32_767) / 65_535) as u8
}

/// A sample of that opacity on white, to the nearest integer.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// The image as its EXIF orientation says to show it (EXIF 2.32, tag 0x0112).
fn oriented(width: u32, height: u32, data: Vec<u8>, orientation: Orientation) -> Result<Pixels> {
    let (width, height) = (width as usize, height as usize);
    let image = Pixels {
        width,
        height,
        data,
    };
    image.validate()?;
    // Which pixel becomes the first, and which way its neighbours in the row and in the column are taken from.
    let (last_column, last_row) = (width - 1, (height - 1) * width);
    let (across, down) = (1, width as isize);
    let (first, right, below) = match orientation {
        Orientation::NoTransforms => return Ok(image),
        Orientation::FlipHorizontal => (last_column, -across, down),
        Orientation::Rotate180 => (last_row + last_column, -across, -down),
        Orientation::FlipVertical => (last_row, across, -down),
        Orientation::Rotate90FlipH => (0, down, across),
        Orientation::Rotate90 => (last_row, -down, across),
        Orientation::Rotate270FlipH => (last_row + last_column, -down, -across),
        Orientation::Rotate270 => (last_column, down, -across),
    };
    let (width, height) = if right.abs() == across {
        (width, height)
    } else {
        (height, width)
    };
    // By tiles, so that what is read stays in the cache also where rows become columns.
    const TILE: usize = 32;
    let source = image.data.as_chunks::<3>().0;
    let mut data = vec![0; image.data.len()];
    let output = data.as_chunks_mut::<3>().0;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for y in top..height.min(top + TILE) {
                let mut from = first
                    .wrapping_add_signed(y as isize * below)
                    .wrapping_add_signed(left as isize * right);
                for pixel in &mut output[y * width..][left..width.min(left + TILE)] {
                    *pixel = source[from];
                    from = from.wrapping_add_signed(right);
                }
            }
        }
    }
    Ok(Pixels {
        width,
        height,
        data,
    })
}
