//! TIFF through `image`: the first image. Camera raw files that look like TIFF are told from it here.
//!
//! The first directory is walked here before (TIFF 6.0, section 2): the decoder would reserve memory for more values
//! than there are.

use std::io::Cursor;

use image::codecs::tiff::TiffDecoder;
use image::{ImageDecoder, Limits};

use super::samples::{check_memory, check_pixels, read};
use crate::error::{Context, Error, Result};
use crate::limits::{MAX_IMAGE_SIDE, MAX_TIFF_VALUES};
use crate::preprocess::Pixels;

const NEW_SUBFILE_TYPE: u16 = 254;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const DNG_VERSION: u16 = 50_706;
/// Tags from here on are private.
const PRIVATE: u16 = 32_768;

/// Colour filter array and LinearRaw, in TIFF/EP and DNG.
const RAW_PHOTOMETRICS: [u32; 2] = [32_803, 34_892];
/// Sony ARW, Samsung SRW, Nikon NEF, Pentax PEF.
const RAW_COMPRESSIONS: [u32; 4] = [32_767, 32_770, 34_713, 65_535];
/// The old and the new way of JPEG in TIFF.
const JPEG_COMPRESSIONS: [u32; 2] = [6, 7];

const CONVERT: &str = "convert the image to JPEG or PNG first: `magick image.tif image.png`";

pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Pixels> {
    let file = File(bytes);
    for entry in file
        .entries()
        .context("damaged or cut off: its directory lies beyond its end")?
    {
        entry.check(bytes)?;
    }
    // The decoder would fill damaged data up with grey, and take any size that the JPEG inside says.
    if file.has(COMPRESSION, &JPEG_COMPRESSIONS) {
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
    check_pixels(width.into(), height.into(), most)?;
    // The decoder has the samples as they are in the file, beside those that it gives.
    let stored = u64::from(decoder.original_color_type().bits_per_pixel()).div_ceil(8);
    let given = u64::from(decoder.color_type().bytes_per_pixel());
    check_memory(width, height, stored + given)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_IMAGE_SIDE);
    limits.max_image_height = Some(MAX_IMAGE_SIDE);
    // A strip may be the whole file.
    let stored = stored * u64::from(width) * u64::from(height);
    limits.max_alloc = Some(stored + bytes.len() as u64);
    decoder.set_limits(limits).context("too large")?;
    let orientation = decoder.orientation().context("damaged header")?;
    read(decoder, orientation, most)
}

/// Whether a file with TIFF's magic is a camera's raw file: DNG, CR2, NEF, ARW, PEF and others. In most, the first image
/// is a preview and says so.
pub(super) fn is_camera_raw(bytes: &[u8]) -> bool {
    let file = File(bytes);
    bytes.get(8..10) == Some(b"CR")
        || file.value(DNG_VERSION).is_some()
        || file
            .value(NEW_SUBFILE_TYPE)
            .is_some_and(|kind| kind & 1 == 1)
        || file.has(PHOTOMETRIC, &RAW_PHOTOMETRICS)
        || file.has(COMPRESSION, &RAW_COMPRESSIONS)
}

/// A file with TIFF's magic.
#[derive(Debug, Clone, Copy)]
struct File<'a>(&'a [u8]);

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u32,
    /// The first value, where it is a short or a long that lies in the entry itself; else four bytes.
    value: u32,
    /// Where the values lie when they don't fit into the entry.
    offset: u32,
}

impl File<'_> {
    /// The first directory, or `None` where the file is cut off.
    fn entries(self) -> Option<impl Iterator<Item = Entry>> {
        let start = usize::try_from(self.long(4)?).ok()?;
        let count = usize::from(self.short(start)?);
        let start = start.checked_add(2)?;
        let end = start.checked_add(count * 12)?;
        self.0.get(start..end)?;
        Some(
            (start..end)
                .step_by(12)
                .filter_map(move |at| self.entry(at)),
        )
    }

    fn entry(self, at: usize) -> Option<Entry> {
        const SHORT: u16 = 3;
        let kind = self.short(at + 2)?;
        let offset = self.long(at + 8)?;
        Some(Entry {
            tag: self.short(at)?,
            kind,
            count: self.long(at + 4)?,
            value: if kind == SHORT {
                self.short(at + 8)?.into()
            } else {
                offset
            },
            offset,
        })
    }

    fn value(self, tag: u16) -> Option<u32> {
        let entry = self.entries()?.find(|entry| entry.tag == tag)?;
        Some(entry.value)
    }

    fn has(self, tag: u16, values: &[u32]) -> bool {
        self.value(tag).is_some_and(|value| values.contains(&value))
    }

    fn short(self, at: usize) -> Option<u16> {
        let &bytes = self.0.get(at..)?.first_chunk()?;
        Some(if self.0.starts_with(b"MM") {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    fn long(self, at: usize) -> Option<u32> {
        let &bytes = self.0.get(at..)?.first_chunk()?;
        Some(if self.0.starts_with(b"MM") {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }
}

impl Entry {
    /// Checks that the values lie in the file and are not too many.
    fn check(self, file: &[u8]) -> Result<()> {
        let Self { tag, count, .. } = self;
        // Byte, ASCII, short, long, rational, the same signed, float, double, and a directory's offset.
        let size = match self.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 => 8,
            _ => return Ok(()),
        };
        let length = u64::from(count) * size;
        if length > 4 && u64::from(self.offset) + length > file.len() as u64 {
            return Err(Error::new(format!(
                "damaged or cut off: the values of tag {tag} lie beyond its end"
            )));
        }
        if tag < PRIVATE && count > MAX_TIFF_VALUES {
            return Err(Error::new(format!(
                "tag {tag} has {count} values, at most {MAX_TIFF_VALUES} are possible"
            ))
            .hint(CONVERT));
        }
        Ok(())
    }
}
