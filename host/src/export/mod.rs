//! Writes a graph as an ONNX file: standard operators of opset 14 alone, so that any runtime opens it.
//!
//! Input `image`, uint8 `[1, height, width, 3]`; output `logits`, f32 `[1, classes]`. The bytes have no metadata: the
//! model card is attached by `graft_engine::model::attach_card`.

mod builder;
mod float;
mod int8;
mod operators;

pub use float::float_model;
pub use int8::int8_model;

/// What a graph's input pixels are and how many classes it tells apart.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Of the input, in pixels.
    pub height: usize,
    /// Of the input, in pixels.
    pub width: usize,
    /// Outputs.
    pub classes: usize,
}
