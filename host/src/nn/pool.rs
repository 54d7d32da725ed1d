//! Global average pooling.

use candle_core::Tensor;
use graft_shared::error::{Context, Result};

/// Mean over height and width: `[n, c, height, width]` to `[n, c]`.
pub(super) fn global_average(input: &Tensor) -> Result<Tensor> {
    input
        .flatten_from(2)
        .and_then(|planes| planes.mean(2))
        .context("global average pooling wants [n, c, height, width]")
}
