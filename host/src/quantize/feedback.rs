//! Rounds each weight with regard to the errors of the weights before it.
//!
//! LDLQ of Chee et al. 2023 (arXiv 2307.13304), section 3, which is what GPTQ (Frantar et al. 2022, arXiv 2210.17323) computes:
//! with the covariance of what the weights are multiplied by as U D Uᵀ, U unit upper triangular, the squared error of an
//! output is the sum over k of D_k (e_k + Σ_{i<k} e_i U_ik)², so that each weight is rounded after adding what the errors e_i
//! before it ask for. The covariance and not the second moment, since the biases take up any shift of the mean.

use candle_core::Tensor;
use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::Calibration;
use crate::nn::{Conv, Op};

/// Patches that are looked at in each image.
const PATCHES: usize = 8;
/// Weights of one output above which they are rounded one by one: the matrix would be too large.
const MOST_WEIGHTS: usize = 2048;
/// Share of the mean variance that every variance is raised by.
const DAMPING: f32 = 0.01;

/// Sums over patches of what the weights of one operator are multiplied by.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    /// Weights of one output.
    len: usize,
    patches: usize,
    /// `[groups, len]`.
    sums: Vec<f32>,
    /// `[groups, len, len]`, the lower triangles.
    products: Vec<f32>,
}

impl Moments {
    /// Of nothing yet; none for an operator without weights, or with too many.
    pub(super) fn new(op: &Op) -> Option<Self> {
        let (len, groups) = match op {
            Op::Conv(conv) => (
                conv.weight.elem_count() / conv.weight.dim(0).ok()?.max(1),
                conv.groups,
            ),
            Op::Linear(linear) => (linear.weight.dim(1).ok()?, 1),
            _ => return None,
        };
        (1..=MOST_WEIGHTS).contains(&len).then(|| Self {
            len,
            patches: 0,
            sums: vec![0.0; groups * len],
            products: vec![0.0; groups * len * len],
        })
    }

    /// Adds patches of the `input` of `op`, `[n, channels, height, width]` or `[n, channels]`.
    pub(super) fn add(&mut self, op: &Op, input: &Tensor) -> Result<()> {
        let values = input.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let values = values.context("reading an activation")?;
        let dims = input.dims();
        let images = dims.first().copied().unwrap_or(0);
        let plane = match dims {
            [_, channels, height, width] => [*channels, *height, *width],
            _ => [self.len, 1, 1],
        };
        let each = values.len() / images.max(1);
        let groups = self.sums.len() / self.len;
        let mut patches: Vec<Vec<f32>> = vec![Vec::new(); groups];
        let mut count = 0;
        for (image, values) in values.chunks_exact(each.max(1)).enumerate() {
            let before = self.patches + image * PATCHES;
            count += match op {
                Op::Conv(conv) => gather(conv, values, plane, before, &mut patches),
                _ => {
                    patches[0].extend(values);
                    1
                }
            };
        }
        self.patches += count;
        let len = self.len;
        for (sums, patches) in self.sums.chunks_exact_mut(len).zip(&patches) {
            for patch in patches.chunks_exact(len) {
                sums.iter_mut()
                    .zip(patch)
                    .for_each(|(sum, value)| *sum += value);
            }
        }
        let rows = self.products.par_chunks_exact_mut(len).enumerate();
        rows.for_each(|(row, products)| {
            let (group, index) = (row / len, row % len);
            for patch in patches[group].chunks_exact(len) {
                add_multiple(&mut products[..=index], patch[index], &patch[..=index]);
            }
        });
        Ok(())
    }
}

/// Puts evenly spread patches of an image behind the `patches` of each group; returns how many.
fn gather(
    conv: &Conv,
    values: &[f32],
    [channels, height, width]: [usize; 3],
    before: usize,
    patches: &mut [Vec<f32>],
) -> usize {
    let Ok((_, inputs, rows, columns)) = conv.weight.dims4() else {
        return 0;
    };
    let padding = conv.padding;
    let along = |size: usize, kernel: usize| (size.saturating_sub(kernel)) / conv.stride.max(1) + 1;
    let across = along(width + padding.left + padding.right, columns);
    let positions = along(height + padding.top + padding.bottom, rows) * across;
    let count = PATCHES.min(positions);
    for number in 0..count {
        // Other places in each image.
        let position = (number * positions / count + before * 31) % positions;
        let (top, left) = (
            position / across * conv.stride,
            position % across * conv.stride,
        );
        for channel in 0..channels {
            let patch = &mut patches[channel / inputs];
            for (row, column) in
                (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)))
            {
                let y = (top + row).checked_sub(padding.top).filter(|y| *y < height);
                let x = (left + column)
                    .checked_sub(padding.left)
                    .filter(|x| *x < width);
                let value = y
                    .zip(x)
                    .map(|(y, x)| values[(channel * height + y) * width + x]);
                patch.push(value.unwrap_or(0.0));
            }
        }
    }
    count
}

fn add_multiple(to: &mut [f32], factor: f32, of: &[f32]) {
    if factor != 0.0 {
        to.iter_mut()
            .zip(of)
            .for_each(|(to, of)| *to += factor * of);
    }
}

/// For each node what its weights' errors ask of the weights behind them.
#[derive(Debug)]
pub struct Feedback {
    nodes: Vec<Option<Triangle>>,
}

/// The matrices U of one operator, `[groups, len, len]`, their upper triangles.
#[derive(Debug)]
pub(super) struct Triangle {
    len: usize,
    values: Vec<f32>,
}

impl Feedback {
    /// Of a network that was calibrated, its channels multiplied by `factors` since; `inputs(node)` is what a node reads
    /// first.
    #[must_use]
    pub fn new(
        calibration: &Calibration,
        factors: &[Vec<f32>],
        inputs: &dyn Fn(usize) -> usize,
    ) -> Self {
        let nodes = calibration.moments.iter().enumerate();
        Self {
            nodes: nodes
                .map(|(node, moments)| {
                    Some(Triangle::new(moments.as_ref()?, &factors[inputs(node)]))
                })
                .collect(),
        }
    }

    pub(super) fn of(&self, node: usize) -> Option<&Triangle> {
        self.nodes.get(node)?.as_ref()
    }
}

impl Triangle {
    fn new(moments: &Moments, factors: &[f32]) -> Self {
        let len = moments.len;
        let groups = moments.sums.len() / len;
        let patches = moments.patches.max(1) as f32;
        // Values of a patch that belong to one channel.
        let window = (groups * len / factors.len().max(1)).max(1);
        let mut values = moments.products.clone();
        let of_groups = values.par_chunks_exact_mut(len * len).enumerate();
        of_groups.for_each(|(group, matrix)| {
            let sums = &moments.sums[group * len..][..len];
            let factor = |i: usize| {
                factors
                    .get((group * len + i) / window)
                    .copied()
                    .unwrap_or(1.0)
            };
            for i in 0..len {
                for j in 0..=i {
                    let product = matrix[i * len + j] / patches;
                    let covariance = product - sums[i] / patches * (sums[j] / patches);
                    matrix[i * len + j] = covariance * factor(i) * factor(j);
                }
            }
            factorise(matrix, len);
        });
        Self { len, values }
    }

    /// The integers of `weights`, which are those of one output in `group`, in steps of `scale`, in [-`most`, `most`].
    pub(super) fn round(&self, weights: &[f32], group: usize, scale: f64, most: f64) -> Vec<i8> {
        let matrix = &self.values[group * self.len * self.len..][..self.len * self.len];
        let mut asked = vec![0.0f32; weights.len()];
        let mut rounded = Vec::with_capacity(weights.len());
        for (k, (&weight, row)) in weights
            .iter()
            .zip(matrix.chunks_exact(self.len))
            .enumerate()
        {
            let wanted = f64::from(weight + asked[k]) / scale;
            let integer = wanted.round_ties_even().clamp(-most, most);
            let error = f64::from(weight) - integer * scale;
            add_multiple(&mut asked[k + 1..], error as f32, &row[k + 1..]);
            rounded.push(integer as i8);
        }
        rounded
    }
}

/// Replaces the lower triangle of a covariance by U of its U D Uᵀ in the upper one.
fn factorise(matrix: &mut [f32], len: usize) {
    let mean = (0..len).map(|i| matrix[i * len + i]).sum::<f32>() / len as f32;
    let least = (DAMPING * mean).max(1e-12);
    (0..len).for_each(|i| matrix[i * len + i] = matrix[i * len + i].max(0.0) + least);
    for j in (0..len).rev() {
        let (before, row) = matrix.split_at_mut(j * len);
        let (column, pivot) = (&row[..j], row[j].max(least));
        let rows = before
            .par_chunks_exact_mut(len)
            .enumerate()
            .with_min_len(64);
        rows.for_each(|(i, row)| {
            let share = column[i] / pivot;
            add_multiple(&mut row[..=i], -share, &column[..=i]);
            row[j] = share;
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::testing::pseudo_random;
    use crate::nn::{Activation, Padding};

    /// Inputs that go together, as those behind a network's convolutions do.
    fn correlated() -> Tensor {
        let own = pseudo_random(&[64, 12, 3, 3], 1);
        let shared = pseudo_random(&[64, 1, 1, 1], 2);
        own.broadcast_add(&(shared * 3.0).unwrap()).unwrap()
    }

    fn conv(groups: usize, kernel: usize) -> Conv {
        Conv {
            weight: pseudo_random(&[12, 12 / groups, kernel, kernel], 3),
            bias: Some(pseudo_random(&[12], 4)),
            batch_norm: None,
            stride: 1,
            padding: Padding::symmetric(kernel / 2),
            groups,
            activation: Activation::None,
        }
    }

    #[test]
    fn outputs_vary_less_from_what_they_were() {
        for (groups, kernel) in [(1, 1), (12, 3)] {
            let (conv, input) = (conv(groups, kernel), correlated());
            let op = Op::Conv(conv.clone());
            let mut moments = Moments::new(&op).unwrap();
            moments.add(&op, &input).unwrap();
            let triangle = Triangle::new(&moments, &[]);
            let (scale, len) = (0.125, triangle.len);
            let flat: Vec<f32> = conv.weight.flatten_all().unwrap().to_vec1().unwrap();
            let varies = |round: &dyn Fn(usize, &[f32]) -> Vec<i8>| {
                let rounded: Vec<f32> = flat
                    .chunks_exact(len)
                    .enumerate()
                    .flat_map(|(channel, row)| round(channel, row))
                    .map(|integer| f32::from(integer) * scale as f32)
                    .collect();
                let weight =
                    Tensor::from_vec(rounded, conv.weight.shape(), &candle_core::Device::Cpu);
                let error = (&weight.unwrap() - &conv.weight).unwrap();
                let error = Conv {
                    weight: error,
                    bias: None,
                    ..conv.clone()
                };
                let error = error.forward(&input).unwrap();
                let mean = error.mean_keepdim((0, 2, 3)).unwrap();
                let centred = error.broadcast_sub(&mean).unwrap();
                centred
                    .sqr()
                    .unwrap()
                    .mean_all()
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
            };
            let nearest = varies(&|_, row| {
                row.iter()
                    .map(|w| (f64::from(*w) / scale).round_ties_even() as i8)
                    .collect()
            });
            let group = |channel: usize| if groups == 1 { 0 } else { channel };
            let fed_back =
                varies(&|channel, row| triangle.round(row, group(channel), scale, 127.0));
            assert!(
                fed_back < 0.7 * nearest,
                "{groups} groups: {fed_back}, {nearest}"
            );
        }
    }
}
