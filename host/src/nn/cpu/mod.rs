//! Kernels on the CPU, forward and backward, in safe Rust on f32 NCHW slices.
//!
//! Vector instructions are chosen at run time (`pulp`), because the program is built for the oldest x86-64. Every output
//! value is one chain of fused multiply-adds in a fixed order, so that a forward pass is the same to the bit for every
//! instruction set, thread count and batch. Sums over a batch are the same for every thread count.

pub(super) mod add;
mod channels;
mod columns;
pub(super) mod convolution;
mod correlation;
pub(super) mod dense;
pub(super) mod depthwise;
mod gate;
pub(super) mod linear;
pub(super) mod matrix;
#[cfg(test)]
pub(super) mod plain;
pub(super) mod pointwise;
pub(super) mod pool;
mod product;
mod rows;
mod scratch;
pub(super) mod training;
mod transpose;
mod winograd;

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
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) input_channels: usize,
    pub(super) output_channels: usize,
    pub(super) input: Size,
    pub(super) output: Size,
    pub(super) kernel: Size,
    pub(super) stride: usize,
    pub(super) padding: Padding,
    pub(super) depthwise: bool,
}

/// Height and width of a plane or a kernel, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// # Errors
    /// Sizes that do not fit each other, and groups other than 1 or one per channel.
    pub(super) fn new(
        (images, input_channels, height, width): (usize, usize, usize, usize),
        (output_channels, group_channels, kernel_height, kernel_width): (
            usize,
            usize,
            usize,
            usize,
        ),
        stride: usize,
        padding: Padding,
        groups: usize,
    ) -> Result<Geometry> {
        let depthwise = groups > 1;
        if kernel_height == 0 || kernel_width == 0 || stride == 0 {
            bail!("a kernel of {kernel_height}x{kernel_width} with stride {stride}");
        }
        if depthwise && kernel_height != kernel_width {
            bail!("a depthwise kernel of {kernel_height}x{kernel_width}: it must be square");
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
        let span = |input: usize, kernel: usize, before: usize, after: usize| {
            (input + before + after)
                .checked_sub(kernel)
                .map(|last| last / stride + 1)
        };
        let (Some(output_height), Some(output_width)) = (
            span(height, kernel_height, padding.top, padding.bottom),
            span(width, kernel_width, padding.left, padding.right),
        ) else {
            bail!(
                "a kernel of {kernel_height}x{kernel_width} does not fit an input of {height}x{width} with {padding:?}"
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
            kernel: Size {
                height: kernel_height,
                width: kernel_width,
            },
            stride,
            padding,
            depthwise,
        })
    }

    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel.area() == 1 && self.stride == 1 && self.padding == Padding::default()
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
    /// [`Finish::apply`] to each of `values`; `output` is as long.
    #[inline(always)]
    fn row(self, values: &[f32], output: &mut [f32]) {
        let (vectors, rest) = S::as_simd_f32s(values);
        let (outputs, output_rest) = S::as_mut_simd_f32s(output);
        for (output, &vector) in outputs.iter_mut().zip(vectors) {
            *output = self.apply(vector);
        }
        if !rest.is_empty() {
            let value = self.apply(self.simd.partial_load_f32s(rest));
            self.simd.partial_store_f32s(output_rest, value);
        }
    }

    /// The bound comes first in both comparisons: x86 then lets a NaN through instead of hiding it.
    #[inline(always)]
    fn apply(self, sum: S::f32s) -> S::f32s {
        let value = self.simd.mul_add_f32s(sum, self.scale, self.shift);
        self.simd
            .min_f32s(self.high, self.simd.max_f32s(self.low, value))
    }
}
