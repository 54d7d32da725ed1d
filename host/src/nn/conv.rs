//! Convolution + BatchNorm + activation, the unit that backbones are made of.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use graft_shared::error::{Context, Result};

use super::BatchNorm;
use super::cpu::{self, Epilogue, Geometry, dense, depthwise, pointwise};

/// `activation(batch_norm(input * weight + bias))`.
///
/// Dense (`groups` 1) with a square kernel of any size, or depthwise (`groups` = channels) with a kernel of 3, 5 or 7
/// and a stride of 1 or 2.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in, k, k]`; depthwise `[channels, 1, k, k]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Normalisation of the output, with running statistics.
    pub batch_norm: Option<BatchNorm>,
    /// Step in both directions, in pixels.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// 1, or the number of channels for a depthwise convolution.
    pub groups: usize,
    /// What follows BatchNorm.
    pub activation: Activation,
}

/// Zeros around a plane, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same number of zeros on each side: PyTorch's `padding=n`.
    pub fn symmetric(pixels: usize) -> Padding {
        Padding {
            top: pixels,
            left: pixels,
            bottom: pixels,
            right: pixels,
        }
    }

    /// TensorFlow's SAME: the output has `ceil(input / stride)` rows and columns, and where the zeros needed for that are
    /// odd in number the extra one is at the bottom and the right. `height` and `width` are the input's, in pixels.
    pub fn same(height: usize, width: usize, kernel: usize, stride: usize) -> Padding {
        let total = |input: usize| {
            let output = input.div_ceil(stride.max(1));
            (output.saturating_sub(1) * stride + kernel).saturating_sub(input)
        };
        let (vertical, horizontal) = (total(height), total(width));
        Padding {
            top: vertical / 2,
            left: horizontal / 2,
            bottom: vertical - vertical / 2,
            right: horizontal - horizontal / 2,
        }
    }
}

/// What is applied to each value after BatchNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

impl Activation {
    /// The smallest and the largest value that it lets through.
    pub fn bounds(self) -> (f32, f32) {
        match self {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        }
    }
}

impl Conv {
    /// `[n, in, height, width]` to `[n, out, height', width']`, BatchNorm with its running statistics.
    ///
    /// # Errors
    /// Shapes that do not fit each other, and kernels, strides and groups other than those named at [`Conv`].
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let affine = self.affine()?;
        let op = ConvOp {
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            activation: self.activation,
        };
        input
            .apply_op3_no_bwd(&self.weight, &affine, &op)
            .with_context(|| {
                format!(
                    "convolution of {:?} with a weight of {:?}",
                    input.dims(),
                    self.weight.dims()
                )
            })
    }

    /// Bias and BatchNorm as one `[2, out]` tensor: scale, then shift.
    fn affine(&self) -> Result<Tensor> {
        let (scale, shift) = match &self.batch_norm {
            Some(batch_norm) => batch_norm.scale_and_shift()?,
            None => {
                let ones = self
                    .weight
                    .dim(0)
                    .and_then(|outputs| {
                        Tensor::ones(outputs, self.weight.dtype(), self.weight.device())
                    })
                    .context("a convolution's weight has four dimensions")?;
                let zeros = ones.zeros_like().context("shift of a convolution")?;
                (ones, zeros)
            }
        };
        let stacked = || -> candle_core::Result<Tensor> {
            let shift = match &self.bias {
                Some(bias) => ((bias * &scale)? + &shift)?,
                None => shift,
            };
            Tensor::stack(&[&scale, &shift], 0)
        };
        stacked().context("bias and BatchNorm of a convolution must be [out]")
    }
}

/// Input `[n, in, h, w]`, weight `[out, in / groups, k, k]`, and `[2, out]` with scale and shift.
struct ConvOp {
    stride: usize,
    padding: Padding,
    groups: usize,
    activation: Activation,
}

impl CustomOp3 for ConvOp {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let geometry = Geometry::new(
            input_layout.shape().dims4()?,
            weight_layout.shape().dims4()?,
            affine_layout.dims(),
            self.stride,
            self.padding,
            self.groups,
        )?;
        let input = cpu::contiguous(input, input_layout)?;
        let weight = cpu::contiguous(weight, weight_layout)?;
        let epilogue = Epilogue::new(cpu::contiguous(affine, affine_layout)?, self.activation);
        let output = if geometry.depthwise {
            depthwise::forward(&geometry, input, weight, &epilogue)?
        } else if geometry.is_pointwise() {
            pointwise::forward(&geometry, input, weight, &epilogue)
        } else {
            dense::forward(&geometry, input, weight, &epilogue)
        };
        Ok((CpuStorage::F32(output), geometry.output_shape().into()))
    }
}
