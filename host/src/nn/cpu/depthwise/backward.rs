//! Backward pass: the gradients by the input and by the weight in one visit of each plane.
//!
//! The output gradient of a strip is written once to rows with zeros around. Shifted by a tap, it is multiplied by the tap
//! for the gradient by the input, and by the input for the gradient by the tap. With a stride of 2 the input's phases
//! (row and column modulo 2) do so in turn, each with the taps that meet it.

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::gate::{self, GradientPart};
use super::super::training::{InputGradient, OutputGradient, Stored};
use super::super::{Geometry, channels};
use super::strip::{Place, Strip, gather_row, load, spread_row};

/// Rows of a phase that are computed at once.
const ROWS: usize = 4;

/// Weight and its gradient `[channels, 1, k, k]`, input `[n, channels, h, w]`, output gradient `[n, channels, h', w']`.
///
/// # Errors
/// Kernels other than 3, 5, 7, strides other than 1, 2, an empty batch, and lengths that do not fit the geometry.
pub(in crate::nn) fn backward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<InputGradient<'_>>,
) -> Result<()> {
    super::check(geometry, &input, weight, output_gradient.gradient.len())?;
    let channels = geometry.input_channels;
    let per_channel = [
        output_gradient.by_gradient,
        output_gradient.by_value,
        output_gradient.constant,
    ];
    if output_gradient.values.len() != output_gradient.gradient.len()
        || per_channel.iter().any(|values| values.len() != channels)
    {
        bail!("a depthwise convolution's output gradient does not fit its output");
    }
    if weight_gradient
        .as_ref()
        .is_some_and(|gradient| gradient.len() != weight.len())
    {
        bail!("a depthwise convolution's weight gradient does not fit its weight");
    }
    if let Some(gradient) = &input_gradient {
        gate::check(gradient, input.values.len(), channels)?;
    }
    let run = match (geometry.kernel.height, geometry.stride) {
        (3, 1) => run::<3, 1>,
        (3, 2) => run::<3, 2>,
        (5, 1) => run::<5, 1>,
        (5, 2) => run::<5, 2>,
        (7, 1) => run::<7, 1>,
        (7, 2) => run::<7, 2>,
        (kernel, stride) => return super::unknown(kernel, stride),
    };
    run(
        geometry,
        input,
        weight,
        output_gradient,
        weight_gradient,
        input_gradient,
    );
    Ok(())
}

fn run<const KERNEL: usize, const STRIDE: usize>(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<InputGradient<'_>>,
) {
    let taps = (KERNEL - 1) / STRIDE + 1;
    let per_task = channels::per_task(geometry.input_channels);
    let strip = Strip::new(geometry, KERNEL, taps);
    let input_rows = (geometry.padding.top + geometry.input.height).div_ceil(STRIDE);
    let rows = input_rows.max(geometry.output.height) + taps - 1;

    let mut tasks: Vec<Task<'_, KERNEL, STRIDE>> = (0..geometry.input_channels)
        .step_by(per_task)
        .map(|first_channel| Task {
            geometry,
            input,
            weight,
            output_gradient,
            strip,
            channels: first_channel..(first_channel + per_task).min(geometry.input_channels),
            weight_gradient: None,
            input_gradient: None,
        })
        .collect();
    if let Some(gradient) = weight_gradient {
        let parts = gradient.chunks_mut(per_task * KERNEL * KERNEL);
        for (task, part) in tasks.iter_mut().zip(parts) {
            task.weight_gradient = Some(part);
        }
    }
    if let Some(gradient) = input_gradient {
        let parts = gate::split(gradient, geometry.input_channels, geometry.input.area());
        for (task, part) in tasks.iter_mut().zip(parts) {
            task.input_gradient = Some(part);
        }
    }
    tasks.into_par_iter().for_each_init(
        || Scratch {
            output_gradient: vec![0.0; rows * strip.width],
            values: vec![0.0; STRIDE * STRIDE * ROWS * strip.width],
            input_gradient: vec![0.0; STRIDE * STRIDE * ROWS * strip.width],
            input_row: vec![0.0; geometry.input.width + 2],
            gradient_row: vec![0.0; geometry.input.width + 2],
        },
        |scratch, task| Arch::new().dispatch(TaskWithScratch { task, scratch }),
    );
}

/// Buffers of one thread. What lies between and around planes stays zero in what is read.
struct Scratch {
    /// `[rows, width]`, each plane with zeros around.
    output_gradient: Vec<f32>,
    /// `[phases, ROWS, width]`: the input as read.
    values: Vec<f32>,
    /// `[phases, ROWS, width]`.
    input_gradient: Vec<f32>,
    /// A row of the input, with zeros around.
    input_row: Vec<f32>,
    /// A row of the input's gradient.
    gradient_row: Vec<f32>,
}

/// Some channels of every image.
struct Task<'a, const KERNEL: usize, const STRIDE: usize> {
    geometry: &'a Geometry,
    input: Stored<'a>,
    weight: &'a [f32],
    output_gradient: OutputGradient<'a>,
    strip: Strip,
    channels: std::ops::Range<usize>,
    weight_gradient: Option<&'a mut [f32]>,
    input_gradient: Option<GradientPart<'a>>,
}

struct TaskWithScratch<'a, 'b, const KERNEL: usize, const STRIDE: usize> {
    task: Task<'a, KERNEL, STRIDE>,
    scratch: &'b mut Scratch,
}

/// A vector for each tap of each phase, `[phase][row][column]`; with a stride of 2, a kernel's half of them is used.
type Taps<S, const KERNEL: usize> = [[[<S as Simd>::f32s; KERNEL]; KERNEL]; 4];

/// Phase, row and column of a kernel's tap in [`Taps`]: the output gradient is read backwards.
#[inline(always)]
fn place_of_tap<const KERNEL: usize, const STRIDE: usize>(tap: usize) -> [usize; 3] {
    let (y, x) = (tap / KERNEL, tap % KERNEL);
    let last = (KERNEL - 1) / STRIDE;
    [
        y % STRIDE * STRIDE + x % STRIDE,
        last - y / STRIDE,
        last - x / STRIDE,
    ]
}

impl<const KERNEL: usize, const STRIDE: usize> WithSimd
    for TaskWithScratch<'_, '_, KERNEL, STRIDE>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TaskWithScratch { mut task, scratch } = self;
        for (index, channel) in task.channels.clone().enumerate() {
            let weight = &task.weight[channel * KERNEL * KERNEL..][..KERNEL * KERNEL];
            let mut weights: Taps<S, KERNEL> = [[[simd.splat_f32s(0.0); KERNEL]; KERNEL]; 4];
            for (tap, &weight) in weight.iter().enumerate() {
                let [phase, row, column] = place_of_tap::<KERNEL, STRIDE>(tap);
                weights[phase][row][column] = simd.splat_f32s(weight);
            }
            let mut totals = [[0.0_f64; KERNEL]; KERNEL];
            for first_image in (0..task.geometry.images).step_by(task.strip.images) {
                let sums = task.strip(simd, scratch, &weights, index, first_image);
                for (tap, total) in totals.as_flattened_mut().iter_mut().enumerate() {
                    let [phase, row, column] = place_of_tap::<KERNEL, STRIDE>(tap);
                    *total += f64::from(simd.reduce_sum_f32s(sums[phase][row][column]));
                }
            }
            if let Some(gradient) = &mut task.weight_gradient {
                let gradient = &mut gradient[index * KERNEL * KERNEL..];
                for (gradient, &total) in gradient.iter_mut().zip(totals.as_flattened()) {
                    *gradient = total as f32;
                }
            }
        }
    }
}

impl<const KERNEL: usize, const STRIDE: usize> Task<'_, KERNEL, STRIDE> {
    /// Channel `index` of the task in the images from `first_image`; returns the gradient by each tap, a part per lane.
    #[inline(always)]
    fn strip<S: Simd>(
        &mut self,
        simd: S,
        scratch: &mut Scratch,
        weights: &Taps<S, KERNEL>,
        index: usize,
        first_image: usize,
    ) -> Taps<S, KERNEL> {
        let Geometry {
            input,
            output,
            padding,
            ..
        } = *self.geometry;
        let channel = self.channels.start + index;
        let images = self.strip.images.min(self.geometry.images - first_image);
        if images < self.strip.images {
            scratch.output_gradient.fill(0.0);
            scratch.values.fill(0.0);
        }
        let mut tap_sums: Taps<S, KERNEL> = [[[simd.splat_f32s(0.0); KERNEL]; KERNEL]; 4];
        let mut gate = self
            .input_gradient
            .as_ref()
            .map(|part| part.gate(simd, &self.input, channel));
        let mut gradient_rows = 0;
        let mut first = padding.top / STRIDE;
        let end = (padding.top + input.height).div_ceil(STRIDE);
        while first < end {
            let rows = if end - first < ROWS { 1 } else { ROWS };
            while gradient_rows < (first + rows).min(output.height) {
                self.read_gradient_row(simd, scratch, channel, first_image, images, gradient_rows);
                gradient_rows += 1;
            }
            for line in first * STRIDE..(first + rows) * STRIDE {
                self.read_input_row(simd, scratch, channel, first_image, images, first, line);
            }
            let columns = images * self.strip.pitch;
            for phase in 0..STRIDE * STRIDE {
                let (weights, sums) = (&weights[phase], &mut tap_sums[phase]);
                if rows == ROWS {
                    self.visit::<S, ROWS>(simd, scratch, weights, phase, first, columns, sums);
                } else {
                    self.visit::<S, 1>(simd, scratch, weights, phase, first, columns, sums);
                }
            }
            if let (Some(part), Some(gate)) = (&mut self.input_gradient, &mut gate) {
                for line in first * STRIDE..(first + rows) * STRIDE {
                    let Some(y) = line.checked_sub(padding.top).filter(|&y| y < input.height)
                    else {
                        continue;
                    };
                    for image in 0..images {
                        let place = Place {
                            first: (line % STRIDE * STRIDE * ROWS + line / STRIDE - first)
                                * self.strip.width
                                + image * self.strip.pitch,
                            phase_len: ROWS * self.strip.width,
                            left: padding.left,
                        };
                        let Scratch {
                            input_gradient,
                            gradient_row,
                            ..
                        } = &mut *scratch;
                        let row =
                            gather_row::<STRIDE>(input.width, input_gradient, place, gradient_row);
                        let plane = (first_image + image) * self.geometry.input_channels + channel;
                        let values = &self.input.values[plane * input.area() + y * input.width..]
                            [..input.width];
                        let output = &mut part.planes[first_image + image]
                            [index * input.area() + y * input.width..][..input.width];
                        gate.pass(row, values, output);
                    }
                }
            }
            first += rows;
        }
        if let (Some(part), Some(gate)) = (&mut self.input_gradient, gate) {
            part.close(index, gate);
        }
        tap_sums
    }

    /// Writes row `y` of the output gradient to its place between the zeros.
    #[inline(always)]
    fn read_gradient_row<S: Simd>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        channel: usize,
        first_image: usize,
        images: usize,
        y: usize,
    ) {
        let output = self.geometry.output;
        let reach = (KERNEL - 1) / STRIDE;
        let by_gradient = simd.splat_f32s(self.output_gradient.by_gradient[channel]);
        let by_value = simd.splat_f32s(self.output_gradient.by_value[channel]);
        let constant = simd.splat_f32s(self.output_gradient.constant[channel]);
        let apply = |gradient, value| {
            simd.mul_add_f32s(
                gradient,
                by_gradient,
                simd.mul_add_f32s(value, by_value, constant),
            )
        };
        for image in 0..images {
            let plane = (first_image + image) * self.geometry.input_channels + channel;
            let start = plane * output.area() + y * output.width;
            let (gradients, gradient_rest) =
                S::as_simd_f32s(&self.output_gradient.gradient[start..][..output.width]);
            let (values, value_rest) =
                S::as_simd_f32s(&self.output_gradient.values[start..][..output.width]);
            let place = (y + reach) * self.strip.width + image * self.strip.pitch + reach;
            let (results, result_rest) =
                S::as_mut_simd_f32s(&mut scratch.output_gradient[place..][..output.width]);
            for ((result, &gradient), &value) in results.iter_mut().zip(gradients).zip(values) {
                *result = apply(gradient, value);
            }
            if !result_rest.is_empty() {
                let gradient = simd.partial_load_f32s(gradient_rest);
                let value = simd.partial_load_f32s(value_rest);
                simd.partial_store_f32s(result_rest, apply(gradient, value));
            }
        }
    }

    /// Writes row `line` of the padded input, as read, to the phases, which begin with row `first`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn read_input_row<S: Simd>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        channel: usize,
        first_image: usize,
        images: usize,
        first: usize,
        line: usize,
    ) {
        let Geometry { input, padding, .. } = *self.geometry;
        let phase_len = ROWS * self.strip.width;
        let start = line % STRIDE * STRIDE * phase_len + (line / STRIDE - first) * self.strip.width;
        let Some(y) = line.checked_sub(padding.top).filter(|&y| y < input.height) else {
            for phase in 0..STRIDE {
                scratch.values[start + phase * phase_len..][..self.strip.width].fill(0.0);
            }
            return;
        };
        let read = gate::read(simd, &self.input, channel);
        for image in 0..images {
            let plane = (first_image + image) * self.geometry.input_channels + channel;
            let row = &self.input.values[plane * input.area() + y * input.width..][..input.width];
            let place = Place {
                first: start + image * self.strip.pitch,
                phase_len,
                left: padding.left,
            };
            let Scratch {
                values, input_row, ..
            } = &mut *scratch;
            spread_row::<S, STRIDE>(read, row, values, place, input_row);
        }
    }

    /// `TILE` rows of a phase from row `first`: the gradient by the input, and what they add to the gradient by each tap.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn visit<S: Simd, const TILE: usize>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        weights: &[[S::f32s; KERNEL]; KERNEL],
        phase: usize,
        first: usize,
        columns: usize,
        tap_sums: &mut [[S::f32s; KERNEL]; KERNEL],
    ) {
        let taps = (KERNEL - 1) / STRIDE + 1;
        let width = self.strip.width;
        let zero = simd.splat_f32s(0.0);
        let gradients = &scratch.output_gradient[first * width..];
        let values = &scratch.values[phase * ROWS * width..][..ROWS * width];
        let results = &mut scratch.input_gradient[phase * ROWS * width..][..ROWS * width];
        let mut sums = *tap_sums;
        for column in (0..columns).step_by(S::F32_LANES) {
            let mut inputs = [zero; TILE];
            for (row, input) in inputs.iter_mut().enumerate() {
                *input = load::<S>(&values[row * width + column..]);
            }
            let mut totals = [zero; TILE];
            for line in 0..TILE + taps - 1 {
                for tap_x in 0..taps {
                    let gradient = load::<S>(&gradients[line * width + column + tap_x..]);
                    for row in 0..TILE {
                        if line >= row && line - row < taps {
                            let tap_y = line - row;
                            totals[row] =
                                simd.mul_add_f32s(weights[tap_y][tap_x], gradient, totals[row]);
                            sums[tap_y][tap_x] =
                                simd.mul_add_f32s(inputs[row], gradient, sums[tap_y][tap_x]);
                        }
                    }
                }
            }
            for row in 0..TILE {
                let (vector, _) =
                    S::as_mut_simd_f32s(&mut results[row * width + column..][..S::F32_LANES]);
                vector[0] = totals[row];
            }
        }
        *tap_sums = sums;
    }
}
