//! The residual connection: sum of two activations.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::cpu;

/// Values of one unit of parallel work, at least.
const TASK_LEN: usize = 64 * 1024;

/// Sum of two tensors of one shape.
pub(super) fn add(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    left.apply_op2_no_bwd(right, &Add)
        .context("adding two activations")
}

/// Candle's own sum goes through a second pool of threads beside rayon's.
struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = left_layout.shape();
        if shape != right_layout.shape() {
            bail!("{shape:?} and {:?} differ", right_layout.shape());
        }
        let left = cpu::contiguous(left, left_layout)?;
        let right = cpu::contiguous(right, right_layout)?;
        let sums = left
            .par_iter()
            .with_min_len(TASK_LEN)
            .zip(right)
            .map(|(left, right)| left + right)
            .collect();
        Ok((CpuStorage::F32(sums), shape.clone()))
    }
}
