//! Every limit on what is read, with its unit and its reason. What exceeds one is refused before it costs memory.

use std::time::Duration;

/// Bytes of an image file: 64 MiB. A 100-megapixel camera JPEG has about 50 MB.
pub const MAX_IMAGE_FILE_BYTES: usize = 64 << 20;

/// Pixels of an image, width times height: 64 million, 192 MB as RGB8. Phones reach 50 million by default; a board with
/// 512 MB holds one such image. Read from the file's header before anything is decoded.
pub const MAX_IMAGE_PIXELS: u64 = 64_000_000;

/// Pixels of a progressive JPEG: 24 million. Its decoder keeps all coefficients, up to 6 bytes a pixel, beside the 3
/// bytes a pixel of the result.
pub const MAX_PROGRESSIVE_PIXELS: u64 = 24_000_000;

/// Bytes of an image as its decoder gives it: 256 MiB, for the largest image with 4 channels of 8 bits. One with 16 bits
/// may have half the pixels.
pub const MAX_DECODED_BYTES: usize = 256 << 20;

/// Bytes that decoding an image may take beside [`DECODING_BYTES_PER_PIXEL`]: 32 MiB. With the program itself that stays
/// below 40 MiB.
pub const DECODING_BYTES: u64 = 32 << 20;

/// Bytes a pixel that decoding an image may take, its result among them: 9, what a progressive JPEG needs. Where a decoder
/// needs more (16-bit TIFF; WebP with lossy colours and alpha, or animated), the image must be so small that
/// [`DECODING_BYTES`] hold the rest.
pub const DECODING_BYTES_PER_PIXEL: u64 = 9;

/// Pixels along one side of an image: 65,535, the most that a JPEG header can say.
pub const MAX_IMAGE_SIDE: u32 = 65_535;

/// Scans of a progressive JPEG: 100. Each walks over the whole image, so that a small file with thousands would run for
/// minutes.
pub const MAX_JPEG_SCANS: usize = 100;

/// Pixels that the scans of a progressive JPEG may walk over, one scan after the other: 360 million, 15 scans of the
/// largest. Encoders write about 10.
pub const MAX_JPEG_SCANNED_PIXELS: usize = 360_000_000;

/// Bytes that the PNG decoder may hold beside the pixels (palette, colour profile, text): 16 MiB. Compressed text
/// expands a thousandfold.
pub const MAX_PNG_EXTRA_BYTES: u64 = 16 << 20;

/// Values of one of TIFF's own tags: 262,144, for the offsets of all tiles of 16 x 16 pixels of the largest image. The
/// decoder takes 32 bytes for each.
pub const MAX_TIFF_VALUES: u32 = 262_144;

/// Pixels along one side of the model's input: 1,024. The largest backbones of the kind take 600.
pub const MAX_INPUT_SIDE: u16 = 1_024;

/// Pixels along one side of the model's input, at least: 8. Backbones halve the image five times; below this nothing
/// is left to see.
pub const MIN_INPUT_SIDE: u16 = 8;

/// Smallest `crop_pct`: a tenth of the side, a hundredth of the area. Below, it is a mistake (a percentage and a
/// fraction mixed up).
pub const MIN_CROP_PCT: f32 = 0.1;

/// Labels of a model, at least: 2. With one there is nothing to tell apart.
pub const MIN_LABELS: usize = 2;

/// Labels of a model, at most: 32,768, above the 21,841 of the whole ImageNet.
pub const MAX_LABELS: usize = 32_768;

/// Bytes of one label in UTF-8: 256. A folder name, which is where labels come from, has at most 255.
pub const MAX_LABEL_BYTES: usize = 256;

/// Probes in a card: 16. Each costs one inference at every start of a board.
pub const MAX_PROBES: usize = 16;

/// Bytes of a card's provenance: 64 KiB, for settings and versions, a page of text.
pub const MAX_PROVENANCE_BYTES: usize = 64 << 10;

/// Bytes of any other section of a card, known or not: 64 KiB.
pub const MAX_SECTION_BYTES: usize = 64 << 10;

/// Bytes of a card: 16 MiB. All labels at their longest take 8 MiB, all probes of as many labels 2 MiB.
pub const MAX_CARD_BYTES: usize = 16 << 20;

/// Bytes of a name in a card (backbone, recipe, calibration method, version, key or value of a setting): 1,024.
pub const MAX_NAME_BYTES: usize = 1_024;

/// Bits of a quantized weight: from 2 to 8 in an int8 file. 7 serves processors without an 8-bit dot product.
pub const WEIGHT_BITS: std::ops::RangeInclusive<u8> = 2..=8;

/// Bytes of a model file: 512 MiB. A large float backbone has 120 MB, an int8 one a quarter of it.
pub const MAX_MODEL_FILE_BYTES: u64 = 512 << 20;

/// Pixels of an image that the service decodes whole: 16 million, so that it stays below 256 MiB with
/// [`DECODING_BYTES_PER_PIXEL`] for each. A large sequential JPEG is decoded at a fraction of its size and may have more.
pub const MAX_SERVICE_PIXELS: u64 = 16_000_000;

/// Bytes of a request's body in the service: 8 MiB. Phones' photos have 2 to 6 MB.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// Bytes of all requests' bodies that the service holds at once: 40 MiB, five of the largest.
pub const MAX_BODIES_BYTES: usize = 40 << 20;

/// Bytes of a request's first line and headers: 16 KiB.
pub const MAX_HEAD_BYTES: usize = 16 << 10;

/// Bytes of a request's target, the path and what follows it: 2,048.
pub const MAX_TARGET_BYTES: usize = 2_048;

/// Headers of a request: 64.
pub const MAX_HEADERS: usize = 64;

/// Connections that the service keeps at once: 768. With the files that it has open, that stays below the 1,024 that a
/// process may open by default.
pub const MAX_CONNECTIONS: usize = 768;

/// Pictures that wait for the engine: 32. Beyond that an answer would come too late to be of use.
pub const MAX_QUEUE: usize = 32;

/// Within this a request's head must be there, also the next one's on a connection that is kept.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Within this a request's body must be there.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Within this a client must have taken some more of its answer.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// What has been begun when the service is stopped may take this long to end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
