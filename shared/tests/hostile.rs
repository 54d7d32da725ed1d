//! Five thousand bad pictures from a fixed seed: nobody dies, nothing hangs, each refusal has its reason, memory stays
//! bounded. The one test of this file: it measures the process.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it measured"
)]

mod support;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use graft_shared::decode::decode;
use image::{ExtendedColorType, ImageFormat};

use support::*;

/// Steele's splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }
}

/// One good picture of every kind, of at least a thousand bytes where its format lets noise be of that size.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..40 * 24 * 4).map(|_| random.below(256) as u8).collect();
    let made = |format, color: ExtendedColorType| {
        let length = 40 * 24 * usize::from(color.channel_count());
        encoded(format, 40, 24, color, &noise[..length])
    };
    let (rgb, rgba) = (ExtendedColorType::Rgb8, ExtendedColorType::Rgba8);
    let mut animation = gif((40, 24), &[([3, 2, 30, 20], Some(1), 2); 2]);
    animation.extend([0; 16]);
    vec![
        ("baseline JPEG", BASELINE.to_vec()),
        ("progressive JPEG", PROGRESSIVE.to_vec()),
        ("JPEG with restarts", RESTART.to_vec()),
        ("CMYK JPEG", CMYK.to_vec()),
        ("grey JPEG", GREY.to_vec()),
        ("JPEG with EXIF", jpeg_with_exif(BASELINE, &exif(6, true))),
        ("PNG", made(ImageFormat::Png, rgb)),
        ("PNG with alpha", made(ImageFormat::Png, rgba)),
        ("palette PNG", {
            let rows: Vec<u8> = [&[0][..], &[1; 40]].concat().repeat(24);
            let palette = noise[..768].to_vec();
            png_of(png_header(40, 24, 8, 3), &[(b"PLTE", palette)], &rows)
        }),
        ("lossy WebP", LOSSY_WEBP.to_vec()),
        ("lossy WebP with alpha", LOSSY_ALPHA_WEBP.to_vec()),
        ("animated WebP", ANIMATED_WEBP.to_vec()),
        ("lossless WebP", made(ImageFormat::WebP, rgb)),
        ("lossless WebP with alpha", made(ImageFormat::WebP, rgba)),
        ("GIF", animation),
        ("BMP", made(ImageFormat::Bmp, rgb)),
        ("BMP of run lengths", {
            let palette = [[3, 2, 1, 0]; 256];
            bmp((40, 24), 8, 1, &palette, &[[40, 7, 0, 0]; 24].concat())
        }),
        ("TIFF", made(ImageFormat::Tiff, rgb)),
        (
            "big-endian TIFF",
            tiff_image((40, 24), (8, 3, 2), &[], &noise[..2_880], true),
        ),
        (
            "1-bit TIFF",
            tiff_image((40, 24), (1, 1, 0), &[], &noise[..120], false),
        ),
    ]
}

/// Its size rewritten in its header to 65,500 x 65,500, or as far as the format can say.
fn enlarged(file: &[u8]) -> Vec<u8> {
    const SIDE: u16 = 65_500;
    let [low, high] = SIDE.to_le_bytes();
    let mut large = file.to_vec();
    let mut set =
        |offset: usize, bytes: &[u8]| large[offset..][..bytes.len()].copy_from_slice(bytes);
    match file[0] {
        0xff => return resized_jpeg(file, SIDE, SIDE),
        0x89 => {
            let mut header = file[16..29].to_vec();
            let side = u32::from(SIDE).to_be_bytes();
            header[..8].copy_from_slice(&[side, side].concat());
            // With its checksum.
            set(8, &png(&[(b"IHDR", header)])[8..]);
        }
        b'G' => set(6, &[low, high, low, high]),
        b'B' => set(18, &[low, high, 0, 0, low, high, 0, 0]),
        // Width and height are the first two entries of the directory.
        b'I' | b'M' => {
            let big_endian = file[0] == b'M';
            let side = u32::from(SIDE);
            let bytes = if big_endian {
                side.to_be_bytes()
            } else {
                side.to_le_bytes()
            };
            let directory = if big_endian {
                u32::from_be_bytes(*file[4..].first_chunk().unwrap())
            } else {
                u32::from_le_bytes(*file[4..].first_chunk().unwrap())
            } as usize;
            for entry in [directory + 2, directory + 14] {
                // As a long.
                set(entry + 2, if big_endian { &[0, 4] } else { &[4, 0] });
                set(entry + 8, &bytes);
            }
        }
        _ => match &file[12..16] {
            b"VP8 " => set(26, &[0xff, 0x3f, 0xff, 0x3f]),
            b"VP8L" => set(21, &[0xfe, 0xbf, 0xff, 0x0f]),
            _ => set(24, &[low, high, 0, low, high, 0]),
        },
    }
    large
}

/// All of them, one at a time: what was done and the file.
fn bad(mut each: impl FnMut(&str, &[u8])) {
    let good = good();
    let mut random = Random(20_260_901);
    for (name, file) in &good {
        for length in (0..file.len().min(1_000)).step_by(37) {
            each(&format!("{name}, cut to {length} bytes"), &file[..length]);
        }
        each(&format!("{name}, enlarged"), &enlarged(file));
    }
    for times in [100, 500, 5_000, 50_000] {
        each("JPEG of many scans", &rescanned_jpeg(PROGRESSIVE, times));
        let enlarged = resized_jpeg(PROGRESSIVE, 2_000, 2_000);
        each(
            "large JPEG of many scans",
            &rescanned_jpeg(&enlarged, times),
        );
    }
    for megabytes in [10, 100, 1_000] {
        let bomb = bomb(megabytes);
        let bombs: [(&[u8; 4], &[u8]); 4] = [
            (b"zTXt", b"a\0\0"),
            (b"iTXt", b"a\0\x01\0\0\0"),
            (b"iCCP", b"a\0\0"),
            (b"eXIf", b"II*\0\x08\0\0\0"),
        ];
        for (kind, head) in bombs {
            for times in [1, 8] {
                let chunk = (kind, [head, &bomb].concat());
                let file = png_of(png_header(2, 1, 8, 0), &vec![chunk; times], &[0, 1, 2]);
                each("PNG with a bomb", &file);
            }
        }
        let header = png_header(40, 24, 8, 2);
        let file = png(&[(b"IHDR", header), (b"IDAT", bomb), (b"IEND", Vec::new())]);
        each("PNG of too much data", &file);
    }
    let flips = 5_000_usize.saturating_sub(bad_without_flips(&good));
    for index in 0..flips {
        let (name, file) = &good[index % good.len()];
        let mut file = file.clone();
        let bits = 1 + random.below(8);
        for _ in 0..bits {
            // As often in the header, where it hurts, as anywhere.
            let end = if random.below(2) == 0 { 64 } else { file.len() };
            file[random.below(end)] ^= 1 << random.below(8);
        }
        each(&format!("{name}, {bits} bits flipped, {index}"), &file);
    }
}

/// How many there are before bits are flipped.
fn bad_without_flips(good: &[(&str, Vec<u8>)]) -> usize {
    let cut: usize = good
        .iter()
        .map(|(_, file)| file.len().min(1_000).div_ceil(37) + 1)
        .sum();
    cut + 8 + 3 * 9
}

/// The most memory that this process had resident at once, in bytes, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// A clock: the processor time of this thread, where the system says it, so that other programs don't count.
fn time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|times| times.split(' ').next()?.parse().ok())
        .map_or_else(|| START.elapsed(), Duration::from_nanos)
}

#[test]
fn five_thousand_bad_pictures() {
    for (name, file) in good() {
        if let Err(error) = decode(&file) {
            panic!("{name}: {}", error.report());
        }
    }
    let (mut count, mut accepted, mut largest) = (0, 0, 0_u64);
    let mut slowest = (Duration::ZERO, String::new());
    bad(|name, file| {
        count += 1;
        let start = time();
        let decoded = decode(file);
        let took = time().saturating_sub(start);
        assert!(took < Duration::from_secs(1), "{name} took {took:?}");
        if took > slowest.0 {
            slowest = (took, name.to_owned());
        }
        match decoded {
            Ok(image) => {
                image.validate().unwrap();
                accepted += 1;
                largest = largest.max((image.width * image.height) as u64);
            }
            Err(error) => {
                let report = error.report();
                assert!(report.len() > "error: ".len() + 10, "{name}: {report}");
            }
        }
    });
    assert_eq!(count, 5_000);
    let peak = peak_memory();
    println!(
        "{accepted} of {count} accepted, the largest of {largest} pixels; slowest {slowest:?}; peak memory {peak:?} bytes"
    );
    if let Some(peak) = peak {
        let most = (40 << 20) + 9 * largest;
        assert!(peak <= most, "{peak} bytes of memory, {most} are allowed");
    }
}
