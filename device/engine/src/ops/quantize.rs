//! The edge where a picture of floats becomes bytes.

use graft_kernels::{Isa, Quantization};
use tract_onnx::tract_hir::internal::*;

use super::{Image, Kernel, Output, Quantized, one};

/// Pixels that are quantized at once, one channel after the other.
const CHUNK: usize = 256;
/// Adding this to a small f32 leaves its nearest integer, ties to even, in the low bits: 1.5 * 2^23.
const ROUNDING: f32 = 12_582_912.0;

/// QuantizeLinear of an f32 picture in NCHW to bytes in NHWC.
#[derive(Debug)]
pub(crate) struct QuantizePicture {
    pub(crate) output: Quantization,
}

impl Quantized for QuantizePicture {
    fn name(&self) -> &'static str {
        "Quantize"
    }

    fn takes_floats(&self) -> bool {
        true
    }

    fn output(&self, inputs: &[Image]) -> TractResult<Output> {
        Ok(Output::Image(one(inputs)?))
    }

    fn kernel(&self, _: Isa, inputs: &[Image]) -> TractResult<Kernel> {
        let [height, width, channels] = one(inputs)?;
        Ok(Kernel::Quantize(Quantize {
            positions: height * width,
            channels,
            output: self.output,
        }))
    }
}

/// The same, ready to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantize {
    positions: usize,
    channels: usize,
    output: Quantization,
}

impl Quantize {
    /// Bytes that it makes.
    pub(crate) fn len(&self) -> usize {
        self.positions * self.channels
    }

    /// `y = clamp(rne(x / scale) + zero_point, 0, 255)`: `picture` is channels x positions, `bytes` positions x channels.
    ///
    /// # Errors
    /// Slices of another length.
    pub(crate) fn run(&self, picture: &[f32], bytes: &mut [u8]) -> TractResult<()> {
        let len = self.len();
        ensure!(
            picture.len() == len && bytes.len() == len,
            "a picture of another size"
        );
        let mut chunk = [0u8; CHUNK];
        for first in (0..self.positions).step_by(CHUNK) {
            let count = CHUNK.min(self.positions - first);
            let bytes = &mut bytes[first * self.channels..][..count * self.channels];
            for (channel, plane) in picture.chunks_exact(self.positions).enumerate() {
                for (byte, x) in chunk.iter_mut().zip(&plane[first..][..count]) {
                    *byte = quantize(*x, self.output);
                }
                for (pixel, byte) in bytes.chunks_exact_mut(self.channels).zip(&chunk) {
                    pixel[channel] = *byte;
                }
            }
        }
        Ok(())
    }
}

/// Clamping before rounding gives the same: rounding is monotone and keeps integers. A NaN becomes the lowest byte.
fn quantize(x: f32, Quantization { scale, zero_point }: Quantization) -> u8 {
    let (low, high) = (-f32::from(zero_point), 255.0 - f32::from(zero_point));
    let value = x / scale;
    let value = if value > low { value } else { low };
    let value = if value < high { value } else { high };
    let integer = (value + ROUNDING)
        .to_bits()
        .wrapping_sub(ROUNDING.to_bits());
    integer.wrapping_add(u32::from(zero_point)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_onnx_says() {
        for zero_point in [0, 1, 127, 255] {
            let code = Quantization {
                scale: 0.25,
                zero_point,
            };
            for step in -3_000i16..3_000 {
                let x = f32::from(step) / 32.0;
                let expected = (x / 0.25).round_ties_even() + f32::from(zero_point);
                assert_eq!(quantize(x, code), expected.clamp(0.0, 255.0) as u8, "{x}");
            }
            assert_eq!(quantize(f32::INFINITY, code), 255);
            assert_eq!(quantize(f32::NEG_INFINITY, code), 0);
        }
    }
}
