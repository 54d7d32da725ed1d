//! Image file -> RGB8, by content: what the file is, its decoder, its orientation.
//!
//! | module | duty |
//! |---|---|
//! | `format` | what a file is, by its first bytes; what to do with one that is not read |
//! | `contain` | a decoder's panic becomes an error |
//! | `jpeg` | JPEG, whole through `zune-jpeg` or reduced by a decoder of our own: the same bits on every CPU |
//! | `png`, `webp`, `gif`, `bmp`, `tiff` | the others, through `image` |
//! | `samples` | what `image`'s decoders give -> RGB8; limits on size and memory |
//! | `orientation` | the image as its EXIF orientation says to show it |

mod bmp;
mod contain;
mod format;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod samples;
mod tiff;
mod webp;

use crate::error::{Context, Error, Result};
use crate::limits::{MAX_IMAGE_FILE_BYTES, MAX_IMAGE_PIXELS};
use crate::preprocess::Pixels;
use crate::resize::Area;

use self::contain::contained;
use self::format::{Format, READ};

/// A whole file of the decoder's format, of at most so many pixels -> RGB8, orientation applied.
type Decoder = fn(&[u8], u64) -> Result<Pixels>;

/// The size, at least, at which an image of that width and height, orientation applied, is needed.
pub type Needed<'a> = &'a dyn Fn(usize, usize) -> (usize, usize);

/// An image that was decoded at its own size or at a fraction of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// The pixels, orientation applied.
    pub pixels: Pixels,
    /// What the image covers of them.
    pub area: Area,
    /// The image's own width, orientation applied.
    pub width: usize,
    /// The image's own height, orientation applied.
    pub height: usize,
}

impl Reduced {
    /// An image at its own size.
    #[must_use]
    pub fn whole(pixels: Pixels) -> Self {
        Self {
            area: Area::whole(pixels.width, pixels.height),
            width: pixels.width,
            height: pixels.height,
            pixels,
        }
    }
}

/// Decodes an image file, whatever its name, to RGB8 as a viewer shows it: JPEG, PNG, WebP, GIF, BMP or TIFF.
///
/// EXIF orientation is applied. Grey becomes three equal channels, CMYK is converted without a colour profile, 16-bit
/// samples are rounded to 8, and what is transparent is laid on white. Of several images in a file the first counts.
/// Colour profiles are not applied.
///
/// # Errors
/// When the file is empty, too large, of another format, damaged or cut off, or announces more pixels than
/// [`MAX_IMAGE_PIXELS`](crate::limits::MAX_IMAGE_PIXELS) or than can be decoded in
/// [`DECODING_BYTES`](crate::limits::DECODING_BYTES): that is read from its header, before anything is decoded. A panic
/// inside a decoder is an error too, and prints nothing.
pub fn decode(image_file: &[u8]) -> Result<Pixels> {
    Ok(decode_reduced(image_file, &|width, height| (width, height))?.pixels)
}

/// [`decode`], but a JPEG that is larger than needed may be decoded at 1/2, 1/4 or 1/8 of its size ("DCT scaling"): the
/// smallest whose sides, uncovered parts left out, are at least those that `needed` gives.
///
/// That goes for sequential JPEGs with Huffman coding and 8 bits a sample, grey or of three colours in one scan, the
/// first sampled once or twice as densely as the others in each direction. Whatever else is decoded whole.
///
/// # Errors
/// As [`decode`].
pub fn decode_reduced(image_file: &[u8], needed: Needed<'_>) -> Result<Reduced> {
    decode_within(image_file, needed, MAX_IMAGE_PIXELS)
}

/// [`decode_reduced`], but an image that is decoded whole may have at most `most` pixels, at most
/// [`MAX_IMAGE_PIXELS`]: then its decoder takes no more than [`DECODING_BYTES`](crate::limits::DECODING_BYTES) and
/// [`DECODING_BYTES_PER_PIXEL`](crate::limits::DECODING_BYTES_PER_PIXEL) for each of those.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(image_file: &[u8], needed: Needed<'_>, most: u64) -> Result<Reduced> {
    let most = most.min(MAX_IMAGE_PIXELS);
    if image_file.len() > MAX_IMAGE_FILE_BYTES {
        return Err(Error::new(format!(
            "the image file has {} bytes, at most {MAX_IMAGE_FILE_BYTES} are possible",
            image_file.len()
        ))
        .hint("convert the image to JPEG first, or scale it down"));
    }
    let (name, decoder): (_, Decoder) = match format::of(image_file) {
        Format::Jpeg => {
            return contained(|| jpeg::decode(image_file, needed, most))
                .context("can't decode the JPEG image");
        }
        Format::Png => ("PNG", png::decode),
        Format::WebP => ("WebP", webp::decode),
        Format::Gif => ("GIF", gif::decode),
        Format::Bmp => ("BMP", bmp::decode),
        Format::Tiff => ("TIFF", tiff::decode),
        Format::Empty => return Err(Error::new("the image file is empty")),
        Format::Other(other) => {
            return Err(
                Error::new(format!("{} not supported, only {READ}", other.are()))
                    .hint(other.hint()),
            );
        }
        Format::Unknown => return Err(Error::new(format!("this is not an image: not {READ}"))),
    };
    contained(|| decoder(image_file, most).map(Reduced::whole))
        .with_context(|| format!("can't decode the {name} image"))
}
