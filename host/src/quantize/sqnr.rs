//! Signal to quantization noise: how loud a quantized operator's error is beside its output.

use candle_core::Tensor;
use graft_shared::error::{Context, Error, Result};

use super::Affine;

/// The power of an activation and of its error, both summed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sqnr {
    signal: f64,
    noise: f64,
}

impl Sqnr {
    /// Adds a value and what became of it.
    pub fn add(&mut self, value: f64, got: f64) {
        self.signal += value * value;
        self.noise += (value - got) * (value - got);
    }

    /// Adds the activation of one image, `[1, channels, height, width]` or `[1, channels]`, and the bytes that stand for
    /// it, channels last. `factors` is what each of their channels is multiplied by, or empty.
    ///
    /// # Errors
    /// When there are more values than bytes, or fewer.
    pub fn add_activation(
        &mut self,
        activation: &Tensor,
        bytes: &[u8],
        code: Affine,
        factors: &[f32],
    ) -> Result<()> {
        let channels = activation.dim(1).context("an activation's channels")?;
        let values = activation
            .flatten_all()
            .and_then(|flat| flat.to_vec1::<f32>())
            .context("reading an activation")?;
        if values.len() != bytes.len() {
            return Err(Error::new(format!(
                "{} bytes stand for {} values",
                bytes.len(),
                values.len()
            )));
        }
        let plane = (values.len() / channels.max(1)).max(1);
        for (channel, values) in values.chunks_exact(plane).enumerate() {
            let step =
                f64::from(code.scale) / f64::from(factors.get(channel).copied().unwrap_or(1.0));
            for (position, value) in values.iter().enumerate() {
                let byte = bytes[position * channels + channel];
                let got = step * (f64::from(byte) - f64::from(code.zero_point));
                self.add(f64::from(*value), got);
            }
        }
        Ok(())
    }

    /// In dB: infinite where nothing was lost.
    #[must_use]
    pub fn decibels(self) -> f64 {
        if self.noise == 0.0 {
            f64::INFINITY
        } else {
            10.0 * (self.signal / self.noise).log10()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn a_copy_has_no_noise_and_known_noise_is_right() {
        // Two channels of two pixels; the second is stored at twice its size.
        let values = Tensor::new(&[[[[1.0f32, 2.0]], [[-0.5, 1.5]]]], &Device::Cpu).unwrap();
        let code = Affine {
            scale: 0.5,
            zero_point: 10,
        };
        let mut copy = Sqnr::default();
        copy.add_activation(&values, &[12, 8, 14, 16], code, &[1.0, 2.0])
            .unwrap();
        assert_eq!(copy.decibels(), f64::INFINITY);
        let mut noisy = Sqnr::default();
        noisy
            .add_activation(&values, &[13, 8, 14, 16], code, &[1.0, 2.0])
            .unwrap();
        let expected = 10.0 * ((1.0 + 4.0 + 0.25 + 2.25) / 0.25f64).log10();
        assert!((noisy.decibels() - expected).abs() < 1e-12);
        assert!(noisy.add_activation(&values, &[0; 3], code, &[]).is_err());

        let mut tenth = Sqnr::default();
        (1..100).for_each(|i| tenth.add(f64::from(i), 0.9 * f64::from(i)));
        assert!((tenth.decibels() - 20.0).abs() < 1e-9);
    }
}
