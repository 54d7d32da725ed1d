//! The residual connection: sum of two activations, and what follows it.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::{Activation, cpu};

/// Values of one unit of parallel work, at least.
const TASK_LEN: usize = 64 * 1024;

/// `activation(left + right)` of two tensors of one shape.
pub(super) fn add(left: &Tensor, right: &Tensor, activation: Activation) -> Result<Tensor> {
    left.apply_op2_no_bwd(right, &Add(activation))
        .context("adding two activations")
}

/// Candle's own sum goes through a second pool of threads beside rayon's.
struct Add(Activation);

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
        let (low, high) = self.0.bounds();
        let sums = left
            .par_iter()
            .with_min_len(TASK_LEN)
            .zip(right)
            .map(|(left, right)| (left + right).clamp(low, high))
            .collect();
        Ok((CpuStorage::F32(sums), shape.clone()))
    }
}
