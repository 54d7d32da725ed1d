//! Where a kernel looks: input size, kernel, stride, padding, and the output size that follows.

use crate::operators::elements;
use crate::{Invalid, ensure};

/// Largest extent of one dimension, and of kernel, stride and padding.
const MAX_EXTENT: usize = 1 << 16;

/// The geometry of a convolution or pooling over an image of `height` x `width` x `channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
}

impl Window {
    /// `input` is height, width, channels; `kernel` and `stride` are vertical, horizontal; `padding` is top, left,
    /// bottom, right and smaller than the kernel.
    ///
    /// # Errors
    /// A dimension of zero or beyond 65,536, a kernel larger than the padded input, more than 2^28 elements.
    pub fn new(
        input: [usize; 3],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> Result<Window, Invalid> {
        let extent = |v: &usize| (1..=MAX_EXTENT).contains(v);
        ensure(
            input.iter().chain(&kernel).chain(&stride).all(extent),
            "a dimension is 0 or larger than 65,536",
        )?;
        let [height, width, channels] = input;
        let [top, left, bottom, right] = padding;
        ensure(
            top.max(bottom) < kernel[0] && left.max(right) < kernel[1],
            "the padding is not smaller than the kernel",
        )?;
        let output = |size: usize, padding: usize, kernel: usize, stride: usize| {
            (size + padding)
                .checked_sub(kernel)
                .map(|free| free / stride + 1)
        };
        let too_small = Invalid("the kernel is larger than the padded input");
        let out_height = output(height, top + bottom, kernel[0], stride[0]).ok_or(too_small)?;
        let out_width = output(width, left + right, kernel[1], stride[1]).ok_or(too_small)?;
        elements(&[height + top + bottom, width + left + right, channels])?;
        elements(&[kernel[0], kernel[1], channels])?;
        Ok(Window {
            height,
            width,
            channels,
            kernel,
            stride,
            top,
            left,
            out_height,
            out_width,
        })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [self.out_height, self.out_width]
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Output positions, all channels of which are computed from one placement of the kernel.
    pub fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Height and width of what the kernel reaches, from the padding before the picture on.
    pub(crate) fn reach(&self) -> [usize; 2] {
        [
            (self.out_height - 1) * self.stride[0] + self.kernel[0],
            (self.out_width - 1) * self.stride[1] + self.kernel[1],
        ]
    }

    /// Whether the kernel reaches beyond the picture anywhere.
    pub(crate) fn reaches_padding(&self) -> bool {
        let [height, width] = self.reach();
        self.top + self.left > 0 || height > self.height || width > self.width
    }

    /// The placements of the kernel's weights: down, right.
    pub(crate) fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [height, width] = self.kernel;
        (0..height).flat_map(move |dy| (0..width).map(move |dx| [dy, dx]))
    }
}
