//! Backward pass: the gradients by the input and by the weight in one visit of each plane.
//!
//! The output gradient of a strip is written once to rows with zeros around. Shifted by a tap, it is multiplied by the tap
//! for the gradient by the input, and by the input for the gradient by the tap. With a stride of 2 the input's phases
//! (row and column modulo 2) do so in turn, each with the taps that meet it.

use std::ops::Range;

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::gate::{self, Gate, GradientPart};
use super::super::training::{InputGradient, OutputGradient, Stored};
use super::super::{Geometry, channels, rows};
use super::strip::{Place, Stage, Strip, for_each_line, gather_row, load, spread_row, store};

/// Rows of a phase that are computed at once.
const ROWS: usize = 4;
/// Rows of the output gradient that they read, at most: a kernel of 7.
const MOST_LINES: usize = ROWS - 1 + 7;

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
            stages: [geometry.input, geometry.output, geometry.output]
                .map(|plane| Stage::new(strip, per_task, geometry.input_channels, plane.area())),
            output_gradient: vec![0.0; rows * strip.width],
            values: vec![0.0; STRIDE * ROWS * strip.width],
            input_gradient: vec![0.0; STRIDE * ROWS * strip.width],
            rows: [
                vec![0.0; geometry.input.width],
                vec![0.0; geometry.input.width],
            ],
            inside: [vec![0.0; strip.width], vec![0.0; strip.width]],
            images: 0,
        },
        |scratch, task| Arch::new().dispatch(TaskWithScratch { task, scratch }),
    );
}

/// Buffers of one thread.
struct Scratch {
    /// Of the input, of the gradient by the BatchNorm's output, of the output.
    stages: [Stage; 3],
    /// `[rows, width]`, each plane with zeros around.
    output_gradient: Vec<f32>,
    /// `[column phases, ROWS, width]`: the input as stored.
    values: Vec<f32>,
    /// `[column phases, ROWS, width]`.
    input_gradient: Vec<f32>,
    /// A row of the input's gradient, new and old.
    rows: [Vec<f32>; 2],
    /// `[width]` for each column phase: 1 in the columns of planes, 0 between them.
    inside: [Vec<f32>; 2],
    /// Planes that `inside` is for.
    images: usize,
}

/// Some channels of every image.
struct Task<'a, const KERNEL: usize, const STRIDE: usize> {
    geometry: &'a Geometry,
    input: Stored<'a>,
    weight: &'a [f32],
    output_gradient: OutputGradient<'a>,
    strip: Strip,
    channels: Range<usize>,
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
        let mut totals = vec![[[0.0_f64; KERNEL]; KERNEL]; task.channels.len()];
        for first_image in (0..task.geometry.images).step_by(task.strip.images) {
            let images = first_image..task.geometry.images.min(first_image + task.strip.images);
            let [input, gradient, output] = &mut scratch.stages;
            input.set(task.input.values, images.clone(), task.channels.clone());
            gradient.set(
                task.output_gradient.gradient,
                images.clone(),
                task.channels.clone(),
            );
            output.set(
                task.output_gradient.values,
                images.clone(),
                task.channels.clone(),
            );
            for (index, (channel, totals)) in task.channels.clone().zip(&mut totals).enumerate() {
                let weight = &task.weight[channel * KERNEL * KERNEL..][..KERNEL * KERNEL];
                let mut weights: Taps<S, KERNEL> = [[[simd.splat_f32s(0.0); KERNEL]; KERNEL]; 4];
                for (tap, &weight) in weight.iter().enumerate() {
                    let [phase, row, column] = place_of_tap::<KERNEL, STRIDE>(tap);
                    weights[phase][row][column] = simd.splat_f32s(weight);
                }
                let sums = task.strip(simd, scratch, &weights, index, images.clone());
                for (tap, total) in totals.as_flattened_mut().iter_mut().enumerate() {
                    let [phase, row, column] = place_of_tap::<KERNEL, STRIDE>(tap);
                    *total += f64::from(simd.reduce_sum_f32s(sums[phase][row][column]));
                }
            }
        }
        if let Some(gradient) = task.weight_gradient {
            let totals = totals.as_flattened().as_flattened();
            for (gradient, &total) in gradient.iter_mut().zip(totals) {
                *gradient = total as f32;
            }
        }
    }
}

impl<const KERNEL: usize, const STRIDE: usize> Task<'_, KERNEL, STRIDE> {
    /// Channel `index` of the task in some images; returns the gradient by each tap, a part per lane.
    #[inline(always)]
    fn strip<S: Simd>(
        &mut self,
        simd: S,
        scratch: &mut Scratch,
        weights: &Taps<S, KERNEL>,
        index: usize,
        images: Range<usize>,
    ) -> Taps<S, KERNEL> {
        let Geometry {
            input,
            output,
            padding,
            ..
        } = *self.geometry;
        let channel = self.channels.start + index;
        if scratch.images != images.len() {
            scratch.images = images.len();
            scratch.output_gradient.fill(0.0);
            for (phase, inside) in scratch.inside[..STRIDE].iter_mut().enumerate() {
                let first = of_phase::<STRIDE>(phase, padding.left);
                let end = of_phase::<STRIDE>(phase, padding.left + input.width);
                self.strip.mask(images.len(), first, end - first, inside);
            }
        }
        let mut tap_sums: Taps<S, KERNEL> = [[[simd.splat_f32s(0.0); KERNEL]; KERNEL]; 4];
        let mut gate = match &self.input_gradient {
            Some(part) => part.gate(simd, &self.input, channel),
            None => Gate::new(simd, &self.input, channel, 0.0),
        };
        let mut gradient_rows = 0;
        // From the first that is not in the padding.
        let mut next = [0, 1].map(|phase| of_phase::<STRIDE>(phase, padding.top));
        while next[0] < of_phase::<STRIDE>(0, padding.top + input.height)
            || next[STRIDE - 1] < of_phase::<STRIDE>(STRIDE - 1, padding.top + input.height)
        {
            for (row_phase, next) in next[..STRIDE].iter_mut().enumerate() {
                let first = *next;
                let left = of_phase::<STRIDE>(row_phase, padding.top + input.height) - first;
                let rows = if left < ROWS { left.min(1) } else { ROWS };
                while gradient_rows < (first + rows).min(output.height) {
                    self.read_gradient_row(scratch, index, images.len(), gradient_rows);
                    gradient_rows += 1;
                }
                let y = (first * STRIDE + row_phase).saturating_sub(padding.top);
                self.read_input_rows(scratch, index, images.len(), y, rows);
                let columns = images.len() * self.strip.pitch;
                for column_phase in 0..STRIDE {
                    let phase = row_phase * STRIDE + column_phase;
                    let visit = Visit {
                        width: self.strip.width,
                        columns,
                        column_phase,
                        gradients: &scratch.output_gradient[first * self.strip.width..],
                        values: &scratch.values,
                        inside: &scratch.inside[column_phase],
                        results: &mut scratch.input_gradient,
                    };
                    let (weights, sums) = (&weights[phase], &mut tap_sums[phase]);
                    if rows == ROWS {
                        visit.run::<S, KERNEL, STRIDE, ROWS>(simd, weights, &mut gate, sums);
                    } else if rows == 1 {
                        visit.run::<S, KERNEL, STRIDE, 1>(simd, weights, &mut gate, sums);
                    }
                }
                self.write_input_gradient(scratch, index, images.clone(), y, rows);
                *next += rows;
            }
        }
        if let Some(part) = &mut self.input_gradient {
            part.close(index, gate);
        }
        tap_sums
    }

    /// Writes row `y` of the output gradient to its place between the zeros.
    #[inline(always)]
    fn read_gradient_row(&self, scratch: &mut Scratch, index: usize, images: usize, y: usize) {
        let width = self.geometry.output.width;
        let reach = (KERNEL - 1) / STRIDE;
        let OutputGradient {
            gradient,
            values,
            by_gradient,
            by_value,
            constant,
        } = self.output_gradient;
        let channel = self.channels.start + index;
        let (by_gradient, by_value) = (by_gradient[channel], by_value[channel]);
        let constant = constant[channel];
        let [_, gradients, outputs] = &scratch.stages;
        for image in 0..images {
            let place = (y + reach) * self.strip.width + image * self.strip.pitch + reach;
            rows::combine(
                &gradients.plane(gradient, image, index)[y * width..][..width],
                &outputs.plane(values, image, index)[y * width..][..width],
                &mut scratch.output_gradient[place..][..width],
                |gradient, value| gradient.mul_add(by_gradient, value.mul_add(by_value, constant)),
            );
        }
    }

    /// Copies rows `y`, `y + STRIDE`... of the input, as stored, to the phases.
    #[inline(always)]
    fn read_input_rows(
        &self,
        scratch: &mut Scratch,
        index: usize,
        images: usize,
        y: usize,
        rows: usize,
    ) {
        let width = self.geometry.input.width;
        for image in 0..images {
            let plane = scratch.stages[0].plane(self.input.values, image, index);
            for row in 0..rows {
                let values = &plane[(y + row * STRIDE) * width..][..width];
                let place = self.place(row, image);
                spread_row::<STRIDE>(values, &mut scratch.values, place, |value| value);
            }
        }
    }

    /// The inverse for the gradient by the input, which is written or added.
    #[inline(always)]
    fn write_input_gradient(
        &mut self,
        scratch: &mut Scratch,
        index: usize,
        images: Range<usize>,
        y: usize,
        rows: usize,
    ) {
        let input = self.geometry.input;
        for (image, image_index) in images.enumerate() {
            for row in 0..rows {
                let place = self.place(row, image);
                let Some(part) = &mut self.input_gradient else {
                    return;
                };
                let plane = &mut part.planes[image_index][index * input.area()..][..input.area()];
                let target = &mut plane[(y + row * STRIDE) * input.width..][..input.width];
                let [new, old] = &mut scratch.rows;
                let new = gather_row::<STRIDE>(&scratch.input_gradient, place, new);
                if part.add {
                    rows::map(target, old, |value| value);
                    rows::combine(old, new, target, |old, new| old + new);
                } else {
                    rows::map(new, target, |value| value);
                }
            }
        }
    }

    /// Of a row of the tile in an image of the strip.
    #[inline(always)]
    fn place(&self, row: usize, image: usize) -> Place {
        Place {
            first: row * self.strip.width + image * self.strip.pitch,
            phase_len: ROWS * self.strip.width,
            left: self.geometry.padding.left,
        }
    }
}

/// Of so many rows or columns, those that belong to a phase.
#[inline(always)]
fn of_phase<const STRIDE: usize>(phase: usize, count: usize) -> usize {
    count.saturating_sub(phase).div_ceil(STRIDE)
}

/// A few rows of a phase.
struct Visit<'a> {
    width: usize,
    columns: usize,
    column_phase: usize,
    /// From the first row that the first tap reads.
    gradients: &'a [f32],
    values: &'a [f32],
    inside: &'a [f32],
    results: &'a mut [f32],
}

impl Visit<'_> {
    /// The gradient by the input in `TILE` rows, and what they add to the gradient by each tap.
    #[inline(always)]
    fn run<S: Simd, const KERNEL: usize, const STRIDE: usize, const TILE: usize>(
        self,
        simd: S,
        weights: &[[S::f32s; KERNEL]; KERNEL],
        gate: &mut Gate<S>,
        tap_sums: &mut [[S::f32s; KERNEL]; KERNEL],
    ) {
        let taps = (KERNEL - 1) / STRIDE + 1;
        // Rows of taps whose sums the registers hold at once, beside what else is in them.
        let group = if taps <= 4 { taps } else { 1 };
        let width = self.width;
        let phase_start = self.column_phase * ROWS * width;
        let values = &self.values[phase_start..][..TILE * width];
        let results = &mut self.results[phase_start..][..TILE * width];
        let mut lines: [&[f32]; MOST_LINES] = [&[]; MOST_LINES];
        for (line, row) in lines[..TILE + taps - 1].iter_mut().enumerate() {
            *row = &self.gradients[line * width..][..width];
        }
        let mut passing = *gate;
        for column in (0..self.columns).step_by(S::F32_LANES) {
            let inside = load::<S>(&self.inside[column..]);
            let mut inputs = [simd.splat_f32s(0.0); TILE];
            for (row, input) in inputs.iter_mut().enumerate() {
                let value = load::<S>(&values[row * width + column..]);
                *input = simd.mul_f32s(gate.read.apply(value), inside);
            }
            let mut totals = [simd.splat_f32s(0.0); TILE];
            for first_tap in (0..taps).step_by(group) {
                let mut sums = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
                sums[..group].copy_from_slice(&tap_sums[first_tap..][..group]);
                let weights = &weights[first_tap..][..group];
                for_each_line!(LINE, {
                    if LINE < TILE + group - 1 {
                        let window = &lines[first_tap + LINE][column..][..S::F32_LANES + taps - 1];
                        for tap_x in 0..taps {
                            let gradient = load::<S>(&window[tap_x..]);
                            for row in LINE.saturating_sub(group - 1)..TILE.min(LINE + 1) {
                                let tap_y = LINE - row;
                                totals[row] =
                                    simd.mul_add_f32s(weights[tap_y][tap_x], gradient, totals[row]);
                                sums[tap_y][tap_x] =
                                    simd.mul_add_f32s(inputs[row], gradient, sums[tap_y][tap_x]);
                            }
                        }
                    }
                });
                tap_sums[first_tap..][..group].copy_from_slice(&sums[..group]);
            }
            for (row, &total) in totals.iter().enumerate() {
                let value = load::<S>(&values[row * width + column..]);
                let gradient = passing.mask(simd.mul_f32s(total, inside), value);
                store(simd, gradient, &mut results[row * width + column..]);
            }
        }
        *gate = passing;
    }
}
