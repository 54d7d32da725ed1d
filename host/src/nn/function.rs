//! Activation functions that are no clamp: the int8 graph has them as tables of 256 bytes.
//!
//! Howard et al. 2019, *Searching for MobileNetV3* (arXiv:1905.02244), section 5.2.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::cpu;

/// Values of one unit of parallel work, at least.
const TASK_LEN: usize = 64 * 1024;

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `min(max(x / 6 + 1/2, 0), 1)`.
    HardSigmoid,
    /// `x * hard_sigmoid(x)`.
    HardSwish,
}

impl Function {
    /// The function at `x`.
    #[must_use]
    pub fn of(self, x: f32) -> f32 {
        let sigmoid = ((x + 3.0) / 6.0).clamp(0.0, 1.0);
        match self {
            Function::HardSigmoid => sigmoid,
            Function::HardSwish => x * sigmoid,
        }
    }

    /// Below the first and above the second value the result is what it is there: what lies beyond need not be told apart.
    #[must_use]
    pub fn bounds(self) -> (f32, f32) {
        match self {
            Function::HardSigmoid => (-3.0, 3.0),
            Function::HardSwish => (-3.0, f32::INFINITY),
        }
    }

    /// The function of each value.
    pub(super) fn forward(self, input: &Tensor) -> Result<Tensor> {
        input.apply_op1_no_bwd(&self).context("activation function")
    }
}

impl CustomOp1 for Function {
    fn name(&self) -> &'static str {
        "function"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = cpu::contiguous(input, layout)?
            .par_iter()
            .with_min_len(TASK_LEN)
            .map(|&x| self.of(x))
            .collect();
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn functions_are_flat_beyond_their_bounds() {
        let input = Tensor::new(&[-9.0_f32, -3.0, 0.0, 1.5, 3.0, 9.0], &Device::Cpu).unwrap();
        let of = |function: Function| {
            let values = function.forward(&input).unwrap();
            values.to_vec1::<f32>().unwrap()
        };
        assert_eq!(of(Function::HardSigmoid), [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(of(Function::HardSwish), [0.0, 0.0, 0.0, 1.125, 3.0, 9.0]);
    }
}
