//! Convolution + BatchNorm + activation, the unit that backbones are made of.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use graft_shared::error::{Context, Result};

use super::BatchNorm;
use super::cpu::{self, Epilogue, Geometry, dense, depthwise, pointwise};

/// `activation(batch_norm(input * weight + bias))`.
///
/// Dense (`groups` 1) with a kernel of any size, or depthwise (`groups` = channels) with a square kernel of 3, 5 or 7
/// and a stride of 1 or 2.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in, height, width]`; depthwise `[channels, 1, k, k]`.
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

/// Input `[n, in, h, w]`, weight `[out, in / groups, height, width]`, and `[2, out]` with scale and shift.
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
            self.stride,
            self.padding,
            self.groups,
        )?;
        if affine_layout.dims() != [2, geometry.output_channels] {
            candle_core::bail!(
                "scale and shift are {:?}, not [2, {}]",
                affine_layout.dims(),
                geometry.output_channels
            );
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::nn::testing::{largest_difference, pseudo_random};

    fn conv(weight: &[usize], stride: usize, padding: Padding, groups: usize) -> Conv {
        let channels = weight[0];
        Conv {
            weight: pseudo_random(weight, 1),
            bias: Some(pseudo_random(&[channels], 2)),
            batch_norm: Some(BatchNorm {
                weight: pseudo_random(&[channels], 3),
                bias: pseudo_random(&[channels], 4),
                mean: pseudo_random(&[channels], 5),
                variance: pseudo_random(&[channels], 6).abs().unwrap(),
                epsilon: 1e-3,
            }),
            stride,
            padding,
            groups,
            activation: Activation::Relu6,
        }
    }

    /// The same by candle's own operators.
    fn native(conv: &Conv, input: &Tensor) -> candle_core::Result<Tensor> {
        let Padding {
            top,
            left,
            bottom,
            right,
        } = conv.padding;
        let padded = input
            .pad_with_zeros(2, top, bottom)?
            .pad_with_zeros(3, left, right)?;
        let sum = padded.conv2d(&conv.weight, 0, conv.stride, 1, conv.groups)?;
        let channel = |tensor: &Tensor| tensor.reshape((1, (), 1, 1));
        let batch_norm = conv.batch_norm.as_ref().unwrap();
        let deviation = (&batch_norm.variance + batch_norm.epsilon)?.sqrt()?;
        sum.broadcast_add(&channel(conv.bias.as_ref().unwrap())?)?
            .broadcast_sub(&channel(&batch_norm.mean)?)?
            .broadcast_div(&channel(&deviation)?)?
            .broadcast_mul(&channel(&batch_norm.weight)?)?
            .broadcast_add(&channel(&batch_norm.bias)?)?
            .clamp(0.0, 6.0)
    }

    #[test]
    fn kernels_equal_candles_own() {
        let padding = |top, left, bottom, right| Padding {
            top,
            left,
            bottom,
            right,
        };
        // Weight, stride, padding, groups, input height and width.
        let mut cases = vec![
            (vec![32, 3, 3, 3], 2, padding(0, 0, 1, 1), 1, 20, 22),
            (vec![5, 7, 3, 3], 1, padding(2, 0, 1, 3), 1, 9, 8),
            (vec![9, 4, 7, 7], 2, padding(3, 3, 3, 3), 1, 17, 16),
            (vec![6, 4, 1, 7], 1, padding(0, 3, 0, 3), 1, 9, 8),
            (vec![6, 4, 7, 1], 2, padding(3, 0, 3, 0), 1, 9, 8),
            (vec![6, 4, 1, 1], 2, padding(0, 0, 0, 0), 1, 7, 9),
            (vec![6, 4, 1, 1], 1, padding(1, 0, 0, 2), 1, 5, 6),
            (vec![1, 1, 1, 1], 1, padding(0, 0, 0, 0), 1, 1, 1),
            (vec![130, 33, 1, 1], 1, padding(0, 0, 0, 0), 1, 7, 7),
            (vec![24, 96, 1, 1], 1, padding(0, 0, 0, 0), 1, 14, 15),
            (vec![2, 3, 3, 3], 1, padding(0, 5, 0, 0), 1, 3, 3),
        ];
        for kernel in [3, 5, 7] {
            for stride in [1, 2] {
                for (height, width) in [(1, 1), (7, 7), (8, 13), (30, 21), (40, 33)] {
                    let same = Padding::same(height, width, kernel, stride);
                    cases.push((vec![10, 1, kernel, kernel], stride, same, 10, height, width));
                    let odd = padding(kernel, 2, kernel - 1, kernel + 2);
                    cases.push((vec![3, 1, kernel, kernel], stride, odd, 3, height, width));
                }
            }
        }
        for (weight, stride, padding, groups, height, width) in cases {
            let input_channels = weight[1] * groups;
            let input = pseudo_random(&[3, input_channels, height, width], 7);
            let conv = conv(&weight, stride, padding, groups);
            let ours = conv.forward(&input).unwrap();
            let native = native(&conv, &input).unwrap();
            let difference = largest_difference(&ours, &native);
            assert!(
                difference < 2e-4,
                "{difference} at {weight:?} / {stride}, {padding:?}, input {height}x{width}"
            );
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        for (weight, groups) in [
            (vec![40, 24, 1, 1], 1),
            (vec![24, 1, 5, 5], 24),
            (vec![8, 24, 3, 3], 1),
        ] {
            let conv = conv(&weight, 1, Padding::symmetric(weight[2] / 2), groups);
            let images = pseudo_random(&[5, 24, 11, 13], 8);
            let together = conv.forward(&images).unwrap();
            for image in 0..5 {
                let alone = conv.forward(&images.narrow(0, image, 1).unwrap()).unwrap();
                let among = together.narrow(0, image, 1).unwrap();
                assert_eq!(largest_difference(&alone, &among), 0.0);
            }
        }
    }

    #[test]
    fn same_padding_puts_the_odd_zero_last() {
        let same = Padding::same(224, 225, 3, 2);
        assert_eq!((same.top, same.bottom, same.left, same.right), (0, 1, 1, 1));
        assert_eq!(Padding::same(14, 14, 5, 1), Padding::symmetric(2));
        assert_eq!(Padding::same(7, 7, 1, 1), Padding::default());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let input = pseudo_random(&[1, 4, 6, 6], 9);
        for (weight, stride, groups) in [
            (vec![4, 3, 3, 3], 1, 1),
            (vec![4, 1, 3, 3], 3, 4),
            (vec![4, 2, 3, 3], 1, 2),
            (vec![4, 1, 3, 5], 1, 4),
            (vec![4, 4, 9, 9], 1, 1),
            (vec![4, 4, 3, 3], 0, 1),
            (vec![4, 1, 2, 2], 1, 4),
        ] {
            let conv = conv(&weight, stride, Padding::default(), groups);
            let report = conv.forward(&input).unwrap_err().report();
            assert!(report.contains("caused by"), "{report}");
        }
    }
}
