//! JPEG: at a fraction of its size where that is enough and the file's kind allows it, else whole.
//!
//! | module | duty |
//! |---|---|
//! | `full` | any kind, at its whole size, through `zune-jpeg` |
//! | `header` | the markers before the coded data |
//! | `reduced` | sequential files at 1/2, 1/4 or 1/8 of their size: coded data -> RGB8 |
//! | `bits` | the coded data as bits |
//! | `huffman` | bits -> the coefficients of a block |
//! | `inverse_dct` | the low-frequency coefficients of a block -> a smaller block of samples |
//! | `colour` | samples of each component -> RGB8 |
//!
//! Both ways give the same bits on every CPU, and which is taken depends on the file's header and the wanted size alone.
//! Both are strict: a file that is cut off or whose coded data is damaged is refused, rather than filled up with grey.

mod bits;
mod colour;
mod full;
mod header;
mod huffman;
mod inverse_dct;
mod reduced;

use image::metadata::Orientation;

use super::orientation::{oriented, turns};
use super::samples::check_pixels;
use super::{Needed, Reduced};
use crate::error::Result;
use crate::limits::MAX_IMAGE_PIXELS;
use crate::preprocess::Pixels;
use crate::resize::Area;

use self::header::Header;

/// Decodes at 1/8, 1/4 or 1/2 where the sides that are left are at least those needed, else at the whole size, which may have
/// at most so many pixels.
pub(super) fn decode(bytes: &[u8], needed: Needed<'_>, most: u64) -> Result<Reduced> {
    let Some(header) = Header::read(bytes) else {
        return full::decode(bytes, most).map(Reduced::whole);
    };
    let orientation = orientation(header.exif);
    let (width, height) = upright(header.width, header.height, orientation);
    let (needed_width, needed_height) = needed(width, height);
    let enough = |scale: &usize| width >= scale * needed_width && height >= scale * needed_height;
    let Some(scale) = [8, 4, 2].into_iter().find(enough) else {
        return full::decode(bytes, most).map(Reduced::whole);
    };
    check_pixels(width as u64, height as u64, MAX_IMAGE_PIXELS)?;
    let data = reduced::decode(&header, scale)?;
    let (stored_width, stored_height) = (
        header.width.div_ceil(scale) as u32,
        header.height.div_ceil(scale) as u32,
    );
    let pixels = oriented(stored_width, stored_height, data, orientation)?;
    Ok(Reduced {
        area: area(width, height, scale, &pixels, orientation),
        pixels,
        width,
        height,
    })
}

/// What the image covers of its reduced pixels: the last column and row as they are stored may be covered in part.
fn area(
    width: usize,
    height: usize,
    scale: usize,
    pixels: &Pixels,
    orientation: Orientation,
) -> Area {
    let (covered_width, covered_height) =
        (width as f64 / scale as f64, height as f64 / scale as f64);
    let (last_is_left, last_is_top) = match orientation {
        Orientation::NoTransforms | Orientation::Rotate90FlipH => (false, false),
        Orientation::FlipHorizontal | Orientation::Rotate90 => (true, false),
        Orientation::FlipVertical | Orientation::Rotate270 => (false, true),
        Orientation::Rotate180 | Orientation::Rotate270FlipH => (true, true),
    };
    let before = |last_is_first, whole: usize, covered| {
        if last_is_first {
            whole as f64 - covered
        } else {
            0.0
        }
    };
    Area {
        left: before(last_is_left, pixels.width, covered_width),
        top: before(last_is_top, pixels.height, covered_height),
        width: covered_width,
        height: covered_height,
    }
}

/// The orientation in EXIF data.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}

/// The size at which an image of that stored size is shown.
fn upright(width: usize, height: usize, orientation: Orientation) -> (usize, usize) {
    if turns(orientation) {
        (height, width)
    } else {
        (width, height)
    }
}
