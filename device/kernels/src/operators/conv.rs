//! Convolutions, dense and depthwise: their weights in the order in which NHWC activations come, their zero points folded.

use std::borrow::Cow;

use super::{LARGEST_REQUANTIZED, Quantization, Requantize, elements, per_channel, sums};
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, Window, ensure};

/// What a quantized convolution is made of, beside its geometry.
#[derive(Debug, Clone, Copy)]
pub struct ConvParameters<'a> {
    /// Output channels x (input channels / groups) x kernel height x kernel width, as ONNX stores them ("OIHW").
    pub weights: &'a [i8],
    /// One per output channel, at scale `input.scale * weight_scales[c]`; empty for none.
    pub bias: &'a [i32],
    /// One per output channel, or one for all.
    pub weight_scales: &'a [f32],
    /// The input; padding has its zero point.
    pub input: Quantization,
    /// The output.
    pub output: Quantization,
}

/// A convolution that mixes all input channels.
#[derive(Debug, Clone)]
pub(crate) struct Conv<'a> {
    pub(crate) window: Window,
    /// Output channels.
    pub(crate) channels: usize,
    /// Output channel x kernel height x kernel width x input channel.
    pub(crate) weights: Cow<'a, [i8]>,
    /// Bias minus what the zero point of the input adds.
    pub(crate) bias: Vec<i32>,
    pub(crate) requantize: Requantize,
    pub(crate) input_zero_point: u8,
}

/// A convolution of each channel by itself.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    pub(crate) window: Window,
    /// Kernel height x kernel width x channel.
    pub(crate) weights: Vec<i8>,
    /// Bias minus what the zero point of the input adds.
    pub(crate) bias: Vec<i32>,
    pub(crate) requantize: Requantize,
    pub(crate) input_zero_point: u8,
}

impl Depthwise {
    /// Taps beyond which only plain code computes it: the weights of the others, padded to whole vectors, would take
    /// many times the memory of the model.
    pub(crate) const MOST_TAPS: usize = 1024;
}

impl Conv<'_> {
    /// With weights of its own.
    pub(crate) fn into_owned(self) -> Conv<'static> {
        Conv {
            weights: Cow::Owned(self.weights.into_owned()),
            ..self
        }
    }

    /// Products in one output.
    pub(crate) fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.window.channels
    }
}

impl Operator {
    /// A convolution of all input channels into `channels` output channels; `acc = bias + sum((x - zx) * w)`,
    /// `y = clamp(rne(f32(acc) * m) + zy, 0, 255)` with `m = f32(f32(sx * sw) / sy)`. Units: output positions.
    ///
    /// # Errors
    /// Lengths that do not match the geometry, scales that are not finite and positive, sums that may leave an i32.
    pub fn conv(
        isa: Isa,
        window: Window,
        channels: usize,
        parameters: ConvParameters,
    ) -> Result<Operator, Invalid> {
        let taps = elements(&window.kernel)?;
        let depth = elements(&[taps, window.channels])?;
        let output = elements(&[channels, window.positions()])?;
        let checked = parameters.check(channels, depth)?;
        let mut weights = Cow::Borrowed(parameters.weights);
        if taps > 1 {
            let mut rows = Vec::with_capacity(weights.len());
            for row in parameters.weights.chunks_exact(depth) {
                for tap in 0..taps {
                    rows.extend(row[tap..].iter().step_by(taps));
                }
            }
            weights = Cow::Owned(rows);
        }
        let conv = Conv {
            window,
            channels,
            weights,
            bias: checked.bias,
            requantize: checked.requantize,
            input_zero_point: parameters.input.zero_point,
        };
        let shape = Shape {
            inputs: vec![window.input_len()],
            output,
            unit: channels,
            macs: output as u64 * depth as u64,
        };
        let isa = if checked.moderate { isa } else { Isa::PLAIN };
        Ok(Operator::new(shape, isa.kernels().conv(conv)))
    }

    /// A convolution of each channel by itself: `weights` is channels x 1 x kernel height x kernel width. Arithmetic as
    /// for [`Operator::conv`]. Units: output rows.
    ///
    /// # Errors
    /// As for [`Operator::conv`].
    pub fn depthwise(
        isa: Isa,
        window: Window,
        parameters: ConvParameters,
    ) -> Result<Operator, Invalid> {
        let taps = elements(&window.kernel)?;
        let channels = window.channels;
        let output = elements(&[channels, window.positions()])?;
        let checked = parameters.check(channels, taps)?;
        let mut weights = Vec::with_capacity(parameters.weights.len());
        for tap in 0..taps {
            weights.extend(parameters.weights[tap..].iter().step_by(taps));
        }
        let depthwise = Depthwise {
            window,
            weights,
            bias: checked.bias,
            requantize: checked.requantize,
            input_zero_point: parameters.input.zero_point,
        };
        let shape = Shape {
            inputs: vec![window.input_len()],
            output,
            unit: window.out_width * channels,
            macs: output as u64 * taps as u64,
        };
        let usual = checked.moderate && taps <= Depthwise::MOST_TAPS;
        let isa = if usual { isa } else { Isa::PLAIN };
        Ok(Operator::new(shape, isa.kernels().depthwise(depthwise)))
    }
}

struct Checked {
    bias: Vec<i32>,
    requantize: Requantize,
    /// Whether no `sum * scale` comes near the end of an i32; else the conversion needs the care that only plain code
    /// takes. No trained net is so extreme.
    moderate: bool,
}

impl ConvParameters<'_> {
    /// Checks lengths and ranges for `channels` rows of `depth` weights.
    fn check(&self, channels: usize, depth: usize) -> Result<Checked, Invalid> {
        ensure(channels > 0, "a convolution has no output channels")?;
        ensure(
            self.weights.len() == elements(&[channels, depth])?,
            "the weights do not match the convolution's shape",
        )?;
        ensure(
            self.bias.is_empty() || self.bias.len() == channels,
            "the bias has another length than the output channels",
        )?;
        self.input.check()?;
        self.output.check()?;
        let scales = per_channel(self.weight_scales, channels)?
            .iter()
            .map(|w| (self.input.scale * w) / self.output.scale)
            .collect::<Vec<f32>>();
        ensure(
            scales.iter().all(|s| s.is_finite() && *s >= 0.0),
            "a scale is not finite and positive",
        )?;
        let mut bias = Vec::with_capacity(channels);
        let mut moderate = true;
        for (c, row) in self.weights.chunks_exact(depth).enumerate() {
            let row_bias = self.bias.get(c).copied().unwrap_or(0);
            let sums = sums(row, row_bias, self.input.zero_point)?;
            bias.push(sums.folded_bias);
            moderate &= sums.largest as f32 * scales[c] < LARGEST_REQUANTIZED;
        }
        Ok(Checked {
            bias,
            requantize: Requantize {
                scales,
                zero_point: self.output.zero_point,
            },
            moderate,
        })
    }
}
