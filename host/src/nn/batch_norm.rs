//! BatchNorm with the statistics of training: a scale and a shift per channel.

use candle_core::Tensor;
use graft_shared::error::{Context, Result};

/// Batch normalisation of a convolution's output (Ioffe and Szegedy 2015, algorithm 2); every tensor is `[channels]`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Gamma.
    pub weight: Tensor,
    /// Beta.
    pub bias: Tensor,
    /// Running mean.
    pub mean: Tensor,
    /// Running variance.
    pub variance: Tensor,
    /// Added to the variance before the square root.
    pub epsilon: f64,
}

impl BatchNorm {
    /// Scale and shift per channel, so that the inference result is `x * scale + shift`.
    ///
    /// # Errors
    /// Tensors of different lengths.
    pub fn scale_and_shift(&self) -> Result<(Tensor, Tensor)> {
        let folded = || -> candle_core::Result<(Tensor, Tensor)> {
            let scale = (&self.weight / (&self.variance + self.epsilon)?.sqrt()?)?;
            let shift = (&self.bias - (&self.mean * &scale)?)?;
            Ok((scale, shift))
        };
        folded().context("BatchNorm's tensors must all be [channels]")
    }
}
