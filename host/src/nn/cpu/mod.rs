//! Forward kernels on the CPU, in safe Rust on f32 NCHW slices.
//!
//! Vector instructions are chosen at run time (`pulp`), because the program is built for the oldest x86-64. Every output
//! value is one chain of fused multiply-adds in a fixed order, so that results are the same to the bit for every
//! instruction set, thread count and batch.

pub(super) mod dense;
pub(super) mod depthwise;
pub(super) mod matrix;
pub(super) mod pointwise;
pub(super) mod training;

use candle_core::{CpuStorage, Layout, Result, bail};
use pulp::Simd;

use super::{Activation, Padding};

/// The values of a contiguous f32 tensor.
pub(super) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!(
            "a contiguous tensor is needed, strides are {:?}",
            layout.stride()
        ),
    }
}

/// Sizes of one convolution, checked against each other.
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) input_channels: usize,
    pub(super) output_channels: usize,
    pub(super) input: Size,
    pub(super) output: Size,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: Padding,
    pub(super) depthwise: bool,
}

/// Height and width of a plane, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Size {
    pub(super) fn area(self) -> usize {
        self.height * self.width
    }
}

impl Geometry {
    /// `affine` are the dimensions of the scale and shift tensor.
    pub(super) fn new(
        (images, input_channels, height, width): (usize, usize, usize, usize),
        (output_channels, group_channels, kernel, kernel_width): (usize, usize, usize, usize),
        affine: &[usize],
        stride: usize,
        padding: Padding,
        groups: usize,
    ) -> Result<Geometry> {
        let depthwise = groups > 1;
        if kernel != kernel_width || kernel == 0 || stride == 0 {
            bail!(
                "kernel {kernel}x{kernel_width} with stride {stride}: a square kernel and a stride are needed"
            );
        }
        if depthwise && (groups != input_channels || groups != output_channels) {
            bail!(
                "{groups} groups of {input_channels} channels: only 1 group, or one per channel, can be had"
            );
        }
        if group_channels * groups.max(1) != input_channels {
            bail!(
                "the weight is for {} channels, the input has {input_channels}",
                group_channels * groups.max(1)
            );
        }
        if affine != [2, output_channels] {
            bail!("scale and shift are {affine:?}, not [2, {output_channels}]");
        }
        let span = |input: usize, before: usize, after: usize| {
            (input + before + after)
                .checked_sub(kernel)
                .map(|last| last / stride + 1)
        };
        let (Some(output_height), Some(output_width)) = (
            span(height, padding.top, padding.bottom),
            span(width, padding.left, padding.right),
        ) else {
            bail!(
                "a kernel of {kernel} does not fit an input of {height}x{width} with {padding:?}"
            );
        };
        Ok(Geometry {
            images,
            input_channels,
            output_channels,
            input: Size { height, width },
            output: Size {
                height: output_height,
                width: output_width,
            },
            kernel,
            stride,
            padding,
            depthwise,
        })
    }

    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == Padding::default()
    }

    pub(super) fn output_shape(&self) -> (usize, usize, usize, usize) {
        (
            self.images,
            self.output_channels,
            self.output.height,
            self.output.width,
        )
    }
}

/// What follows a sum in the same pass over memory: `clamp(sum * scale + shift)`, per output channel.
pub(super) struct Epilogue<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    low: f32,
    high: f32,
}

/// One channel's part of an [`Epilogue`] in vector registers.
#[derive(Clone, Copy)]
struct Finish<S: Simd> {
    simd: S,
    scale: S::f32s,
    shift: S::f32s,
    low: S::f32s,
    high: S::f32s,
}

impl<'a> Epilogue<'a> {
    /// `affine` holds the scales of all channels, then their shifts.
    pub(super) fn new(affine: &'a [f32], activation: Activation) -> Epilogue<'a> {
        let (scale, shift) = affine.split_at(affine.len() / 2);
        let (low, high) = activation.bounds();
        Epilogue {
            scale,
            shift,
            low,
            high,
        }
    }

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Finish<S> {
        Finish {
            simd,
            scale: simd.splat_f32s(self.scale[channel]),
            shift: simd.splat_f32s(self.shift[channel]),
            low: simd.splat_f32s(self.low),
            high: simd.splat_f32s(self.high),
        }
    }
}

impl<S: Simd> Finish<S> {
    /// The bound comes first in both comparisons: x86 then lets a NaN through instead of hiding it.
    #[inline(always)]
    fn apply(self, sum: S::f32s) -> S::f32s {
        let value = self.simd.mul_add_f32s(sum, self.scale, self.shift);
        self.simd
            .min_f32s(self.high, self.simd.max_f32s(self.low, value))
    }
}
