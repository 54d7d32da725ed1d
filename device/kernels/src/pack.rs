//! Weights as the kernels want them, laid out and checked once at load: dense convolution, depthwise convolution, linear.

use crate::dispatch::Isa;
use crate::plain::{LANES, Requantize};
use crate::window::elements;
use crate::{Invalid, Window, ensure};

/// What a quantized convolution is made of, beside its geometry.
#[derive(Debug, Clone, Copy)]
pub struct ConvParameters<'a> {
    /// Output channels x (input channels / groups) x kernel height x kernel width, as ONNX stores them ("OIHW").
    pub weights: &'a [i8],
    /// One per output channel, at scale `input_scale * weight_scales[c]`; empty for none.
    pub bias: &'a [i32],
    /// Scale of the input.
    pub input_scale: f32,
    /// Zero point of the input; padding has this value.
    pub input_zero_point: u8,
    /// One per output channel, or one for all.
    pub weight_scales: &'a [f32],
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the output.
    pub output_zero_point: u8,
}

/// Rows of `k` weights packed in panels: panel, k, output channel within the panel.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// `n.div_ceil(LANES)` panels of `k` x `LANES`; channels beyond `n` are 0.
    pub(crate) weights: Vec<[i8; LANES]>,
    /// Bias minus what the zero point of the input adds, per output channel of all panels.
    pub(crate) bias: Vec<[i32; LANES]>,
}

impl Panels {
    /// `rows` yields the `k` weights of each output channel.
    fn new(n: usize, k: usize, row: impl Fn(usize, usize) -> i8, folded: &[i32]) -> Panels {
        let panels = n.div_ceil(LANES);
        let mut weights = vec![[0; LANES]; panels * k];
        let mut bias = vec![[0; LANES]; panels];
        for (c, folded) in folded.iter().enumerate() {
            let (panel, lane) = (c / LANES, c % LANES);
            for (i, w) in weights[panel * k..][..k].iter_mut().enumerate() {
                w[lane] = row(c, i);
            }
            bias[panel][lane] = *folded;
        }
        Panels {
            k,
            n,
            weights,
            bias,
        }
    }
}

/// A convolution that mixes all input channels: `weights` is output x input x kernel height x kernel width.
#[derive(Debug, Clone)]
pub struct Conv {
    pub(crate) window: Window,
    pub(crate) panels: Panels,
    pub(crate) requantize: Requantize,
    pub(crate) input_zero_point: u8,
}

impl Conv {
    /// A convolution with `channels` output channels.
    ///
    /// # Errors
    /// Lengths that do not match the geometry, scales that are not finite and positive, sums that may leave an i32.
    pub fn new(
        window: Window,
        channels: usize,
        parameters: ConvParameters,
    ) -> Result<Conv, Invalid> {
        let [kh, kw] = window.kernel;
        let taps = kh * kw;
        let k = elements(&[taps, window.channels])?;
        elements(&[channels, k])?;
        elements(&[channels, window.positions()])?;
        let checked = parameters.check(channels, k)?;
        // OIHW to output, height, width, input: the order in which NHWC activations come.
        let row = |c: usize, i: usize| {
            parameters.weights[c * k + (i % window.channels) * taps + i / window.channels]
        };
        Ok(Conv {
            window,
            panels: Panels::new(channels, k, row, &checked.bias),
            requantize: checked.requantize,
            input_zero_point: parameters.input_zero_point,
        })
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.panels.n
    }

    /// Its geometry.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Multiply-adds of one run.
    pub fn macs(&self) -> u64 {
        (self.window.positions() * self.panels.k * self.panels.n) as u64
    }

    /// Convolves `input` (height x width x channels) into `output` (out height x out width x output channels).
    ///
    /// # Errors
    /// A slice of another length.
    pub fn run(&self, isa: Isa, input: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            input.len() == self.window.input_len(),
            "the input has another length than the convolution's",
        )?;
        ensure(
            output.len() == self.window.positions() * self.panels.n,
            "the output has another length than the convolution's",
        )?;
        isa.conv(self, input, output);
        Ok(())
    }
}

/// A convolution of each channel by itself: `weights` is channels x 1 x kernel height x kernel width.
#[derive(Debug, Clone)]
pub struct Depthwise {
    pub(crate) window: Window,
    /// Tap, channel.
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<i32>,
    pub(crate) requantize: Requantize,
    pub(crate) input_zero_point: u8,
}

impl Depthwise {
    /// A depthwise convolution; it has as many output channels as input channels.
    ///
    /// # Errors
    /// As for [`Conv::new`].
    pub fn new(window: Window, parameters: ConvParameters) -> Result<Depthwise, Invalid> {
        let taps = window.kernel[0] * window.kernel[1];
        let channels = window.channels;
        elements(&[channels, window.positions()])?;
        let checked = parameters.check(channels, taps)?;
        let mut weights = vec![0; taps * channels];
        for (i, w) in weights.iter_mut().enumerate() {
            *w = parameters.weights[(i % channels) * taps + i / channels];
        }
        Ok(Depthwise {
            window,
            weights,
            bias: checked.bias,
            requantize: checked.requantize,
            input_zero_point: parameters.input_zero_point,
        })
    }

    /// Its geometry.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Multiply-adds of one run.
    pub fn macs(&self) -> u64 {
        (self.window.positions() * self.weights.len()) as u64
    }

    /// Convolves `input` (height x width x channels) into `output` (out height x out width x channels).
    ///
    /// # Errors
    /// A slice of another length.
    pub fn run(&self, isa: Isa, input: &[u8], output: &mut [u8]) -> Result<(), Invalid> {
        ensure(
            input.len() == self.window.input_len(),
            "the input has another length than the convolution's",
        )?;
        ensure(
            output.len() == self.window.positions() * self.window.channels,
            "the output has another length than the convolution's",
        )?;
        isa.depthwise(self, input, output);
        Ok(())
    }
}

/// The fully connected head: `logits[c] = f32(bias[c] + sum((x - zero_point) * w[c])) * scales[c]`, not requantized.
#[derive(Debug, Clone)]
pub struct Linear {
    pub(crate) panels: Panels,
    pub(crate) scales: Vec<f32>,
}

impl Linear {
    /// `weights` is inputs x outputs, as MatMulInteger has them; `scales` is one per output, or one for all.
    ///
    /// # Errors
    /// Lengths that do not match, scales that are not finite, sums that may leave an i32.
    pub fn new(
        inputs: usize,
        weights: &[i8],
        bias: &[i32],
        input_zero_point: u8,
        scales: &[f32],
    ) -> Result<Linear, Invalid> {
        ensure(
            inputs > 0 && !weights.is_empty(),
            "a linear layer has no weights",
        )?;
        ensure(
            weights.len().is_multiple_of(inputs),
            "the weights are no multiple of the inputs",
        )?;
        let n = elements(&[weights.len()])? / inputs;
        ensure(
            bias.is_empty() || bias.len() == n,
            "the bias has another length than the outputs",
        )?;
        ensure(
            scales.iter().all(|s| s.is_finite()),
            "a scale is not finite",
        )?;
        let scales = per_channel(scales, n)?;
        let weight = |c: usize, i: usize| weights[i * n + c];
        let folded = fold_bias(n, inputs, weight, bias, input_zero_point)?;
        Ok(Linear {
            panels: Panels::new(n, inputs, weight, &folded),
            scales,
        })
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.panels.k
    }

    /// Number of logits.
    pub fn outputs(&self) -> usize {
        self.panels.n
    }

    /// Multiply-adds of one run.
    pub fn macs(&self) -> u64 {
        (self.panels.k * self.panels.n) as u64
    }

    /// Computes the logits of one row of inputs.
    ///
    /// # Errors
    /// A slice of another length.
    pub fn run(&self, isa: Isa, input: &[u8], logits: &mut [f32]) -> Result<(), Invalid> {
        ensure(
            input.len() == self.panels.k,
            "the input has another length than the linear layer's",
        )?;
        ensure(
            logits.len() == self.panels.n,
            "the output has another length than the linear layer's",
        )?;
        isa.linear(self, input, logits);
        Ok(())
    }
}

struct Checked {
    bias: Vec<i32>,
    requantize: Requantize,
}

impl ConvParameters<'_> {
    /// Checks lengths and ranges for `channels` rows of `k` weights, and folds the input's zero point into the bias.
    fn check(&self, channels: usize, k: usize) -> Result<Checked, Invalid> {
        ensure(channels > 0, "a convolution has no output channels")?;
        ensure(
            self.weights.len() == elements(&[channels, k])?,
            "the weights do not match the convolution's shape",
        )?;
        ensure(
            self.bias.is_empty() || self.bias.len() == channels,
            "the bias has another length than the output channels",
        )?;
        let usable = |s: f32| s.is_finite() && s > 0.0;
        ensure(
            usable(self.input_scale) && usable(self.output_scale),
            "a scale is not finite and positive",
        )?;
        let scales = per_channel(self.weight_scales, channels)?
            .iter()
            .map(|w| (self.input_scale * w) / self.output_scale)
            .collect::<Vec<f32>>();
        ensure(
            scales.iter().all(|s| s.is_finite() && *s >= 0.0),
            "a scale is not finite and positive",
        )?;
        let bias = fold_bias(
            channels,
            k,
            |c, i| self.weights[c * k + i],
            self.bias,
            self.input_zero_point,
        )?;
        Ok(Checked {
            bias,
            requantize: Requantize::new(scales, self.output_zero_point),
        })
    }
}

fn per_channel(scales: &[f32], channels: usize) -> Result<Vec<f32>, Invalid> {
    match scales {
        [one] => Ok(vec![*one; channels]),
        _ if scales.len() == channels => Ok(scales.to_vec()),
        _ => Err(Invalid(
            "there is neither one scale nor one per output channel",
        )),
    }
}

/// `bias - zero_point * sum(w)`, after the check that `bias + sum((x - zero_point) * w)` fits an i32 for every input.
fn fold_bias(
    channels: usize,
    k: usize,
    weight: impl Fn(usize, usize) -> i8,
    bias: &[i32],
    zero_point: u8,
) -> Result<Vec<i32>, Invalid> {
    (0..channels)
        .map(|c| {
            let (mut sum, mut magnitude) = (0i64, 0i64);
            for i in 0..k {
                let w = i64::from(weight(c, i));
                sum += w;
                magnitude += w.abs();
            }
            let bias = bias.get(c).map_or(0, |b| i64::from(*b));
            let folded = bias - i64::from(zero_point) * sum;
            ensure(
                bias.abs() + 255 * magnitude <= i64::from(i32::MAX),
                "the sum of products of an output channel may leave an i32",
            )?;
            i32::try_from(folded)
                .map_err(|_| Invalid("the bias of an output channel leaves an i32"))
        })
        .collect()
}
