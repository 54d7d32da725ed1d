//! Every kind of picture that is read, and every kind that is refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use graft_shared::decode::decode;
use graft_shared::limits::MAX_IMAGE_FILE_BYTES;
use graft_shared::preprocess::Pixels;
use image::ExtendedColorType as Color;
use image::{ExtendedColorType, ImageFormat};

use support::*;

#[track_caller]
fn pixels(file: &[u8]) -> Pixels {
    decode(file).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn pixel(image: &Pixels, x: usize, y: usize) -> [u8; 3] {
    *image.data[(y * image.width + x) * 3..]
        .first_chunk()
        .unwrap()
}

#[track_caller]
fn refused(file: &[u8]) -> String {
    decode(file).unwrap_err().report()
}

/// Checks a lossy picture of the gradient, its colours converted.
#[track_caller]
fn assert_near(file: &[u8], tolerance: u8, expected: impl Fn([u8; 3], usize) -> [u8; 3]) {
    let image = pixels(file);
    assert_eq!((image.width, image.height), (40, 24));
    for (index, &colour) in gradient().as_chunks::<3>().0.iter().enumerate() {
        let (x, y) = (index % 40, index / 40);
        // Blocks that hold both opaque and transparent pixels are left out.
        let (actual, expected) = (pixel(&image, x, y), expected(colour, x));
        let near = actual
            .iter()
            .zip(expected)
            .all(|(actual, expected)| actual.abs_diff(expected) <= tolerance);
        assert!(near, "{x}, {y}: {actual:?} is not near {expected:?}");
    }
}

fn luma([red, green, blue]: [u8; 3]) -> u8 {
    (0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)).round() as u8
}

#[test]
fn jpegs_of_every_kind() {
    for file in [BASELINE, PROGRESSIVE, RESTART, CMYK] {
        assert_near(file, 16, |colour, _| colour);
    }
    assert!(RESTART.windows(2).any(|pair| pair == [0xff, 0xd0]));
    assert_near(GREY, 16, |colour, _| [luma(colour); 3]);
}

/// Adobe's marker says that the four channels are luma, two chroma and black, all inverted.
#[test]
fn ycck_jpegs() {
    let mut file = CMYK.to_vec();
    let adobe = file.windows(5).position(|name| name == b"Adobe").unwrap();
    assert_eq!(file[adobe + 11], 0);
    file[adobe + 11] = 2;
    // Here the channels that were cyan, magenta and yellow are taken for luma and chroma.
    assert_near(&file, 32, |stored, _| {
        let [luma, blue, red] = stored.map(f32::from);
        let (blue, red) = (blue - 128.0, red - 128.0);
        [
            luma + 1.402 * red,
            luma - 0.344_14 * blue - 0.714_14 * red,
            luma + 1.772 * blue,
        ]
        .map(|value| 255 - value.round() as u8)
    });
}

fn wide(samples: &[u16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_ne_bytes())
        .collect()
}

#[test]
fn pngs_of_every_kind() {
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
        let image = pixels(&encoded(ImageFormat::Png, 2, 1, color, &samples));
        assert_eq!((image.width, image.height), (2, 1));
        assert_eq!(image.data, expected, "{color:?}");
    }
}

#[test]
fn pngs_with_few_bits_and_with_palettes() {
    // Two pixels at the top of a byte.
    let grey = |depth, byte| png_of(png_header(2, 1, depth, 0), &[], &[0, byte]);
    assert_eq!(pixels(&grey(1, 0b0100_0000)).data, [0, 0, 0, 255, 255, 255]);
    assert_eq!(
        pixels(&grey(2, 0b0110_0000)).data,
        [85, 85, 85, 170, 170, 170]
    );
    assert_eq!(pixels(&grey(4, 0x1e)).data, [17, 17, 17, 238, 238, 238]);

    let palette = (b"PLTE", vec![10, 20, 30, 0, 100, 200]);
    let opacity = (b"tRNS", vec![255, 51]);
    for depth in [1, 2, 4, 8] {
        let indices = match depth {
            1 => vec![0, 0b0100_0000],
            2 => vec![0, 0b0001_0000],
            4 => vec![0, 0x01],
            _ => vec![0, 0, 1],
        };
        let header = png_header(2, 1, depth, 3);
        let opaque = png_of(header.clone(), std::slice::from_ref(&palette), &indices);
        assert_eq!(pixels(&opaque).data, [10, 20, 30, 0, 100, 200]);
        let clear = png_of(header, &[palette.clone(), opacity.clone()], &indices);
        assert_eq!(pixels(&clear).data, [10, 20, 30, 204, 224, 244]);
    }
}

#[test]
fn webps_of_every_kind() {
    assert_near(LOSSY_WEBP, 16, |colour, _| colour);
    assert_near(ANIMATED_WEBP, 16, |colour, _| colour);
    assert_near(LOSSY_ALPHA_WEBP, 16, |colour, x| {
        let on_white = |value| 204 + (f32::from(value) / 5.0).round() as u8;
        if x < 20 { colour } else { colour.map(on_white) }
    });
    for (color, samples, expected) in [
        (Color::Rgb8, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (
            Color::Rgba8,
            vec![10, 20, 30, 255, 0, 100, 200, 51],
            [10, 20, 30, 204, 224, 244],
        ),
    ] {
        let file = encoded(ImageFormat::WebP, 2, 1, color, &samples);
        assert_eq!(webp_chunk(&file).0, b"VP8L");
        assert_eq!(pixels(&file).data, expected, "{color:?}");
    }
}

#[test]
fn bmps_of_every_kind() {
    for (color, samples, expected) in [
        (Color::L8, vec![0, 200], [0, 0, 0, 200, 200, 200]),
        (Color::Rgb8, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (
            Color::Rgba8,
            vec![10, 20, 30, 255, 0, 100, 200, 51],
            [10, 20, 30, 204, 224, 244],
        ),
    ] {
        let image = pixels(&encoded(ImageFormat::Bmp, 2, 1, color, &samples));
        assert_eq!(image.data, expected, "{color:?}");
    }
    // Blue, green, red; rows of whole four bytes, the lowest first, or with a negative height the uppermost.
    let rows = [3, 2, 1, 0, 6, 5, 4, 0];
    assert_eq!(
        pixels(&bmp((1, 2), 24, 0, &[], &rows)).data,
        [4, 5, 6, 1, 2, 3]
    );
    assert_eq!(
        pixels(&bmp((1, -2), 24, 0, &[], &rows)).data,
        [1, 2, 3, 4, 5, 6]
    );
    // The fourth byte means nothing.
    assert_eq!(
        pixels(&bmp((1, 1), 32, 0, &[], &[3, 2, 1, 0])).data,
        [1, 2, 3]
    );
    // 5 bits each.
    let red = 0b0_11111_00000_00000_u16.to_le_bytes();
    assert_eq!(
        pixels(&bmp((1, 1), 16, 0, &[], &[red[0], red[1], 0, 0])).data,
        [255, 0, 0]
    );
    let palette = [[3, 2, 1, 0], [6, 5, 4, 0]];
    for (bits, row) in [
        (1, [0b0100_0000, 0, 0, 0]),
        (4, [0x01, 0, 0, 0]),
        (8, [0, 1, 0, 0]),
    ] {
        let image = pixels(&bmp((2, 1), bits, 0, &palette, &row));
        assert_eq!(image.data, [1, 2, 3, 4, 5, 6], "{bits}");
    }
    // Run lengths: twice the second colour, end.
    let image = pixels(&bmp((2, 1), 8, 1, &palette, &[2, 1, 0, 1]));
    assert_eq!(image.data, [4, 5, 6, 4, 5, 6]);
}

#[test]
fn the_first_image_of_a_gif() {
    let (green, blue) = ([0, 255, 0], [0, 0, 255]);
    let two = gif((2, 1), &[([0, 0, 2, 1], None, 1), ([0, 0, 2, 1], None, 2)]);
    assert_eq!(pixels(&two).data, [green, green].concat());
    let clear = gif((2, 1), &[([0, 0, 2, 1], Some(1), 1)]);
    assert_eq!(pixels(&clear).data, [255; 6]);
    // Canvas that the image does not cover is white.
    let part = pixels(&gif((2, 2), &[([1, 1, 1, 1], None, 2)]));
    assert_eq!((part.width, part.height), (2, 2));
    assert_eq!(part.data, [&[255; 9][..], &blue].concat());
}

#[test]
fn tiffs_of_every_kind() {
    for (color, samples, expected) in [
        (Color::L8, vec![0, 200], [0, 0, 0, 200, 200, 200]),
        (Color::Rgb8, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
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
            Color::Rgba16,
            wide(&[257, 514, 771, 0xffff, 0, 0, 0, 0x8080]),
            [1, 2, 3, 127, 127, 127],
        ),
    ] {
        let image = pixels(&encoded(ImageFormat::Tiff, 2, 1, color, &samples));
        assert_eq!(image.data, expected, "{color:?}");
    }
    for big_endian in [false, true] {
        let image = |kind, strip: &[u8]| {
            let file = tiff_image((2, 1), kind, &[], strip, big_endian);
            pixels(&file).data
        };
        assert_eq!(image((1, 1, 1), &[0b0100_0000]), [0, 0, 0, 255, 255, 255]);
        // White is zero.
        assert_eq!(image((8, 1, 0), &[0, 55]), [255, 255, 255, 200, 200, 200]);
        assert_eq!(image((8, 3, 2), &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        // Cyan without black; black.
        assert_eq!(
            image((8, 4, 5), &[255, 0, 0, 0, 0, 0, 0, 255]),
            [0, 255, 255, 0, 0, 0]
        );
    }
}

#[test]
fn orientation_is_applied_wherever_it_is_written() {
    let (width, height) = (40, 24);
    let (right, bottom) = (width - 1, height - 1);
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
    let png_file = |exif: Vec<u8>| {
        let file = encoded(ImageFormat::Png, 40, 24, Color::Rgb8, &gradient());
        let chunk = png(&[(b"eXIf", exif)]);
        // Behind magic and header.
        [&file[..33], &chunk[8..], &file[33..]].concat()
    };
    let webp_file = |file: &[u8], exif: Vec<u8>| {
        const EXIF: u8 = 8;
        let canvas = webp_canvas(EXIF, 40, 24);
        webp(&[(b"VP8X", &canvas), webp_chunk(file), (b"EXIF", &exif)])
    };
    let lossless = encoded(ImageFormat::WebP, 40, 24, Color::Rgb8, &gradient());
    let every = |orientation: u16, big_endian: bool| {
        let exif = exif(orientation, big_endian);
        let tag = (0x0112, 3, 1, u32::from(orientation));
        [
            jpeg_with_exif(BASELINE, &exif),
            jpeg_with_exif(PROGRESSIVE, &exif),
            png_file(exif.clone()),
            webp_file(&lossless, exif.clone()),
            webp_file(LOSSY_WEBP, exif.clone()),
            // As some programs write it.
            webp_file(LOSSY_WEBP, [b"Exif\0\0", &exif[..]].concat()),
            tiff_image((40, 24), (8, 3, 2), &[tag], &gradient(), big_endian),
        ]
    };
    for big_endian in [false, true] {
        let upright = every(1, big_endian).map(|file| pixels(&file));
        for (orientation, (x, y)) in (1..).zip(shown) {
            for (file, upright) in every(orientation, big_endian).iter().zip(&upright) {
                let image = pixels(file);
                let turned = orientation > 4;
                let size = if turned { (24, 40) } else { (40, 24) };
                assert_eq!((image.width, image.height), size);
                assert_eq!(pixel(&image, x, y), pixel(upright, 3, 5), "{orientation}");
            }
        }
        for meaningless in [0, 9, 255, 65_535] {
            for (file, upright) in every(meaningless, big_endian).iter().zip(&upright) {
                assert_eq!(&pixels(file), upright);
            }
        }
    }
}

#[test]
fn other_files_are_refused_by_name_and_with_a_way_out() {
    let tagged = |tag, kind, value| tiff(&[(tag, kind, 1, value)], &[0; 64], false);
    let cr2 = [b"II*\0\x10\0\0\0CR\x02\0", &[0; 16][..]].concat();
    for (file, name, hint) in [
        (&b""[..], "the image file is empty", ""),
        (b"hello", "not an image: not JPEG, PNG, WebP", ""),
        (b"\xff\xd8", "not an image", ""),
        (b"BMX is a sport", "not an image", ""),
        (b"RIFF....WAVE", "not an image", ""),
        (b"<?xml version='1.0'?><note/>", "not an image", ""),
        (
            b"\0\0\0\x18ftypheic....",
            "HEIC (HEIF) images",
            "heif-convert",
        ),
        (
            b"\0\0\0\x18ftypmif1....",
            "HEIC (HEIF) images",
            "heif-convert",
        ),
        (
            b"\0\0\0\x18ftypavif....",
            "AVIF images",
            "magick photo.avif",
        ),
        (
            b"\0\0\0\x18ftypcrx ....",
            "camera raw images",
            "darktable-cli",
        ),
        (&cr2, "camera raw images", "darktable-cli"),
        // DNG; NEF, whose first image is a preview; a colour filter array; ARW.
        (
            &tagged(50_706, 1, 0x0401),
            "camera raw images",
            "darktable-cli",
        ),
        (&tagged(254, 4, 1), "camera raw images", "darktable-cli"),
        (
            &tagged(262, 3, 32_803),
            "camera raw images",
            "darktable-cli",
        ),
        (
            &tagged(259, 3, 32_767),
            "camera raw images",
            "darktable-cli",
        ),
        (
            b"FUJIFILMCCD-RAW 0201",
            "camera raw images",
            "darktable-cli",
        ),
        (b"IIRO\x08\0\0\0", "camera raw images", "darktable-cli"),
        (b"IIU\0\x18\0\0\0", "camera raw images", "darktable-cli"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "SVG drawings",
            "rsvg-convert",
        ),
        (
            b"\xef\xbb\xbf <?xml version='1.0'?>\n<!-- a --><SVG>",
            "SVG drawings",
            "rsvg-convert",
        ),
        (
            b"<!DOCTYPE html><title>404</title>",
            "web pages",
            "fetch the image",
        ),
        (b"<html><svg></svg>", "web pages", "fetch the image"),
        (b"\0\0\0\x18ftypmp42....", "videos", "ffmpeg"),
        (b"\xff\x0a....", "JPEG XL images", "magick"),
        (b"II+\0\x08\0\0\0", "BigTIFF images", "magick"),
        (b"8BPS\0\x01", "Photoshop images", "magick"),
        (b"%PDF-1.7", "PDF images", "magick"),
    ] {
        let report = refused(file);
        assert!(report.contains(name), "{report}");
        assert!(report.contains(hint), "{report}");
        assert_eq!(report.contains("\nhint: "), !hint.is_empty(), "{report}");
    }
    let huge = vec![0; MAX_IMAGE_FILE_BYTES + 1];
    assert!(refused(&huge).contains("at most 67108864 are possible"));
}

#[test]
fn too_many_pixels_are_refused_before_decoding() {
    let most = "at most 64000000 are possible";
    let check = |file: &[u8], size: &str, most: &str| {
        let report = refused(file);
        assert!(report.contains(size) && report.contains(most), "{report}");
        assert!(!report.contains("cut off"), "{report}");
    };
    let size = "65500 x 65500 pixels";
    check(&resized_jpeg(BASELINE, 65_500, 65_500), size, most);
    check(
        &resized_jpeg(PROGRESSIVE, 5_000, 5_000),
        "5000 x 5000 pixels",
        "at most 24000000 are possible",
    );
    check(
        &png_of(png_header(65_500, 65_500, 8, 2), &[], &[0]),
        size,
        most,
    );
    assert!(refused(&png_of(png_header(100_000, 1, 8, 2), &[], &[0])).contains("damaged header"));
    let deep = refused(&png_of(png_header(8_000, 8_000, 16, 6), &[], &[0]));
    assert!(deep.contains("pixels of 8 bytes each"), "{deep}");
    check(&bmp((65_500, 65_500), 24, 0, &[], &[]), size, most);
    check(&bmp((65_500, -65_500), 24, 0, &[], &[]), size, most);
    check(
        &gif((65_500, 65_500), &[([0, 0, 1, 1], None, 1)]),
        size,
        most,
    );
    for kind in [(8, 3, 2), (8, 1, 1), (1, 1, 1), (16, 4, 2)] {
        check(
            &tiff_image((65_500, 65_500), kind, &[], &[0; 9], false),
            size,
            most,
        );
    }
    let (kind, chunk) = webp_chunk(LOSSY_WEBP);
    check(
        &webp(&[(b"VP8X", &webp_canvas(0, 65_500, 65_500)), (kind, chunk)]),
        size,
        most,
    );
    let mut frame = chunk.to_vec();
    frame[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    check(&webp(&[(b"VP8 ", &frame)]), "16383 x 16383 pixels", most);
    // Of the lossless header, 14 bits each follow the signature.
    let mut frame = webp_chunk(&encoded(ImageFormat::WebP, 2, 1, Color::Rgb8, &[0; 6]))
        .1
        .to_vec();
    let header = u32::from_le_bytes(*frame[1..].first_chunk().unwrap());
    frame[1..5].copy_from_slice(&(header & !0x0fff_ffff | 16_382 << 14 | 16_382).to_le_bytes());
    check(&webp(&[(b"VP8L", &frame)]), "16383 x 16383 pixels", most);
}

#[test]
fn no_pixels_are_refused() {
    for file in [
        bmp((0, 5), 24, 0, &[], &[]),
        gif((0, 0), &[([0, 0, 1, 1], None, 1)]),
        png_of(png_header(0, 5, 8, 2), &[], &[0]),
        tiff_image((0, 5), (8, 1, 1), &[], &[], false),
        resized_jpeg(BASELINE, 0, 24),
    ] {
        refused(&file);
    }
}

/// What lies inside may be larger than what the header says.
#[test]
fn what_would_take_too_much_memory_is_refused() {
    // An image of 65,535 x 65,535 on a canvas of one pixel.
    let large = gif((1, 1), &[([0, 0, 65_535, 65_535], None, 1)]);
    assert!(refused(&large).contains("GIF"), "{}", refused(&large));

    let (_, chunk) = webp_chunk(LOSSY_WEBP);
    let mut frame = chunk.to_vec();
    frame[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let report = refused(&webp(&[
        (b"VP8X", &webp_canvas(0, 40, 24)),
        (b"VP8 ", &frame),
    ]));
    assert!(
        report.contains("a frame of 16383 x 16383 pixels"),
        "{report}"
    );

    // 12 bytes a pixel for one with lossy colours and alpha.
    let canvas = webp_canvas(0x10, 4_000, 4_000);
    let report = refused(&webp(&[
        (b"VP8X", &canvas),
        (b"ALPH", &[0; 4]),
        (b"VP8 ", chunk),
    ]));
    assert!(report.contains("12 bytes each"), "{report}");

    // Twice 8 bytes a pixel.
    let deep = tiff_image((8_000, 4_000), (16, 4, 2), &[], &[0; 64], false);
    assert!(refused(&deep).contains("TIFF"), "{}", refused(&deep));

    // Text of 4 GB; a million values where three are needed.
    let text = tiff_image((1, 1), (8, 1, 1), &[(270, 2, u32::MAX, 8)], &[0], false);
    assert!(refused(&text).contains("tag 270 lie beyond its end"));
    let many = [(339, 3, 1 << 20, 8)];
    let many = tiff_image((1, 1), (8, 1, 1), &many, &[0; 1 << 21], false);
    assert!(refused(&many).contains("tag 339 has 1048576 values"));

    // EXIF data of 4 GB.
    let mut exif = webp(&[
        (b"VP8X", &webp_canvas(8, 40, 24)),
        (b"VP8 ", chunk),
        (b"EXIF", &[0; 4]),
    ]);
    let length = exif.len() - 8;
    exif[length..length + 4].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    assert!(refused(&exif).contains("cut off"), "{}", refused(&exif));
}

#[test]
fn kinds_of_tiff_that_are_not_read() {
    let with = |compression| {
        let file = tiff_image((2, 1), (8, 1, 1), &[], &[0; 2], false);
        let mut file = file.clone();
        let tag = file.windows(4).position(|tag| tag == [3, 1, 3, 0]).unwrap();
        file[tag + 8] = compression;
        file
    };
    assert_eq!(pixels(&with(1)).data, [0; 6]);
    assert!(refused(&with(7)).contains("TIFF images with JPEG compression"));
    let palette = &tiff_image((2, 1), (8, 1, 3), &[], &[0; 2], false);
    assert!(refused(palette).contains("magick image.tif image.png"));
}

#[test]
fn too_many_scans_are_refused() {
    let few = pixels(&rescanned_jpeg(PROGRESSIVE, 50));
    assert_eq!(few, pixels(PROGRESSIVE));
    let report = refused(&rescanned_jpeg(PROGRESSIVE, 100));
    assert!(report.contains("scans"), "{report}");
    // Fewer where each has more to walk over.
    let large = resized_jpeg(PROGRESSIVE, 4_800, 4_800);
    let report = refused(&rescanned_jpeg(&large, 20));
    assert!(report.contains("scans"), "{report}");
}

/// Text and a profile of 300 MB each, in 75 kB.
#[test]
fn compressed_text_and_profiles_are_not_inflated() {
    let bomb = bomb(300);
    assert!(bomb.len() < 400_000);
    let with = |kind, name: &[u8]| {
        let chunk = [name, &bomb].concat();
        png_of(png_header(2, 1, 8, 0), &[(kind, chunk)], &[0, 1, 2])
    };
    for file in [
        with(b"zTXt", b"a\0\0"),
        with(b"iTXt", b"a\0\x01\0\0\0"),
        with(b"iCCP", b"a\0\0"),
    ] {
        if let Ok(image) = decode(&file) {
            assert_eq!(image.data, [1, 1, 1, 2, 2, 2]);
        }
    }
}

/// A cut or damaged file is an error or an image of a possible size, never a panic; one cut in the upper half of its
/// coded data is always an error.
#[test]
fn damaged_files_are_refused_or_decoded() {
    let gradient = gradient();
    let made = |format| encoded(format, 40, 24, ExtendedColorType::Rgb8, &gradient);
    let files = [
        BASELINE.to_vec(),
        PROGRESSIVE.to_vec(),
        RESTART.to_vec(),
        CMYK.to_vec(),
        GREY.to_vec(),
        LOSSY_WEBP.to_vec(),
        LOSSY_ALPHA_WEBP.to_vec(),
        ANIMATED_WEBP.to_vec(),
        gif((40, 24), &[([0, 0, 40, 24], Some(1), 2)]),
        made(ImageFormat::Png),
        made(ImageFormat::WebP),
        made(ImageFormat::Bmp),
        made(ImageFormat::Tiff),
    ];
    for file in files {
        for length in 0..file.len() {
            let result = decode(&file[..length]);
            assert!(
                result.is_err() || length > file.len() * 3 / 4,
                "{length} of {} bytes of {:?}",
                file.len(),
                &file[..4]
            );
        }
        let mut damaged = file;
        // All of the header, then every seventh.
        for bit in (0..damaged.len() * 8).filter(|bit| *bit < 1_600 || bit % 7 == 0) {
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(image) = decode(&damaged) {
                image.validate().unwrap();
            }
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
