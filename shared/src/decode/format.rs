//! What a file is, by its first bytes, and what to do with one that is not read.

use super::tiff;

/// The formats that are read, for messages.
pub(super) const READ: &str = "JPEG, PNG, WebP, GIF, BMP or TIFF";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    /// Recognised, not read.
    Other(Other),
    Empty,
    Unknown,
}

/// A format that is recognised but not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    Heic,
    Avif,
    CameraRaw,
    Svg,
    Video,
    Html,
    /// Another image format, by name.
    Named(&'static str),
}

impl Other {
    /// Names the format, as the beginning of a sentence.
    pub(super) fn are(self) -> String {
        let name = match self {
            Self::Heic => "HEIC (HEIF) images",
            Self::Avif => "AVIF images",
            Self::CameraRaw => "camera raw images",
            Self::Svg => "SVG drawings",
            Self::Video => "videos",
            Self::Html => "web pages",
            Self::Named(name) => return format!("{name} images are"),
        };
        format!("{name} are")
    }

    /// What makes a file of it that is read.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Heic => {
                "convert it to JPEG first: `heif-convert photo.heic photo.jpg`; phones can be set to take JPEG"
            }
            Self::Avif => {
                "convert it to JPEG first: `heif-convert photo.avif photo.jpg` or `magick photo.avif photo.jpg`"
            }
            Self::CameraRaw => {
                "develop it to JPEG first: `darktable-cli photo.dng photo.jpg`; cameras can be set to take JPEG"
            }
            Self::Svg => {
                "render it first: `rsvg-convert --output drawing.png drawing.svg` or `magick drawing.svg drawing.png`"
            }
            Self::Video => "take frames from it first: `ffmpeg -i video.mp4 frame%05d.jpg`",
            Self::Html => "the download was a page, not the image; fetch the image itself",
            Self::Named(_) => {
                "convert it to JPEG or PNG first, with ImageMagick for one: `magick image.xyz image.png`"
            }
        }
    }
}

/// Tells what `bytes`, a whole file, are.
pub(super) fn of(bytes: &[u8]) -> Format {
    let at = |offset: usize, magic: &[u8]| {
        bytes
            .get(offset..)
            .is_some_and(|bytes| bytes.starts_with(magic))
    };
    let begins = |magics: &[&[u8]]| magics.iter().any(|magic| at(0, magic));
    let other = |other| Format::Other(other);
    let named = |name| Format::Other(Other::Named(name));
    // ISO base media files: the brand follows the box's length and `ftyp`.
    let brand = |names: &[&[u8; 4]]| at(4, b"ftyp") && names.iter().any(|&name| at(8, name));
    match () {
        () if bytes.is_empty() => Format::Empty,
        () if at(0, b"\xff\xd8\xff") => Format::Jpeg,
        () if at(0, b"\x89PNG\r\n\x1a\n") => Format::Png,
        () if at(0, b"RIFF") && at(8, b"WEBP") => Format::WebP,
        () if begins(&[b"GIF87a", b"GIF89a"]) => Format::Gif,
        // The length of the second header, below 256 in every version, keeps out a text that begins with BM.
        () if at(0, b"BM") && at(15, &[0; 3]) => Format::Bmp,
        () if begins(&[b"II*\0", b"MM\0*"]) => {
            if tiff::is_camera_raw(bytes) {
                other(Other::CameraRaw)
            } else {
                Format::Tiff
            }
        }
        () if begins(&[b"II+\0", b"MM\0+"]) => named("BigTIFF"),
        () if brand(&[b"avif", b"avis"]) => other(Other::Avif),
        () if brand(&[
            b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
        ]) =>
        {
            other(Other::Heic)
        }
        // Canon's CR3.
        () if brand(&[b"crx "]) => other(Other::CameraRaw),
        () if at(4, b"ftyp") => other(Other::Video),
        () if begins(&[b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"FLV\x01"])
            || (at(0, b"RIFF") && at(8, b"AVI ")) =>
        {
            other(Other::Video)
        }
        // Panasonic, Olympus (three), Phase One, Fujifilm, Minolta, Sigma; those of the TIFF family are told above.
        () if begins(&[
            b"IIU\0",
            b"IIRO",
            b"IIRS",
            b"MMOR",
            b"IIII",
            b"FUJIFILMCCD-RAW",
            b"\0MRM",
            b"FOVb",
        ]) =>
        {
            other(Other::CameraRaw)
        }
        () if begins(&[b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"]) => named("JPEG XL"),
        () if begins(&[b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"]) => named("JPEG 2000"),
        () if begins(&[b"\0\0\x01\0", b"\0\0\x02\0"]) => named("ICO"),
        () if at(0, b"8BPS") => named("Photoshop"),
        () if at(0, b"%PDF") => named("PDF"),
        () if at(0, b"DDS ") => named("DDS"),
        () if at(0, b"\x76\x2f\x31\x01") => named("OpenEXR"),
        () if at(0, b"qoif") => named("QOI"),
        () => markup(bytes),
    }
}

/// SVG and HTML, by the first of their elements within the first kilobyte.
fn markup(bytes: &[u8]) -> Format {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = text.trim_ascii_start();
    if !text.starts_with(b"<") {
        return Format::Unknown;
    }
    let head = text.get(..1_024).unwrap_or(text).to_ascii_lowercase();
    let find = |tag: &[u8]| head.windows(tag.len()).position(|window| window == tag);
    match (find(b"<svg"), find(b"<html")) {
        (Some(svg), Some(html)) if html < svg => Format::Other(Other::Html),
        (Some(_), _) => Format::Other(Other::Svg),
        (None, Some(_)) => Format::Other(Other::Html),
        (None, None) if head.starts_with(b"<!doctype html") => Format::Other(Other::Html),
        (None, None) => Format::Unknown,
    }
}
