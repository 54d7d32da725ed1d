//! The product of two activations: of the same shape, or of an image and one byte per channel (squeeze-and-excitation,
//! Hu et al. 2018).

use super::{Quantization, elements};
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, ensure};

/// `clamp(rne(f32((a - za) * (b - zb)) * scale) + zy, 0, 255)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Multiply {
    /// Bytes of the first input for which the second is used once; the second starts over after them.
    pub(crate) period: usize,
    pub(crate) zero_points: [u8; 2],
    pub(crate) scale: f32,
    pub(crate) output_zero_point: u8,
}

impl Operator {
    /// Multiplies two activations of `len` bytes: `m = f32(f32(sa * sb) / sy)`,
    /// `y = clamp(rne(f32((a - za) * (b - zb)) * m) + zy, 0, 255)`. Units: bytes.
    ///
    /// # Errors
    /// Scales that are not finite and positive, or whose product or quotient is not.
    pub fn multiply(
        isa: Isa,
        len: usize,
        a: Quantization,
        b: Quantization,
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        build(isa, len, len, 1, [a, b, output])
    }

    /// Multiplies each of `positions` x `channels` bytes by the byte of its channel, the second input. Arithmetic as for
    /// [`Operator::multiply`]. Units: positions.
    ///
    /// # Errors
    /// As for [`Operator::multiply`].
    pub fn multiply_channels(
        isa: Isa,
        positions: usize,
        channels: usize,
        a: Quantization,
        b: Quantization,
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        let len = elements(&[positions, channels])?;
        build(isa, len, channels, channels, [a, b, output])
    }
}

fn build(
    isa: Isa,
    len: usize,
    period: usize,
    unit: usize,
    [a, b, output]: [Quantization; 3],
) -> Result<Operator, Invalid> {
    ensure(len > 0, "a product has no elements")?;
    a.check()?;
    b.check()?;
    output.check()?;
    let scale = (a.scale * b.scale) / output.scale;
    ensure(
        scale.is_finite() && scale < (1 << 14) as f32,
        "the scales of a product differ too much",
    )?;
    let shape = Shape {
        inputs: vec![len, period],
        output: len,
        unit,
        macs: 0,
    };
    let multiply = Multiply {
        period,
        zero_points: [a.zero_point, b.zero_point],
        scale,
        output_zero_point: output.zero_point,
    };
    Ok(Operator::new(shape, isa.kernels().multiply(multiply)))
}
