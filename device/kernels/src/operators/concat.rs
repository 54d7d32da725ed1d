//! Activations side by side, channel after channel, each brought to the scale of the output.

use super::{Quantization, elements};
use crate::operator::{Operator, Shape};
use crate::{Invalid, Isa, ensure};

/// One input of a concatenation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConcatInput {
    /// Its channels.
    pub channels: usize,
    /// What its bytes stand for.
    pub quantization: Quantization,
}

/// One input: its channels, and what each of its bytes becomes (none: it stays as it is).
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) channels: usize,
    pub(crate) table: Option<Box<[u8; 256]>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Concat {
    pub(crate) parts: Vec<Part>,
    /// Channels of the output.
    pub(crate) channels: usize,
}

impl Operator {
    /// Joins `inputs`, each of `positions` x its channels: `y = clamp(rne(f32(f32(x - zx) * sx) / sy) + zy, 0, 255)`,
    /// and `y = x` where scale and zero point stay the same. Units: positions.
    ///
    /// # Errors
    /// No inputs, an input without channels, scales that are not finite and positive.
    pub fn concat(
        isa: Isa,
        positions: usize,
        inputs: &[ConcatInput],
        output: Quantization,
    ) -> Result<Operator, Invalid> {
        ensure(!inputs.is_empty(), "a concatenation has no inputs")?;
        output.check()?;
        let mut lens = vec![];
        let mut parts = vec![];
        let mut channels = 0;
        for input in inputs {
            input.quantization.check()?;
            ensure(input.channels > 0, "an input has no channels")?;
            lens.push(elements(&[positions, input.channels])?);
            channels += input.channels;
            let same = input.quantization == output;
            parts.push(Part {
                channels: input.channels,
                table: (!same).then(|| Box::new(requantized(input.quantization, output))),
            });
        }
        let shape = Shape {
            inputs: lens,
            output: elements(&[positions, channels])?,
            unit: channels,
            macs: 0,
        };
        let concat = Concat { parts, channels };
        Ok(Operator::new(shape, isa.kernels().concat(concat)))
    }
}

/// Every byte, dequantized and quantized anew as ONNX does.
fn requantized(input: Quantization, output: Quantization) -> [u8; 256] {
    let mut table = [0; 256];
    for (x, y) in (0u8..=255).zip(&mut table) {
        let value = (f32::from(x) - f32::from(input.zero_point)) * input.scale;
        let quantized = (value / output.scale).round_ties_even() + f32::from(output.zero_point);
        *y = quantized.clamp(0.0, 255.0) as u8;
    }
    table
}
