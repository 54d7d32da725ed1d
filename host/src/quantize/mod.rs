//! From a float graph to an int8 one: fold, calibrate, equalize, round.

mod calibrate;
mod codes;
mod equalize;
mod feedback;
mod fold;
mod pixels;
mod round;
mod sqnr;

use crate::nn::{Function, Padding, Pool};

pub use calibrate::{Calibration, Method, calibrate};
pub use codes::has_range;
pub use equalize::{Equalized, equalize};
pub use feedback::Feedback;
pub use fold::fold;
pub use pixels::{Normalisation, PixelCode};
pub use round::quantize;
pub use sqnr::Sqnr;

/// How bytes stand for reals: `real = scale * (byte - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Size of one step, positive.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero_point: u8,
}

/// A graph in int8; its nodes stand where the folded float graph's do.
#[derive(Clone, Debug)]
pub struct QuantizedGraph {
    /// In topological order; node 0 is the input.
    pub nodes: Vec<QuantizedNode>,
}

/// One operator and how its output is stored.
#[derive(Clone, Debug)]
pub struct QuantizedNode {
    /// The float node's name.
    pub name: String,
    /// What it computes.
    pub op: QuantizedOp,
    /// Indices of the nodes it reads.
    pub inputs: Vec<usize>,
    /// How its bytes stand for reals; unused for [`QuantizedOp::Linear`], whose output is f32.
    pub output: Affine,
}

/// The operators of the quantized graph.
#[derive(Clone, Debug)]
pub enum QuantizedOp {
    /// The pixels: themselves, or normalised by a table of the engine's.
    Input(Option<Normalisation>),
    /// Convolution; the activation is the clamp of the output's scale and zero point.
    Conv {
        /// Weights with one scale per output channel, OIHW.
        weights: Weights,
        /// Shape `[output channels, input channels / groups, kernel height, kernel width]`.
        shape: [usize; 4],
        /// Both directions.
        stride: usize,
        /// In pixels.
        padding: Padding,
        /// 1, or the number of channels for a depthwise convolution.
        groups: usize,
    },
    /// Sum of two activations; what follows is the clamp of the output's scale and zero point.
    Add,
    /// An activation function.
    Function(Function),
    /// The mean or the largest byte of each window.
    Pool(Pool),
    /// Channels side by side.
    Concat,
    /// Product of an activation and one value per channel.
    MultiplyChannels,
    /// Mean over height and width, which stay as 1.
    Squeeze,
    /// Drops height and width of 1.
    Flatten,
    /// Mean over height and width.
    GlobalAveragePool,
    /// Fully connected to f32 logits; weights `[output, input]`.
    Linear {
        /// Weights with one scale per output.
        weights: Weights,
        /// Number of inputs.
        inputs: usize,
    },
}

impl QuantizedOp {
    /// Bits that its weights need; none without weights.
    #[must_use]
    pub fn weight_bits(&self) -> Option<u8> {
        let (QuantizedOp::Conv { weights, .. } | QuantizedOp::Linear { weights, .. }) = self else {
            return None;
        };
        let seven = weights
            .values
            .iter()
            .all(|weight| weight.unsigned_abs() <= 64);
        Some(if seven { 7 } else { 8 })
    }
}

/// Integer weights with their scales and biases.
#[derive(Clone, Debug)]
pub struct Weights {
    /// In [-127, 127].
    pub values: Vec<i8>,
    /// One per output channel.
    pub scales: Vec<f32>,
    /// One per output channel, at scale `input scale * scales[c]`.
    pub biases: Vec<i32>,
}
