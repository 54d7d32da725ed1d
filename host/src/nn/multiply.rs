//! Channel-wise product: each plane times one value.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::cpu;

/// `[n, c, height, width]` times `[n, c, 1, 1]`.
pub(super) fn multiply_channels(image: &Tensor, factors: &Tensor) -> Result<Tensor> {
    image
        .apply_op2_no_bwd(factors, &MultiplyChannels)
        .context("multiplying the channels of an activation")
}

struct MultiplyChannels;

impl CustomOp2 for MultiplyChannels {
    fn name(&self) -> &'static str {
        "multiply-channels"
    }

    fn cpu_fwd(
        &self,
        image: &CpuStorage,
        image_layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (images, channels, height, width) = image_layout.shape().dims4()?;
        if factors_layout.dims() != [images, channels, 1, 1] {
            bail!(
                "factors {:?} for an image {:?}",
                factors_layout.dims(),
                image_layout.dims()
            );
        }
        let mut products = cpu::contiguous(image, image_layout)?.to_vec();
        let factors = cpu::contiguous(factors, factors_layout)?;
        products
            .par_chunks_exact_mut((height * width).max(1))
            .zip(factors)
            .for_each(|(plane, factor)| plane.iter_mut().for_each(|value| *value *= factor));
        Ok((CpuStorage::F32(products), image_layout.shape().clone()))
    }
}
