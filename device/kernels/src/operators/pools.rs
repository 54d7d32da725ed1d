//! Pools: the mean or the largest byte of each window.

use super::{Depthwise, LARGEST_REQUANTIZED, Quantization, Requantize, elements};
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, Window, ensure};

/// Whether the padding of a window counts in its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As positions whose byte is the zero point.
    Counts,
    /// Not at all: the mean is over the positions inside the picture.
    IsLeftOut,
}

/// `clamp(rne(f32(sum - count * zx) * scales[count]) + zy, 0, 255)`.
#[derive(Debug, Clone)]
pub(crate) struct AveragePool {
    pub(crate) window: Window,
    pub(crate) padding: Padding,
    pub(crate) input_zero_point: u8,
    /// `f32(sx / sy)`.
    pub(crate) ratio: f32,
    pub(crate) output_zero_point: u8,
}

impl AveragePool {
    /// The factor of a mean over `count` positions.
    pub(crate) fn scale(&self, count: usize) -> f32 {
        self.ratio / count as f32
    }

    /// The same as a depthwise convolution with weights of 1; none where windows count different
    /// numbers of positions, or too many.
    pub(crate) fn as_depthwise(&self) -> Option<Depthwise> {
        let window = self.window;
        let count = window.kernel[0] * window.kernel[1];
        let varies = self.padding == Padding::IsLeftOut && window.reaches_padding();
        if varies || count > Depthwise::MOST_TAPS {
            return None;
        }
        let offset = count as i32 * i32::from(self.input_zero_point);
        Some(Depthwise {
            window,
            weights: vec![1; count * window.channels],
            bias: vec![-offset; window.channels],
            requantize: Requantize {
                scales: vec![self.scale(count); window.channels],
                zero_point: self.output_zero_point,
            },
            input_zero_point: self.input_zero_point,
        })
    }
}

/// Padding is never the largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxPool {
    pub(crate) window: Window,
}

impl Operator {
    /// Mean of each window: `acc = sum(x)` over its `count` positions, `s = f32(f32(sx / sy) / count)`,
    /// `y = clamp(rne(f32(acc - count * zx) * s) + zy, 0, 255)`. Units: output rows.
    ///
    /// # Errors
    /// More than 2^22 positions in a window, scales that are not finite and positive or too far apart.
    pub fn average_pool(
        isa: Isa,
        window: Window,
        padding: Padding,
        input: Quantization,
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        ensure(
            elements(&[window.kernel[0], window.kernel[1]])? <= 1 << 22,
            "a pool has more than 2^22 positions in a window",
        )?;
        input.check()?;
        output.check()?;
        let ratio = input.scale / output.scale;
        ensure(
            ratio.is_finite() && 255.0 * ratio < LARGEST_REQUANTIZED,
            "the scales of a pool differ too much",
        )?;
        let pool = AveragePool {
            window,
            padding,
            input_zero_point: input.zero_point,
            ratio,
            output_zero_point: output.zero_point,
        };
        let shape = shape(&window)?;
        Ok(Operator::new(shape, isa.kernels().average_pool(pool)))
    }

    /// Mean over all positions of each channel: an average pool whose only window is the picture (height, width,
    /// channels). Units: 1.
    ///
    /// # Errors
    /// As for [`Operator::average_pool`] and [`Window::new`].
    pub fn global_average_pool(
        isa: Isa,
        picture: [usize; 3],
        input: Quantization,
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        let [height, width, _] = picture;
        let window = Window::new(picture, [height, width], [1, 1], [0; 4])?;
        Operator::average_pool(isa, window, Padding::IsLeftOut, input, output)
    }

    /// Largest byte of each window. Units: output rows.
    ///
    /// # Errors
    /// More than 2^28 elements.
    pub fn max_pool(isa: Isa, window: Window) -> Result<Operator, Invalid> {
        let shape = shape(&window)?;
        let pool = MaxPool { window };
        Ok(Operator::new(shape, isa.kernels().max_pool(pool)))
    }
}

fn shape(window: &Window) -> Result<Shape, Invalid> {
    Ok(Shape {
        inputs: vec![window.input_len()],
        output: elements(&[window.positions(), window.channels])?,
        unit: window.out_width * window.channels,
        macs: 0,
    })
}
