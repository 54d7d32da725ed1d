//! Image files made by hand or by `image`, for tests.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod jpeg;

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};

/// Width and height of the committed pictures; the pixel at x, y is red 6x, green 10y, blue 255 - 3x - 4y.
pub(crate) const SIZE: (u32, u32) = (40, 24);
pub(crate) const BASELINE: &[u8] = include_bytes!("../pictures/baseline.jpg");
pub(crate) const PROGRESSIVE: &[u8] = include_bytes!("../pictures/progressive.jpg");
/// With a restart marker after every two blocks.
pub(crate) const RESTART: &[u8] = include_bytes!("../pictures/restart.jpg");
pub(crate) const CMYK: &[u8] = include_bytes!("../pictures/cmyk.jpg");
pub(crate) const GREY: &[u8] = include_bytes!("../pictures/grey.jpg");
pub(crate) const LOSSY_WEBP: &[u8] = include_bytes!("../pictures/lossy.webp");
/// Opaque in the left half, of opacity 51 in the right one.
pub(crate) const LOSSY_ALPHA_WEBP: &[u8] = include_bytes!("../pictures/lossy_alpha.webp");
/// The picture, then one in dark grey.
pub(crate) const ANIMATED_WEBP: &[u8] = include_bytes!("../pictures/animated.webp");

/// The pixels of the committed pictures.
pub(crate) fn gradient() -> Vec<u8> {
    let (width, height) = SIZE;
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [6 * x, 10 * y, 255 - 3 * x - 4 * y]))
        .map(|value| value as u8)
        .collect()
}

/// What `image` makes of such pixels.
pub(crate) fn encoded(
    format: ImageFormat,
    width: u32,
    height: u32,
    color: ExtendedColorType,
    samples: &[u8],
) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut file, samples, width, height, color, format).unwrap();
    file.into_inner()
}

/// EXIF data that hold the orientation and nothing else, which is a whole TIFF without an image.
pub(crate) fn exif(orientation: u16, big_endian: bool) -> Vec<u8> {
    tiff(&[(0x0112, 3, 1, u32::from(orientation))], &[], big_endian)
}

/// A JPEG with such EXIF data.
pub(crate) fn jpeg_with_exif(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    let length = u16::try_from(2 + 6 + exif.len()).unwrap().to_be_bytes();
    [
        &jpeg[..2],
        &[0xff, 0xe1],
        &length,
        b"Exif\0\0",
        exif,
        &jpeg[2..],
    ]
    .concat()
}

/// The start of frame says how large a JPEG is: length, precision, height, width.
pub(crate) fn resized_jpeg(jpeg: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut file = jpeg.to_vec();
    let frame = file
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0] || pair == [0xff, 0xc2])
        .unwrap();
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    file
}

/// A progressive JPEG whose first scan comes `times` more often: valid but for that.
pub(crate) fn rescanned_jpeg(jpeg: &[u8], times: usize) -> Vec<u8> {
    let start = jpeg
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    // The next marker: in coded data a zero follows 0xff.
    let end = jpeg[start + 2..]
        .windows(2)
        .position(|pair| pair[0] == 0xff && pair[1] != 0)
        .unwrap()
        + start
        + 2;
    let scans = jpeg[start..end].repeat(times);
    [&jpeg[..end], &scans, &jpeg[end..]].concat()
}

/// A PNG of these chunks, each with its checksum.
pub(crate) fn png(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in chunks {
        file.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
        file.extend(*kind);
        file.extend(content);
        file.extend(crc32(&[&kind[..], content].concat()).to_be_bytes());
    }
    file
}

/// Content of a PNG's IHDR.
pub(crate) fn png_header(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, color, 0, 0, 0]);
    header
}

/// A whole PNG of rows that begin with their filter byte; `extra` chunks before the data.
pub(crate) fn png_of(header: Vec<u8>, extra: &[(&[u8; 4], Vec<u8>)], rows: &[u8]) -> Vec<u8> {
    let mut chunks = vec![(b"IHDR", header)];
    chunks.extend(extra.iter().cloned());
    chunks.extend([(b"IDAT", stored(rows)), (b"IEND", Vec::new())]);
    png(&chunks)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Bytes as a zlib stream that does not compress (RFC 1950, 1951).
pub(crate) fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    let mut stream = vec![0x78, 0x01, 1];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(bytes);
    stream.extend((high << 16 | low).to_be_bytes());
    stream
}

/// A zlib stream of `megabytes` MB of zeros, a thousandth of that long: one literal, then matches of 258 bytes at
/// distance 1, each of two bits in a fixed-to-shortest dynamic code. The checksum at its end is wrong.
pub(crate) fn bomb(megabytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // Final block, dynamic codes: 286 literals and lengths, 2 distances, 18 code lengths.
    for (value, count) in [(1, 1), (2, 2), (29, 5), (1, 5), (14, 4)] {
        bits.push(value, count);
    }
    // Code lengths come in the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: 18 and 1 and 2 and 0 have one of 2 bits.
    for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
        bits.push(
            if [0, 1, 2, 18].contains(&symbol) {
                2
            } else {
                0
            },
            3,
        );
    }
    // Canonical: 0 -> 00, 1 -> 01, 2 -> 10, 18 -> 11.
    let (one, two, zeros) = (0b10, 0b01, 0b11);
    let zero_run = |bits: &mut Bits, count: u32| {
        bits.push(zeros, 2);
        bits.push(count - 11, 7);
    };
    // Literal 0: 2 bits; 1 to 255: none; end of block 256: 2 bits; 257 to 284: none; 285 (258 bytes): 1 bit.
    bits.push(two, 2);
    zero_run(&mut bits, 138);
    zero_run(&mut bits, 117);
    bits.push(two, 2);
    zero_run(&mut bits, 28);
    bits.push(one, 2);
    // Distances 1 and 2: 1 bit each.
    bits.push(one, 2);
    bits.push(one, 2);
    // Codes: 285 -> 0, literal 0 -> 10, end -> 11; distance 1 -> 0.
    bits.push(0b01, 2);
    for _ in 0..megabytes * 1_000_000 / 258 {
        bits.push(0, 2);
    }
    bits.push(0b11, 2);
    let mut stream = vec![0x78, 0xda];
    stream.extend(bits.bytes);
    stream.extend([0; 4]);
    stream
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    /// The lowest bit first.
    fn push(&mut self, value: u32, count: usize) {
        for bit in 0..count {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.count % 8);
            self.count += 1;
        }
    }
}

/// A TIFF of one directory: entries of tag, type, count and value. The data begin right behind the directory, at
/// [`tiff_data`].
pub(crate) fn tiff(entries: &[(u16, u16, u32, u32)], data: &[u8], big_endian: bool) -> Vec<u8> {
    let short = |value: u16| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let long = |value: u32| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let mut file = if big_endian { b"MM" } else { b"II" }.to_vec();
    file.extend(short(42));
    file.extend(long(8));
    file.extend(short(u16::try_from(entries.len()).unwrap()));
    for &(tag, kind, count, value) in entries {
        file.extend(short(tag));
        file.extend(short(kind));
        file.extend(long(count));
        // A short lies at the beginning of its four bytes.
        if kind == 3 && count == 1 {
            file.extend(short(value as u16));
            file.extend(short(0));
        } else {
            file.extend(long(value));
        }
    }
    file.extend(long(0));
    file.extend(data);
    file
}

/// Where the data of a TIFF with so many entries begin.
pub(crate) fn tiff_data(entries: u32) -> u32 {
    8 + 2 + 12 * entries + 4
}

/// An uncompressed TIFF of one strip.
pub(crate) fn tiff_image(
    (width, height): (u32, u32),
    (bits, samples, photometric): (u32, u32, u32),
    extra: &[(u16, u16, u32, u32)],
    strip: &[u8],
    big_endian: bool,
) -> Vec<u8> {
    let count = 9 + extra.len() as u32;
    let mut data = strip.to_vec();
    let bits = if samples == 1 {
        (258, 3, 1, bits)
    } else {
        let at = tiff_data(count) + data.len() as u32;
        for _ in 0..samples {
            data.extend(if big_endian {
                (bits as u16).to_be_bytes()
            } else {
                (bits as u16).to_le_bytes()
            });
        }
        (258, 3, samples, at)
    };
    let bits = if samples == 2 {
        // Two shorts fit into the entry; a count of 2 is written as it is.
        (258, 3, 2, bits.3)
    } else {
        bits
    };
    let mut entries = vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        bits,
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, tiff_data(count)),
        (277, 3, 1, samples),
        (278, 4, 1, height),
        (279, 4, 1, strip.len() as u32),
    ];
    entries.extend(extra);
    entries.sort_unstable();
    tiff(&entries, &data, big_endian)
}

/// A WebP of these chunks.
pub(crate) fn webp(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut content = b"WEBP".to_vec();
    for &(kind, chunk) in chunks {
        content.extend(kind);
        content.extend(u32::try_from(chunk.len()).unwrap().to_le_bytes());
        content.extend(chunk);
        content.resize(content.len().next_multiple_of(2), 0);
    }
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    [b"RIFF", &length[..], &content].concat()
}

/// The one chunk of a plain WebP, with its kind.
pub(crate) fn webp_chunk(file: &[u8]) -> (&[u8; 4], &[u8]) {
    let length = u32::from_le_bytes(*file[16..].first_chunk().unwrap()) as usize;
    (file[12..].first_chunk().unwrap(), &file[20..][..length])
}

/// A WebP header for more than one chunk: flags, then width and height of the canvas less one, 24 bits each.
pub(crate) fn webp_canvas(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let mut header = vec![flags, 0, 0, 0];
    header.extend(&(width - 1).to_le_bytes()[..3]);
    header.extend(&(height - 1).to_le_bytes()[..3]);
    header
}

/// A GIF: canvas, a table of four colours (red, green, blue, white), then images of left, top, width, height, the
/// transparent index, and one index for all pixels.
pub(crate) fn gif(canvas: (u16, u16), images: &[([u16; 4], Option<u8>, u8)]) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend(canvas.0.to_le_bytes());
    file.extend(canvas.1.to_le_bytes());
    file.extend([0x91, 0, 0]);
    file.extend([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
    for &(frame, transparent, index) in images {
        if let Some(transparent) = transparent {
            file.extend([0x21, 0xf9, 4, 1, 0, 0, transparent, 0]);
        }
        file.push(0x2c);
        for side in frame {
            file.extend(side.to_le_bytes());
        }
        file.push(0);
        // Codes of 3 bits that never grow, because each pixel is preceded by the code that clears the table.
        let pixels = usize::from(frame[2]) * usize::from(frame[3]);
        let mut bits = Bits::default();
        for _ in 0..pixels.min(4_096) {
            bits.push(4, 3);
            bits.push(index.into(), 3);
        }
        bits.push(5, 3);
        file.push(2);
        for block in bits.bytes.chunks(255) {
            file.push(block.len() as u8);
            file.extend(block);
        }
        file.push(0);
    }
    file.push(0x3b);
    file
}

/// A BMP with a header of 40 bytes: bits a pixel, compression, colours of the palette, rows as they are stored.
pub(crate) fn bmp(
    (width, height): (i32, i32),
    bits: u16,
    compression: u32,
    palette: &[[u8; 4]],
    rows: &[u8],
) -> Vec<u8> {
    let offset = 54 + 4 * palette.len() as u32;
    let mut file = b"BM".to_vec();
    file.extend((offset + rows.len() as u32).to_le_bytes());
    file.extend([0; 4]);
    file.extend(offset.to_le_bytes());
    file.extend(40_u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(1_u16.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(compression.to_le_bytes());
    file.extend([0; 12]);
    file.extend((palette.len() as u32).to_le_bytes());
    file.extend([0; 4]);
    file.extend(palette.concat());
    file.extend(rows);
    file
}
