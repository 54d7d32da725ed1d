//! JPEGs decoded at a fraction of their size: near the whole picture made small, strict, and the same whichever way they
//! are coded.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use graft_shared::decode::{Reduced, decode, decode_reduced};
use graft_shared::digest::{hex, sha256};
use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};
use image::ExtendedColorType as Color;
use image::ImageFormat;

use support::jpeg::{Kind, YCBCR_420, jpeg};
use support::*;

const SAMPLINGS: [&[(usize, usize)]; 5] = [
    &[(1, 1)],
    &[(1, 1), (1, 1), (1, 1)],
    &[(2, 1), (1, 1), (1, 1)],
    &[(1, 2), (1, 1), (1, 1)],
    &[(2, 2), (1, 1), (1, 1)],
];

/// Smooth, different in every component and corner, with some texture.
fn sample(component: usize, x: usize, y: usize) -> u8 {
    let place = (x * 31 + y * 17 + component * 7) as u32;
    let noise = (place.wrapping_mul(2_654_435_761) >> 9) as usize % 12;
    (match component {
        0 => 20 + x + y / 2 + noise,
        1 => 160 - x / 2 + y / 4,
        _ => 80 + y + noise / 4,
    })
    .min(255) as u8
}

/// Decodes with sides of at least 1 / `scale` needed.
#[track_caller]
fn reduced(file: &[u8], scale: usize) -> Reduced {
    decode_reduced(file, &|width, height| (width / scale, height / scale))
        .unwrap_or_else(|error| panic!("{}", error.report()))
}

/// How far a reduced image is from the means of `scale` x `scale` pixels of the whole, on average, where those are not
/// cut off by the edge.
fn difference_from_means(reduced: &Pixels, whole: &Pixels, scale: usize) -> f64 {
    let (width, height) = (whole.width / scale, whole.height / scale);
    let mut sum = 0.0;
    for index in 0..width * height * 3 {
        let (x, y, channel) = (index / 3 % width, index / 3 / width, index % 3);
        let value = |image: &Pixels, x: usize, y: usize| {
            f64::from(image.data[(y * image.width + x) * 3 + channel])
        };
        let rows = y * scale..(y + 1) * scale;
        let mean: f64 = rows
            .flat_map(|y| (x * scale..(x + 1) * scale).map(move |x| (x, y)))
            .map(|(x, y)| value(whole, x, y))
            .sum();
        sum += (value(reduced, x, y) - mean / (scale * scale) as f64).abs();
    }
    sum / (width * height * 3) as f64
}

#[test]
fn near_the_means_of_the_whole() {
    for sampling in SAMPLINGS {
        for (width, height) in [(160, 96), (150, 101), (33, 17), (16, 16), (17, 65)] {
            for (restart_interval, long_codes, step) in
                [(0, false, 4), (1, true, 1), (3, false, 30), (20, true, 4)]
            {
                let kind = Kind {
                    width,
                    height,
                    sampling,
                    restart_interval,
                    long_codes,
                    step,
                    ..YCBCR_420
                };
                let file = jpeg(&kind, sample);
                let whole = decode(&file).unwrap_or_else(|error| panic!("{}", error.report()));
                for scale in [2, 4, 8] {
                    let image = reduced(&file, scale);
                    let (expected_width, expected_height) = (width as f64, height as f64);
                    assert_eq!((image.width, image.height), (width, height));
                    assert_eq!(image.area.width, expected_width / scale as f64);
                    assert_eq!(image.area.height, expected_height / scale as f64);
                    let difference = difference_from_means(&image.pixels, &whole, scale);
                    assert!(difference < 0.9, "{difference}: {kind:?} at 1/{scale}");
                }
            }
        }
    }
}

fn mean_difference(one: &Pixels, other: &Pixels) -> f64 {
    let pairs = one.data.iter().zip(&other.data);
    let sum: u32 = pairs
        .map(|(one, other)| u32::from(one.abs_diff(*other)))
        .sum();
    f64::from(sum) / one.data.len() as f64
}

fn spec(dct_scaling: bool) -> Preprocess {
    Preprocess {
        width: 32,
        height: 32,
        fit: Fit::Crop { crop_pct: 1.0 },
        filter: Filter::Bicubic,
        dct_scaling,
    }
}

/// Of every orientation: at 1/8, 1/4 and 1/2, with a last column and row that the image covers in part.
#[test]
fn every_orientation_gives_nearly_the_pixels_of_the_whole() {
    for (width, height) in [(267, 401), (151, 129), (65, 83)] {
        let kind = Kind {
            width,
            height,
            ..YCBCR_420
        };
        // The gradient leaves no doubt about where a pixel belongs.
        let file = jpeg(&kind, |component, x, y| match component {
            0 => (x * 150 / width + y * 50 / height + 20) as u8,
            1 => (x * 100 / width + 50) as u8,
            _ => (y * 100 / height + 50) as u8,
        });
        for orientation in 1..=8 {
            let file = jpeg_with_exif(&file, &exif(orientation, false));
            let [whole, scaled] = [false, true].map(|scaling| spec(scaling).apply(&file).unwrap());
            assert_ne!(whole, scaled);
            let difference = mean_difference(&whole, &scaled);
            assert!(difference < 0.7, "{difference}: {orientation}, {kind:?}");
        }
    }
}

#[test]
fn reduced_as_far_as_what_is_needed_allows() {
    let file = |width, height| {
        let kind = Kind {
            width,
            height,
            ..YCBCR_420
        };
        jpeg(&kind, sample)
    };
    let turned = |file: &[u8]| jpeg_with_exif(file, &exif(6, false));
    let decoded = |file: &[u8], needed| {
        let image = decode_reduced(file, &|_, _| needed).unwrap();
        (image.pixels.width, image.pixels.height)
    };
    for (width, height, needed, expected) in [
        (160, 80, (20, 10), (20, 10)),
        (160, 80, (1, 1), (20, 10)),
        (161, 81, (20, 10), (21, 11)),
        (160, 80, (21, 10), (40, 20)),
        (160, 80, (20, 11), (40, 20)),
        (160, 80, (41, 10), (80, 40)),
        (159, 80, (80, 10), (159, 80)),
        (160, 80, (500, 10), (160, 80)),
    ] {
        let file = file(width, height);
        assert_eq!(decoded(&file, needed), expected, "{needed:?}");
        let (needed, expected) = ((needed.1, needed.0), (expected.1, expected.0));
        assert_eq!(decoded(&turned(&file), needed), expected);
    }
    for file in [PROGRESSIVE, CMYK] {
        assert_eq!(decoded(file, (1, 1)), (40, 24));
        assert_eq!(reduced(file, 8), Reduced::whole(decode(file).unwrap()));
    }
    for file in [BASELINE, RESTART, GREY] {
        assert_eq!(decoded(file, (1, 1)), (5, 3));
        assert_eq!(decoded(file, (6, 1)), (10, 6));
    }
    let png = encoded(ImageFormat::Png, 40, 24, Color::Rgb8, &gradient());
    assert_eq!(decoded(&png, (1, 1)), (40, 24));
    // Twice as many samples of chroma as of luma.
    let odd = Kind {
        sampling: &[(1, 1), (2, 1), (1, 1)],
        ..YCBCR_420
    };
    assert!(
        decode_reduced(&jpeg(&odd, sample), &|_, _| (1, 1)).is_ok_and(|image| {
            (image.pixels.width, image.pixels.height) == (odd.width, odd.height)
        })
    );
}

#[test]
fn red_green_and_blue_are_taken_as_they_are() {
    let flat = |component, _, _| [200, 100, 50][component];
    for (adobe, identifiers, expected) in [
        (Some(0), [1, 2, 3], [200, 100, 50]),
        (None, *b"RGB", [200, 100, 50]),
        (Some(1), [1, 2, 3], [91, 255, 150]),
        (None, [1, 2, 3], [91, 255, 150]),
        (None, [0, 1, 2], [91, 255, 150]),
    ] {
        let kind = Kind {
            sampling: SAMPLINGS[1],
            adobe,
            identifiers,
            step: 1,
            ..YCBCR_420
        };
        let file = jpeg(&kind, flat);
        for scale in [1, 2, 8] {
            let image = reduced(&file, scale);
            assert_eq!(image.pixels.data[..3], expected, "{kind:?}");
        }
    }
}

#[test]
fn cut_and_damaged_files_are_refused_or_decoded() {
    for kind in [
        Kind {
            width: 34,
            height: 19,
            ..YCBCR_420
        },
        Kind {
            width: 34,
            height: 19,
            restart_interval: 2,
            long_codes: true,
            ..YCBCR_420
        },
    ] {
        let file = jpeg(&kind, sample);
        let start = file
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap();
        for scale in [2, 8] {
            let needed = |width: usize, height: usize| (width / scale, height / scale);
            // The end of the image is not coded data.
            for length in 0..file.len() - 2 {
                let error = decode_reduced(&file[..length], &needed).unwrap_err();
                let line = error.line();
                assert!(
                    length < start + 14
                        || line.contains("ends too early")
                        || line.contains("restart marker"),
                    "{line}"
                );
            }
            let mut damaged = file.clone();
            let mut refused = 0;
            for bit in 0..file.len() * 8 {
                damaged[bit / 8] ^= 1 << (bit % 8);
                match decode_reduced(&damaged, &needed) {
                    Ok(image) => image.pixels.validate().unwrap(),
                    Err(_) => refused += 1,
                }
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(refused > file.len(), "{refused} of {} bits", file.len() * 8);
        }
    }
}

/// What a header promises is checked before memory is taken, and its promises end with the data.
#[test]
fn large_sizes_are_refused_or_end_early() {
    let file = jpeg(&YCBCR_420, sample);
    let refused = |width, height| {
        let file = resized_jpeg(&file, width, height);
        let needed = |width, height| (width / 8, height / 8);
        decode_reduced(&file, &needed).unwrap_err().line()
    };
    assert!(refused(65_500, 65_500).contains("at most 64000000 are possible"));
    assert!(refused(8_000, 8_000).contains("the coded data"));
    assert!(refused(0, 100).contains("JPEG"));
    assert!(refused(100, 0).contains("JPEG"));
}

/// The same on every CPU, and from one release to the next.
#[test]
fn reduced_pixels_have_their_bytes() {
    for (file, expected) in [
        (
            BASELINE,
            ["9454c64b1d22eea8", "52643bb972735f5c", "5cfd923c2e876622"],
        ),
        (
            RESTART,
            ["c3ac90d1ae63d815", "ca13147a12a6b439", "bbe8818cad534193"],
        ),
        (
            GREY,
            ["f68f8b0ab3b60271", "e56bbf3251b936c7", "c86d573d4427e709"],
        ),
    ] {
        let digests = [2, 4, 8].map(|scale| hex(&sha256(&reduced(file, scale).pixels.data)));
        assert_eq!(digests.map(|digest| digest[..16].to_owned()), expected);
    }
}
