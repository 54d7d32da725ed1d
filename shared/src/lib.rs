//! What the host and the device must agree on: labels, preprocessing, the model card, limits.
//!
//! | module | duty |
//! |---|---|
//! | [`error`] | the one error type of all crates |
//! | [`files`] | files replaced in one step |
//! | [`limits`] | every limit on what is read |
//! | [`digest`] | SHA-256 |
//! | [`labels`] | labels in output order |
//! | [`preprocess`] | image file to model input: the spec and its one implementation |
//! | [`mod@decode`] | image file to RGB8 |
//! | [`mod@resize`] | antialiased resize in fixed point |
//! | [`card`] | the model card and its bytes |
//! | [`json`] | the card for people and other tools |
//!
//! # The wire format of a model card
//!
//! A change of any byte below is a new version; versions from 1 on stay readable.
//!
//! ```text
//! card    = magic format_version section*
//! section = tag flag length payload
//! ```
//!
//! | part | bytes | what |
//! |---|---|---|
//! | magic | 9 | ASCII `graftcard` |
//! | format_version | 2 | u16, little endian: 1 |
//! | tag | 2 | u16, little endian: the kind of the section |
//! | flag | 1 | 0 optional: a reader that does not know the tag skips the section; 1 required: it refuses the card |
//! | length | 4 | u32, little endian: bytes of the payload |
//! | payload | length | the section's value in [postcard](https://postcard.jamesmunns.com/wire-format), but for the digest |
//!
//! | tag | section | flag | present | payload |
//! |---|---|---|---|---|
//! | 1 | labels | 1 | always | sequence of string, in output order |
//! | 2 | preprocess | 1 | always | `Preprocess` |
//! | 3 | quantization | 1 | always | `Quantization` |
//! | 4 | decision | 1 | always | `Decision` |
//! | 5 | metrics | 0 | when measured | `Metrics` |
//! | 6 | probes | 0 | unless there is none | sequence of `Probe` |
//! | 7 | provenance | 0 | always | `Provenance` |
//! | 65535 | digest | 1 | always | 32 bytes graph digest, 32 bytes card digest, as they are |
//!
//! - Sections come in ascending order of their tags, each at most once; so the digest is the last. Nothing follows it.
//! - The graph digest is the SHA-256 of the model file's bytes before the metadata that holds the card. The card digest
//!   is the SHA-256 of all bytes of the card before it, the magic and the graph digest among them.
//! - A payload is exactly what encoding its value gives: no byte after the value, no number longer than needed. One card
//!   has one encoding.
//! - Every f32 is finite. The other rules are [`labels::Labels::new`]'s, [`preprocess::Preprocess::validate`]'s,
//!   [`limits`]' and those told with the fields; a card that breaks one is refused.
//!
//! Fields, in their order. `varint` is postcard's: 7 bits a byte, lowest first, the top bit says that more follow. A
//! string or sequence is its length (bytes or elements) as varint, then its content. f32 are 4 bytes, little endian; u8
//! one byte. A tuple is its parts.
//!
//! | type | fields |
//! |---|---|
//! | `Preprocess` | width varint u16, height varint u16, fit `Fit`, filter `Filter`, dct_scaling `bool` |
//! | `bool` | byte 0 no; byte 1 yes |
//! | `Fit` | byte 0 crop: crop_pct f32; byte 1 pad: colour 3 x u8 (red, green, blue); byte 2 squash |
//! | `Filter` | byte 0 bilinear; byte 1 bicubic |
//! | `Quantization` | arithmetic varint u32, kind `QuantizationKind`, weight_bits u8, calibration_images varint u32, calibration_method string |
//! | `QuantizationKind` | byte 0 float; byte 1 int8 |
//! | `Decision` | temperature f32, threshold f32 |
//! | `Metrics` | test_images varint u32, top1 f32, top5 f32, macro_recall f32, float_top1 f32, interval (f32, f32) |
//! | `Probe` | seed varint u64, logits sequence of f32 |
//! | `Provenance` | manifest_digest 32 x u8, backbone string, backbone_digest 32 x u8, recipe string, seed varint u64, settings sequence of (string, string), graft_version string, created varint u64 |

pub mod card;
pub mod decode;
pub mod digest;
pub mod error;
pub mod exif;
pub mod files;
pub mod json;
pub mod labels;
pub mod limits;
pub mod preprocess;
pub mod resize;
