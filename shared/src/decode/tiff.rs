//! TIFF through `image`: the first image. Camera raw files that look like TIFF are told from it here.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::tiff::TiffDecoder;

use super::samples::{check_pixels, limits, read};
use crate::error::{Context, Error, Result};
use crate::limits::MAX_IMAGE_PIXELS;
use crate::preprocess::Pixels;

const NEW_SUBFILE_TYPE: u16 = 254;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const DNG_VERSION: u16 = 50_706;

/// Colour filter array and LinearRaw, in TIFF/EP and DNG.
const RAW_PHOTOMETRICS: [u32; 2] = [32_803, 34_892];
/// Sony ARW, Samsung SRW, Nikon NEF, Pentax PEF.
const RAW_COMPRESSIONS: [u32; 4] = [32_767, 32_770, 34_713, 65_535];
/// The old and the new way of JPEG in TIFF.
const JPEG_COMPRESSIONS: [u32; 2] = [6, 7];

const CONVERT: &str = "convert the image to JPEG or PNG first: `magick image.tif image.png`";

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    // Its decoder would fill damaged data up with grey, and take any size that the JPEG inside says.
    if first_value(bytes, COMPRESSION).is_some_and(|kind| JPEG_COMPRESSIONS.contains(&kind)) {
        return Err(
            Error::new("TIFF images with JPEG compression are not supported").hint(CONVERT),
        );
    }
    let mut decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(|error| {
        Error::new("damaged header, or a kind of TIFF that is not supported")
            .hint(CONVERT)
            .source(error)
    })?;
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), MAX_IMAGE_PIXELS)?;
    let orientation = decoder.orientation().context("damaged header")?;
    let limits = limits(&decoder);
    decoder.set_limits(limits).context("too large")?;
    read(decoder, orientation)
}

/// Whether a file with TIFF's magic is a camera's raw file: DNG, CR2, NEF, ARW, PEF and others. In most, the first image
/// is a preview and says so.
pub(super) fn is_camera_raw(bytes: &[u8]) -> bool {
    let value = |tag| first_value(bytes, tag);
    let one_of = |tag, values: &[u32]| value(tag).is_some_and(|value| values.contains(&value));
    bytes.get(8..10) == Some(b"CR")
        || value(DNG_VERSION).is_some()
        || value(NEW_SUBFILE_TYPE).is_some_and(|kind| kind & 1 == 1)
        || one_of(PHOTOMETRIC, &RAW_PHOTOMETRICS)
        || one_of(COMPRESSION, &RAW_COMPRESSIONS)
}

/// The first value of a tag in the first directory (TIFF 6.0, section 2), where it is a short or a long that lies in the
/// entry itself; that of another type as its four bytes.
fn first_value(bytes: &[u8], tag: u16) -> Option<u32> {
    let big_endian = bytes.starts_with(b"MM");
    let short = |offset: usize| -> Option<u16> {
        let &bytes = bytes.get(offset..)?.first_chunk()?;
        Some(if big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    };
    let long = |offset: usize| -> Option<u32> {
        let &bytes = bytes.get(offset..)?.first_chunk()?;
        Some(if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = directory.checked_add(2)?;
    for index in 0..usize::from(short(directory)?) {
        let entry = entries.checked_add(index * 12)?;
        if short(entry)? == tag {
            const SHORT: u16 = 3;
            return if short(entry + 2)? == SHORT {
                short(entry + 8).map(u32::from)
            } else {
                long(entry + 8)
            };
        }
    }
    None
}
