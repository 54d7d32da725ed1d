//! Pools: the mean of a plane, and the mean or the largest value of each window.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::{Padding, cpu};

/// Mean over height and width: `[n, c, height, width]` to `[n, c]`.
pub(super) fn global_average(input: &Tensor) -> Result<Tensor> {
    input
        .flatten_from(2)
        .and_then(|planes| planes.mean(2))
        .context("global average pooling wants [n, c, height, width]")
}

/// A square window that slides over each plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What is kept of a window.
    pub kind: PoolKind,
    /// Height and width of the window, in pixels.
    pub kernel: usize,
    /// Step in both directions, in pixels.
    pub stride: usize,
    /// Positions around the input, fewer than the kernel on each side.
    pub padding: Padding,
}

/// What is kept of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value; padding never is.
    Max,
    /// The mean; padding counts as zeros (PyTorch's `count_include_pad`).
    Average,
}

impl Pool {
    /// `[n, c, height, width]` to `[n, c, height', width']`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input
            .apply_op1_no_bwd(self)
            .with_context(|| format!("pooling {:?}", input.dims()))
    }

    /// The window's value at the row and column of `plane`, counted with padding, where it begins.
    fn window(&self, plane: &[f32], width: usize, top: usize, left: usize) -> f32 {
        let Padding {
            top: above,
            left: before,
            ..
        } = self.padding;
        let from_column = left.saturating_sub(before);
        let to_column = (left + self.kernel).saturating_sub(before).min(width);
        let rows = plane
            .chunks_exact(width)
            .skip(top.saturating_sub(above))
            .take((top + self.kernel).saturating_sub(above.max(top)));
        let values = rows.flat_map(|row| row.get(from_column..to_column).unwrap_or_default());
        match self.kind {
            PoolKind::Max => {
                values.fold(
                    f32::NEG_INFINITY,
                    |most, &value| {
                        if value <= most { most } else { value }
                    },
                )
            }
            PoolKind::Average => values.sum::<f32>() / (self.kernel * self.kernel) as f32,
        }
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let Padding {
            top,
            left,
            bottom,
            right,
        } = self.padding;
        let most = [top, left, bottom, right].into_iter().max().unwrap_or(0);
        let span = |size: usize| Some(size.checked_sub(self.kernel)? / self.stride.max(1) + 1);
        let (Some(rows), Some(columns), true) = (
            span(height + top + bottom),
            span(width + left + right),
            most < self.kernel && self.stride > 0,
        ) else {
            bail!("{self:?} does not fit {:?}", layout.dims());
        };
        let input = cpu::contiguous(input, layout)?;
        let mut output = vec![0.0; images * channels * rows * columns];
        output
            .par_chunks_exact_mut(rows * columns)
            .zip(input.par_chunks_exact(height * width))
            .for_each(|(output, plane)| {
                for (row, line) in output.chunks_exact_mut(columns).enumerate() {
                    for (column, value) in line.iter_mut().enumerate() {
                        *value = self.window(plane, width, row * self.stride, column * self.stride);
                    }
                }
            });
        Ok((
            CpuStorage::F32(output),
            (images, channels, rows, columns).into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::{largest_difference, pseudo_random};

    /// The same by candle's own operators, which know no padding: windows over zeros, and a maximum shifted above them.
    fn native(pool: &Pool, input: &Tensor) -> candle_core::Result<Tensor> {
        let Padding {
            top,
            left,
            bottom,
            right,
        } = pool.padding;
        let padded = |tensor: &Tensor| {
            tensor
                .pad_with_zeros(2, top, bottom)?
                .pad_with_zeros(3, left, right)
        };
        match pool.kind {
            PoolKind::Max => {
                padded(&(input + 100.0)?)?.max_pool2d_with_stride(pool.kernel, pool.stride)? - 100.0
            }
            PoolKind::Average => padded(input)?.avg_pool2d_with_stride(pool.kernel, pool.stride),
        }
    }

    #[test]
    fn windows_equal_candles_own() {
        for kind in [PoolKind::Max, PoolKind::Average] {
            for (kernel, stride, padding) in [
                (3, 2, Padding::symmetric(1)),
                (3, 2, Padding::default()),
                (3, 1, Padding::symmetric(1)),
                (2, 2, Padding::default()),
                (3, 2, Padding::same(8, 11, 3, 2)),
                (5, 3, Padding::symmetric(4)),
            ] {
                let pool = Pool {
                    kind,
                    kernel,
                    stride,
                    padding,
                };
                let input = pseudo_random(&[2, 3, 8, 11], 1);
                let difference = largest_difference(
                    &pool.forward(&input).unwrap(),
                    &native(&pool, &input).unwrap(),
                );
                assert!(difference < 2e-5, "{difference} at {pool:?}");
            }
        }
    }

    #[test]
    fn a_window_that_does_not_fit_is_an_error() {
        let input = pseudo_random(&[1, 1, 4, 4], 1);
        for (kernel, stride, padding) in [(5, 1, 0), (3, 0, 0), (2, 1, 2), (0, 1, 0)] {
            let pool = Pool {
                kind: PoolKind::Max,
                kernel,
                stride,
                padding: Padding::symmetric(padding),
            };
            assert!(pool.forward(&input).is_err(), "{pool:?}");
        }
    }
}
