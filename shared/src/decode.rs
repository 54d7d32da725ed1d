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
    let (name, decoder): (_, Decoder) = match format(image_file) {
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

type Decoder = fn(&[u8]) -> Result<Pixels>;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    // 40 x 24 pixels: red 6x, green 10y, blue 255 - 3x - 4y.
    const BASELINE: &[u8] = include_bytes!("../tests/pictures/baseline.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../tests/pictures/progressive.jpg");
    const CMYK: &[u8] = include_bytes!("../tests/pictures/cmyk.jpg");
    const GREY: &[u8] = include_bytes!("../tests/pictures/grey.jpg");

    fn pixel(image: &Pixels, x: usize, y: usize) -> [u8; 3] {
        let start = (y * image.width + x) * 3;
        image.data[start..start + 3].try_into().unwrap()
    }

    fn assert_near(actual: [u8; 3], expected: [u8; 3]) {
        let near = actual.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 8);
        assert!(near, "{actual:?} is not near {expected:?}");
    }

    #[test]
    fn jpegs_of_every_kind() {
        for (file, grey) in [
            (BASELINE, false),
            (PROGRESSIVE, false),
            (CMYK, false),
            (GREY, true),
        ] {
            let image = decode(file).unwrap();
            assert_eq!((image.width, image.height), (40, 24));
            for (x, y, luma) in [(2, 2, 43), (36, 2, 92), (20, 20, 166)] {
                let colour = [6 * x, 10 * y, 255 - 3 * x - 4 * y].map(|value| value as u8);
                let expected = if grey { [luma; 3] } else { colour };
                assert_near(pixel(&image, x, y), expected);
            }
        }
    }

    /// The baseline picture with an EXIF segment that holds the orientation and nothing else.
    fn with_orientation(orientation: u8, big_endian: bool) -> Vec<u8> {
        let tiff: &[u8] = if big_endian {
            &[
                b'M',
                b'M',
                0,
                42,
                0,
                0,
                0,
                8,
                0,
                1,
                1,
                0x12,
                0,
                3,
                0,
                0,
                0,
                1,
                0,
                orientation,
                0,
                0,
                0,
                0,
                0,
                0,
            ]
        } else {
            &[
                b'I',
                b'I',
                42,
                0,
                8,
                0,
                0,
                0,
                1,
                0,
                0x12,
                1,
                3,
                0,
                1,
                0,
                0,
                0,
                orientation,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ]
        };
        let length = u16::try_from(2 + 6 + tiff.len()).unwrap().to_be_bytes();
        [
            &BASELINE[..2],
            &[0xff, 0xe1],
            &length,
            b"Exif\0\0",
            tiff,
            &BASELINE[2..],
        ]
        .concat()
    }

    #[test]
    fn exif_orientation_is_applied() {
        let plain = decode(BASELINE).unwrap();
        let (right, bottom) = (plain.width - 1, plain.height - 1);
        // Where the stored pixel (3, 5) is shown.
        let shown = [
            (3, 5),
            (right - 3, 5),
            (right - 3, bottom - 5),
            (3, bottom - 5),
            (5, 3),
            (bottom - 5, 3),
            (bottom - 5, right - 3),
            (5, right - 3),
        ];
        for (orientation, (x, y)) in (1..).zip(shown) {
            for big_endian in [false, true] {
                let image = decode(&with_orientation(orientation, big_endian)).unwrap();
                let turned = orientation > 4;
                let size = if turned { (24, 40) } else { (40, 24) };
                assert_eq!((image.width, image.height), size);
                assert_eq!(pixel(&image, x, y), pixel(&plain, 3, 5), "{orientation}");
            }
        }
        for meaningless in [0, 9, 255] {
            assert_eq!(
                decode(&with_orientation(meaningless, false)).unwrap(),
                plain
            );
        }
    }

    /// Orientation by its definition, on an image larger than a tile.
    #[test]
    fn every_pixel_is_where_its_orientation_says() {
        let (width, height) = (75_usize, 43_usize);
        let data: Vec<u8> = (0..width * height * 3)
            .map(|index| (index * 7 / 3) as u8)
            .collect();
        let stored = Pixels {
            width,
            height,
            data: data.clone(),
        };
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number).unwrap();
            let shown = oriented(75, 43, data.clone(), orientation).unwrap();
            for y in 0..shown.height {
                for x in 0..shown.width {
                    let (column, row) = match number {
                        1 => (x, y),
                        2 => (width - 1 - x, y),
                        3 => (width - 1 - x, height - 1 - y),
                        4 => (x, height - 1 - y),
                        5 => (y, x),
                        6 => (y, height - 1 - x),
                        7 => (width - 1 - y, height - 1 - x),
                        _ => (width - 1 - y, x),
                    };
                    assert_eq!(pixel(&shown, x, y), pixel(&stored, column, row));
                }
            }
        }
    }

    fn png(width: u32, height: u32, color: ExtendedColorType, samples: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        PngEncoder::new(&mut file)
            .write_image(samples, width, height, color)
            .unwrap();
        file
    }

    #[test]
    fn pngs_of_every_kind() {
        use ExtendedColorType as Color;
        let wide = |samples: &[u16]| -> Vec<u8> {
            samples
                .iter()
                .flat_map(|sample| sample.to_ne_bytes())
                .collect()
        };
        for (color, samples, expected) in [
            (Color::L8, vec![0, 200], [0, 0, 0, 200, 200, 200]),
            (Color::Rgb8, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
            (
                Color::La8,
                vec![10, 255, 10, 0],
                [10, 10, 10, 255, 255, 255],
            ),
            (
                Color::Rgba8,
                vec![10, 20, 30, 255, 0, 100, 200, 51],
                [10, 20, 30, 204, 224, 244],
            ),
            (Color::L16, wide(&[0x8000, 129]), [128, 128, 128, 1, 1, 1]),
            (
                Color::Rgb16,
                wide(&[0xffff, 0, 257, 128, 0xff80, 0xff7f]),
                [255, 0, 1, 0, 255, 255],
            ),
            (
                Color::La16,
                wide(&[257, 0xffff, 0, 0]),
                [1, 1, 1, 255, 255, 255],
            ),
            (
                Color::Rgba16,
                wide(&[257, 514, 771, 0xffff, 0, 0, 0, 0x8080]),
                [1, 2, 3, 127, 127, 127],
            ),
        ] {
            let image = decode(&png(2, 1, color, &samples)).unwrap();
            assert_eq!((image.width, image.height), (2, 1));
            assert_eq!(image.data, expected, "{color:?}");
        }
    }

    #[test]
    fn png_orientation_is_applied() {
        let exif = vec![
            b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0,
        ];
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_exif_metadata(exif).unwrap();
        encoder
            .write_image(&[1, 2], 2, 1, ExtendedColorType::L8)
            .unwrap();
        let image = decode(&file).unwrap();
        assert_eq!((image.width, image.height), (1, 2));
        assert_eq!(image.data, [1, 1, 1, 2, 2, 2]);
    }

    fn refused(file: &[u8]) -> String {
        decode(file).unwrap_err().line()
    }

    #[test]
    fn other_files_are_refused_by_name() {
        for (file, name) in [
            (&b""[..], "the image file is empty"),
            (b"hello", "not a JPEG or PNG image"),
            (b"\xff\xd8", "not a JPEG or PNG image"),
            (
                b"\0\0\0\x18ftypheic....",
                "HEIC (HEIF) images are not supported",
            ),
            (b"\0\0\0\x18ftypavif....", "AVIF images are not supported"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP images are not supported"),
            (b"GIF89a", "GIF images are not supported"),
            (b"BM....", "BMP images are not supported"),
            (
                b"II*\0....",
                "TIFF (or camera raw) images are not supported",
            ),
        ] {
            assert!(refused(file).contains(name), "{}", refused(file));
        }
        assert!(
            decode(b"GIF89a")
                .unwrap_err()
                .report()
                .contains("hint: convert")
        );
        let huge = vec![0; MAX_IMAGE_FILE_BYTES + 1];
        assert!(refused(&huge).contains("at most 67108864 are possible"));
    }

    #[test]
    fn too_many_pixels_are_refused_before_decoding() {
        // The start of frame says how large the image is: length, precision, height, width.
        let resized = |file: &[u8], marker: u8, height: u16, width: u16| {
            let mut file = file.to_vec();
            let frame = file
                .windows(2)
                .position(|pair| pair == [0xff, marker])
                .unwrap();
            file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
            file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
            file
        };
        let huge = refused(&resized(BASELINE, 0xc0, 65_500, 65_500));
        assert!(
            huge.contains("65500 x 65500 pixels, at most 64000000"),
            "{huge}"
        );
        let progressive = refused(&resized(PROGRESSIVE, 0xc2, 5_000, 5_000));
        assert!(
            progressive.contains("5000 x 5000 pixels, at most 24000000"),
            "{progressive}"
        );

        let oversized = |width: u32, height: u32, color: u8, depth: u8| {
            let header = [
                &width.to_be_bytes()[..],
                &height.to_be_bytes(),
                &[depth, color, 0, 0, 0],
            ]
            .concat();
            let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
            for (kind, content) in [(b"IHDR", &header[..]), (b"IDAT", &[0; 4]), (b"IEND", &[])] {
                file.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
                file.extend(kind);
                file.extend(content);
                file.extend(crc32(&[&kind[..], content].concat()).to_be_bytes());
            }
            file
        };
        let huge = refused(&oversized(60_000, 60_000, 2, 8));
        assert!(
            huge.contains("60000 x 60000 pixels, at most 64000000"),
            "{huge}"
        );
        assert!(refused(&oversized(100_000, 1, 2, 8)).contains("damaged header"));
        let deep = refused(&oversized(8_000, 8_000, 6, 16));
        assert!(deep.contains("pixels of 8 bytes each"), "{deep}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }

    /// A cut or damaged file is an error or an image of the right size, never a panic; one cut in the upper half of its
    /// coded data is always an error.
    #[test]
    fn damaged_files_are_refused_or_decoded() {
        let png = png(
            40,
            24,
            ExtendedColorType::Rgb8,
            &decode(BASELINE).unwrap().data,
        );
        for file in [BASELINE, PROGRESSIVE, CMYK, GREY, &png] {
            for length in 0..file.len() {
                let result = decode(&file[..length]);
                assert!(result.is_err() || length > file.len() * 3 / 4);
            }
            let mut damaged = file.to_vec();
            for bit in 0..file.len() * 8 {
                damaged[bit / 8] ^= 1 << (bit % 8);
                if let Ok(image) = decode(&damaged) {
                    image.validate().unwrap();
                }
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_panic_has_its_message() {
        assert_eq!(panic_message(&"static"), "static");
        assert_eq!(panic_message(&String::from("made")), "made");
        assert_eq!(panic_message(&1), "it panicked");
    }
}
