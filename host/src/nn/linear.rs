//! The fully connected layer.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use graft_shared::error::{Context, Result};

use super::cpu::{self, Epilogue, matrix};

/// `y = x weightᵀ + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

impl Linear {
    /// `[n, in]` to `[n, out]`; a row's result does not depend on the other rows.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let affine = || -> candle_core::Result<Tensor> {
            let ones = self.bias.ones_like()?;
            Tensor::stack(&[&ones, &self.bias], 0)
        };
        affine()
            .and_then(|affine| input.apply_op3_no_bwd(&self.weight, &affine, &LinearOp))
            .context("linear layer")
    }
}

/// Input `[n, in]`, weight `[out, in]`, and `[2, out]` with scale and shift.
struct LinearOp;

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (images, depth) = input_layout.shape().dims2()?;
        let (outputs, weight_depth) = weight_layout.shape().dims2()?;
        if depth != weight_depth || affine_layout.dims() != [2, outputs] {
            candle_core::bail!(
                "input {:?}, weight {:?} and bias do not fit",
                input_layout.dims(),
                weight_layout.dims()
            );
        }
        let input = cpu::contiguous(input, input_layout)?;
        let epilogue = Epilogue::new(
            cpu::contiguous(affine, affine_layout)?,
            super::Activation::None,
        );
        let weight =
            matrix::PackedWeight::new(cpu::contiguous(weight, weight_layout)?, outputs, depth);
        let mut by_output = vec![0.0; outputs * images];
        weight.multiply(
            &matrix::Transposed { data: input, depth },
            images,
            &epilogue,
            0,
            &mut by_output,
        );
        let mut output = vec![0.0; images * outputs];
        for (index, row) in by_output.chunks_exact(images.max(1)).enumerate() {
            for (image, &value) in row.iter().enumerate() {
                output[image * outputs + index] = value;
            }
        }
        Ok((CpuStorage::F32(output), (images, outputs).into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::{largest_difference, pseudo_random};

    #[test]
    fn equals_candles_own_and_rows_are_independent() {
        let linear = Linear {
            weight: pseudo_random(&[37, 50], 1),
            bias: pseudo_random(&[37], 2),
        };
        let input = pseudo_random(&[9, 50], 3);
        let ours = linear.forward(&input).unwrap();
        let native = input
            .matmul(&linear.weight.t().unwrap())
            .unwrap()
            .broadcast_add(&linear.bias)
            .unwrap();
        assert!(largest_difference(&ours, &native) < 1e-5);
        let alone = linear.forward(&input.narrow(0, 4, 1).unwrap()).unwrap();
        assert_eq!(
            largest_difference(&alone, &ours.narrow(0, 4, 1).unwrap()),
            0.0
        );
        assert!(linear.forward(&pseudo_random(&[9, 51], 4)).is_err());
    }
}
