//! Forward pass of a training step: convolution and the sums for BatchNorm in one visit of each plane.

use std::ops::Range;

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::training::{Output, Stored, Sums};
use super::super::{Geometry, channels, gate, rows};
use super::strip::{Place, Stage, Strip, for_each_line, load, spread_row, store};

/// Rows of outputs that are summed at once.
const ROWS: usize = 4;
/// Input rows that they read, at most: a kernel of 7, a stride of 2.
const MOST_LINES: usize = 2 * (ROWS - 1) + 7;

/// Weight `[channels, 1, k, k]`, input `[n, channels, h, w]`, output `[n, channels, h', w']`.
///
/// # Errors
/// Kernels other than 3, 5, 7, strides other than 1, 2, an empty batch, and lengths that do not fit the geometry.
pub(in crate::nn) fn forward_training(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) -> Result<()> {
    super::check(geometry, &input, weight, output.values.len())?;
    if output.sums.len() != geometry.input_channels || output.pivot.len() != geometry.input_channels
    {
        bail!("sums and pivots of a depthwise convolution are one per channel");
    }
    match (geometry.kernel.height, geometry.stride) {
        (3, 1) => run::<3, 1>(geometry, input, weight, output),
        (3, 2) => run::<3, 2>(geometry, input, weight, output),
        (5, 1) => run::<5, 1>(geometry, input, weight, output),
        (5, 2) => run::<5, 2>(geometry, input, weight, output),
        (7, 1) => run::<7, 1>(geometry, input, weight, output),
        (7, 2) => run::<7, 2>(geometry, input, weight, output),
        (kernel, stride) => return super::unknown(kernel, stride),
    }
    Ok(())
}

fn run<const KERNEL: usize, const STRIDE: usize>(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) {
    let per_task = channels::per_task(geometry.input_channels);
    let strip = Strip::new(geometry, KERNEL, 0);
    let phase_len = (geometry.output.height + (KERNEL - 1) / STRIDE) * strip.width;
    let outputs = channels::split(
        output.values,
        geometry.input_channels,
        geometry.output.area(),
    );
    outputs
        .into_par_iter()
        .zip(output.sums.par_chunks_mut(per_task))
        .enumerate()
        .for_each_init(
            || Scratch {
                stage: Stage::new(
                    strip,
                    per_task,
                    geometry.input_channels,
                    geometry.input.area(),
                ),
                padded: vec![0.0; STRIDE * STRIDE * phase_len],
                tile: vec![0.0; ROWS * strip.width],
                inside: vec![0.0; strip.width],
                images: 0,
            },
            |scratch, (task, (outputs, sums))| {
                Arch::new().dispatch(Task::<KERNEL, STRIDE> {
                    geometry,
                    input,
                    weight,
                    pivot: output.pivot,
                    first_channel: task * per_task,
                    outputs,
                    sums,
                    strip,
                    phase_len,
                    scratch,
                });
            },
        );
}

/// Buffers of one thread. The padding of `padded` stays zero: only the inside is ever written.
struct Scratch {
    stage: Stage,
    /// `[phases, rows, width]`.
    padded: Vec<f32>,
    /// `[ROWS, width]`: outputs, a few columns too many between planes.
    tile: Vec<f32>,
    /// `[width]`: 1 in columns of planes, 0 between them.
    inside: Vec<f32>,
    /// Planes that `inside` is for.
    images: usize,
}

/// Some channels of every image.
struct Task<'a, const KERNEL: usize, const STRIDE: usize> {
    geometry: &'a Geometry,
    input: Stored<'a>,
    weight: &'a [f32],
    pivot: &'a [f32],
    first_channel: usize,
    outputs: Vec<&'a mut [f32]>,
    sums: &'a mut [Sums],
    strip: Strip,
    phase_len: usize,
    scratch: &'a mut Scratch,
}

impl<const KERNEL: usize, const STRIDE: usize> WithSimd for Task<'_, KERNEL, STRIDE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.sums.fill(Sums::default());
        let channels = self.first_channel..self.first_channel + self.sums.len();
        for first_image in (0..self.geometry.images).step_by(self.strip.images) {
            let images = first_image..self.geometry.images.min(first_image + self.strip.images);
            let stage = &mut self.scratch.stage;
            stage.set(self.input.values, images.clone(), channels.clone());
            for (index, channel) in channels.clone().enumerate() {
                let mut weights = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
                let taps = &self.weight[channel * KERNEL * KERNEL..][..KERNEL * KERNEL];
                for (splat, &tap) in weights.as_flattened_mut().iter_mut().zip(taps) {
                    *splat = simd.splat_f32s(tap);
                }
                let [first, second] = self.strip(simd, &weights, index, images.clone());
                self.sums[index].first += f64::from(simd.reduce_sum_f32s(first));
                self.sums[index].second += f64::from(simd.reduce_sum_f32s(second));
            }
        }
    }
}

impl<const KERNEL: usize, const STRIDE: usize> Task<'_, KERNEL, STRIDE> {
    /// Channel `index` of the task in some images; returns its two sums.
    #[inline(always)]
    fn strip<S: Simd>(
        &mut self,
        simd: S,
        weights: &[[S::f32s; KERNEL]; KERNEL],
        index: usize,
        images: Range<usize>,
    ) -> [S::f32s; 2] {
        let Geometry { input, output, .. } = *self.geometry;
        let channel = self.first_channel + index;
        let pivot = simd.splat_f32s(self.pivot[channel]);
        if self.scratch.images != images.len() {
            self.scratch.images = images.len();
            self.strip
                .mask(images.len(), 0, output.width, &mut self.scratch.inside);
        }
        let mut sums = [simd.splat_f32s(0.0); 2];
        let mut lines = 0;
        let mut first = 0;
        while first < output.height {
            let rows = ROWS.min(output.height - first);
            let end = (first + rows - 1) * STRIDE + KERNEL;
            let end = end
                .saturating_sub(self.geometry.padding.top)
                .min(input.height);
            while lines < end {
                self.spread_line(index, images.len(), lines);
                lines += 1;
            }
            let columns = (images.len() - 1) * self.strip.pitch + output.width;
            let pass = (first, columns, pivot);
            match rows {
                1 => self.convolve_rows::<S, 1>(simd, weights, pass, &mut sums),
                2 => self.convolve_rows::<S, 2>(simd, weights, pass, &mut sums),
                3 => self.convolve_rows::<S, 3>(simd, weights, pass, &mut sums),
                _ => self.convolve_rows::<S, ROWS>(simd, weights, pass, &mut sums),
            }
            for (image, output_image) in images.clone().enumerate() {
                let plane =
                    &mut self.outputs[output_image][index * output.area()..][..output.area()];
                let planes_rows = plane[first * output.width..].chunks_exact_mut(output.width);
                for (row, tile) in planes_rows
                    .zip(self.scratch.tile.chunks_exact(self.strip.width))
                    .take(rows)
                {
                    let tile = &tile[image * self.strip.pitch..][..output.width];
                    rows::map(tile, row, |value| value);
                }
            }
            first += rows;
        }
        sums
    }

    /// Copies row `y` of channel `index` of the stage's images to the padded phases.
    #[inline(always)]
    fn spread_line(&mut self, index: usize, images: usize, y: usize) {
        let Geometry { input, padding, .. } = *self.geometry;
        let read = gate::read_value(&self.input, self.first_channel + index);
        let line = y + padding.top;
        let first = line % STRIDE * STRIDE * self.phase_len + line / STRIDE * self.strip.width;
        let Scratch { stage, padded, .. } = &mut *self.scratch;
        for image in 0..images {
            let row =
                &stage.plane(self.input.values, image, index)[y * input.width..][..input.width];
            let place = Place {
                first: first + image * self.strip.pitch,
                phase_len: self.phase_len,
                left: padding.left,
            };
            spread_row::<STRIDE>(row, padded, place, read);
        }
    }

    /// Outputs of `TILE` rows from row `first`, in all columns of the strip, added to their two sums.
    #[inline(always)]
    fn convolve_rows<S: Simd, const TILE: usize>(
        &mut self,
        simd: S,
        weights: &[[S::f32s; KERNEL]; KERNEL],
        (first, columns, pivot): (usize, usize, S::f32s),
        sums: &mut [S::f32s; 2],
    ) {
        let width = self.strip.width;
        let Scratch {
            padded,
            tile,
            inside,
            ..
        } = &mut *self.scratch;
        let mut lines: [[&[f32]; STRIDE]; MOST_LINES] = [[&[]; STRIDE]; MOST_LINES];
        for (line, phases) in lines[..(TILE - 1) * STRIDE + KERNEL].iter_mut().enumerate() {
            for (phase, row) in phases.iter_mut().enumerate() {
                let phase = line % STRIDE * STRIDE + phase;
                *row = &padded[phase * self.phase_len + (first + line / STRIDE) * width..][..width];
            }
        }
        let [mut first_sum, mut second_sum] = *sums;
        for column in (0..columns).step_by(S::F32_LANES) {
            let mut totals = [simd.splat_f32s(0.0); TILE];
            for_each_line!(LINE, {
                if LINE < (TILE - 1) * STRIDE + KERNEL {
                    let windows =
                        lines[LINE].map(|row| &row[column..][..S::F32_LANES + KERNEL - 1]);
                    for tap_x in 0..KERNEL {
                        let value = load::<S>(&windows[tap_x % STRIDE][tap_x / STRIDE..]);
                        let first_row = (LINE + 1).saturating_sub(KERNEL).div_ceil(STRIDE);
                        for row in first_row..TILE.min(LINE / STRIDE + 1) {
                            let weight = weights[LINE - row * STRIDE][tap_x];
                            totals[row] = simd.mul_add_f32s(weight, value, totals[row]);
                        }
                    }
                }
            });
            let inside = load::<S>(&inside[column..]);
            for (row, &total) in totals.iter().enumerate() {
                store(simd, total, &mut tile[row * width + column..]);
                let difference = simd.mul_f32s(simd.sub_f32s(total, pivot), inside);
                first_sum = simd.add_f32s(first_sum, difference);
                second_sum = simd.mul_add_f32s(difference, difference, second_sum);
            }
        }
        *sums = [first_sum, second_sum];
    }
}
