//! Residual connection: the sum of two activations, clamped, as plain values.

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::channels;
use super::gate::{self, GradientPart};
use super::training::{InputGradient, Stored};

/// `output = clamp(kept * left + right, low, high)` of two inputs `[n, channels, area]`; infinite bounds clamp nothing.
/// `kept` `[n]` is a factor for each image, 0 where its left input is left out.
///
/// # Errors
/// Lengths that do not fit each other, and no channels or pixels.
pub(in crate::nn) fn forward(
    (channels, area): (usize, usize),
    left: Stored<'_>,
    right: Stored<'_>,
    (low, high): (f32, f32),
    kept: &[f32],
    output: &mut [f32],
) -> Result<()> {
    check(channels, area, (&left, &right), kept, output.len())?;
    output
        .par_chunks_mut(area)
        .enumerate()
        .with_min_len(PLANE_VALUES.div_ceil(area))
        .for_each(|(plane, output)| {
            Arch::new().dispatch(Sum {
                left,
                right,
                low,
                high,
                channel: plane % channels,
                kept: kept[plane / channels],
                first: plane * area,
                output,
            });
        });
    Ok(())
}

/// Gives each input its gradient; `output` is what [`forward`] wrote, and where it is strictly between the bounds,
/// `output_gradient` goes through.
///
/// # Errors
/// As [`forward`].
pub(in crate::nn) fn backward(
    (channels, area): (usize, usize),
    (low, high): (f32, f32),
    kept: &[f32],
    output: &[f32],
    output_gradient: &[f32],
    (left, left_gradient): (Stored<'_>, Option<InputGradient<'_>>),
    (right, right_gradient): (Stored<'_>, Option<InputGradient<'_>>),
) -> Result<()> {
    check(channels, area, (&left, &right), kept, output.len())?;
    if output_gradient.len() != output.len() {
        bail!(
            "the gradient of a sum has {} values, the sum {}",
            output_gradient.len(),
            output.len()
        );
    }
    let per_task = channels::per_task(channels);
    let mut tasks: Vec<Task<'_>> = (0..channels)
        .step_by(per_task)
        .map(|first_channel| Task {
            channels,
            area,
            bounds: (low, high),
            kept,
            task_channels: first_channel..(first_channel + per_task).min(channels),
            output,
            output_gradient,
            inputs: [left, right],
            input_gradients: [None, None],
        })
        .collect();
    for (side, gradient) in [left_gradient, right_gradient].into_iter().enumerate() {
        if let Some(gradient) = gradient {
            gate::check(&gradient, output.len(), channels)?;
            for (task, part) in tasks.iter_mut().zip(gate::split(gradient, channels, area)) {
                task.input_gradients[side] = Some(part);
            }
        }
    }
    tasks.into_par_iter().for_each_init(
        || vec![0.0; area],
        |masked, task| Arch::new().dispatch(TaskWithScratch { task, masked }),
    );
    Ok(())
}

/// Values of one unit of parallel work, at least.
const PLANE_VALUES: usize = 16 * 1024;

fn check(
    channels: usize,
    area: usize,
    (left, right): (&Stored<'_>, &Stored<'_>),
    kept: &[f32],
    output_len: usize,
) -> Result<()> {
    if channels * area == 0 || !output_len.is_multiple_of(channels * area) {
        bail!("{output_len} values are not a batch of {channels} channels of {area} pixels");
    }
    if kept.len() != output_len / (channels * area) {
        bail!("{} factors for the images of a sum", kept.len());
    }
    for input in [left, right] {
        if input.values.len() != output_len
            || input.scale.len() != channels
            || input.shift.len() != channels
        {
            bail!(
                "a sum's input has {} values, its output {output_len}",
                input.values.len()
            );
        }
    }
    Ok(())
}

/// One plane of the output.
struct Sum<'a> {
    left: Stored<'a>,
    right: Stored<'a>,
    low: f32,
    high: f32,
    channel: usize,
    /// Factor on the left plane.
    kept: f32,
    /// Where the plane begins in the inputs.
    first: usize,
    output: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let read_left = gate::read(simd, &self.left, self.channel);
        let read_right = gate::read(simd, &self.right, self.channel);
        let low = simd.splat_f32s(self.low);
        let high = simd.splat_f32s(self.high);
        let kept = simd.splat_f32s(self.kept);
        let sum = |left, right| {
            let sum = simd.mul_add_f32s(kept, read_left.apply(left), read_right.apply(right));
            simd.min_f32s(high, simd.max_f32s(low, sum))
        };
        let range = self.first..self.first + self.output.len();
        let (left, left_rest) = S::as_simd_f32s(&self.left.values[range.clone()]);
        let (right, right_rest) = S::as_simd_f32s(&self.right.values[range]);
        let (output, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((output, &left), &right) in output.iter_mut().zip(left).zip(right) {
            *output = sum(left, right);
        }
        if !output_rest.is_empty() {
            let left = simd.partial_load_f32s(left_rest);
            let right = simd.partial_load_f32s(right_rest);
            simd.partial_store_f32s(output_rest, sum(left, right));
        }
    }
}

/// Some channels of every image.
struct Task<'a> {
    channels: usize,
    area: usize,
    bounds: (f32, f32),
    kept: &'a [f32],
    task_channels: std::ops::Range<usize>,
    output: &'a [f32],
    output_gradient: &'a [f32],
    inputs: [Stored<'a>; 2],
    input_gradients: [Option<GradientPart<'a>>; 2],
}

struct TaskWithScratch<'a, 'b> {
    task: Task<'a>,
    /// `[area]`: the output's gradient where its clamp lets it through.
    masked: &'b mut [f32],
}

impl WithSimd for TaskWithScratch<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TaskWithScratch { mut task, masked } = self;
        let (low, high) = task.bounds;
        let images = task.output.len() / (task.channels * task.area);
        for image in 0..images {
            for (index, channel) in task.task_channels.clone().enumerate() {
                let plane = (image * task.channels + channel) * task.area;
                let plane = plane..plane + task.area;
                let outputs = &task.output[plane.clone()];
                let gradients = &task.output_gradient[plane.clone()];
                let factors = [task.kept[image], 1.0];
                let parts = task.input_gradients.iter_mut().zip(&task.inputs);
                for ((part, input), factor) in parts.zip(factors) {
                    if let Some(part) = part {
                        let masked = &mut *masked;
                        for ((masked, &output), &gradient) in
                            masked.iter_mut().zip(outputs).zip(gradients)
                        {
                            *masked = if output > low && output < high {
                                factor * gradient
                            } else {
                                0.0
                            };
                        }
                        let mut gate = part.gate(simd, input, channel);
                        let target = &mut part.planes[image][index * task.area..][..task.area];
                        gate.pass(masked, &input.values[plane.clone()], target, part.add);
                        part.close(index, gate);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::plain::{Random, on_threads};
    use super::super::training::Sums;
    use super::*;

    const INFINITE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    type Gradient = (Vec<f32>, Vec<Sums>);

    fn step(case: &Case, threads: usize) -> (Vec<f32>, [Gradient; 2]) {
        on_threads(threads, || {
            let [left, right] = [0, 1].map(|side| case.stored(side));
            let mut output = vec![f32::NAN; case.gradient.len()];
            forward(
                (case.channels, case.area),
                left,
                right,
                case.bounds,
                &case.kept,
                &mut output,
            )
            .unwrap();
            let start = || (case.gradient.clone(), vec![Sums::default(); case.channels]);
            let mut gradients = [start(), start()];
            let [(left_gradient, left_sums), (right_gradient, right_sums)] = &mut gradients;
            let target = |gradient, sums, add| InputGradient {
                gradient,
                add,
                sums,
                pivot: &case.affine[4],
            };
            backward(
                (case.channels, case.area),
                case.bounds,
                &case.kept,
                &output,
                &case.gradient,
                (left, Some(target(left_gradient, left_sums, false))),
                (right, Some(target(right_gradient, right_sums, true))),
            )
            .unwrap();
            (output, gradients)
        })
    }

    struct Case {
        channels: usize,
        area: usize,
        bounds: (f32, f32),
        input_bounds: [(f32, f32); 2],
        kept: Vec<f32>,
        values: [Vec<f32>; 2],
        affine: [Vec<f32>; 5],
        gradient: Vec<f32>,
    }

    impl Case {
        fn stored(&self, side: usize) -> Stored<'_> {
            Stored {
                values: &self.values[side],
                scale: &self.affine[2 * side],
                shift: &self.affine[2 * side + 1],
                low: self.input_bounds[side].0,
                high: self.input_bounds[side].1,
            }
        }

        fn read(&self, side: usize, index: usize) -> f32 {
            let stored = self.stored(side);
            let channel = index / self.area % self.channels;
            let value = stored.values[index].mul_add(stored.scale[channel], stored.shift[channel]);
            value.max(stored.low).min(stored.high)
        }

        fn kept(&self, index: usize) -> f32 {
            self.kept[index / (self.area * self.channels)]
        }

        fn sum(&self, index: usize) -> f32 {
            let (left, right) = (self.read(0, index), self.read(1, index));
            self.kept(index).mul_add(left, right)
        }
    }

    #[test]
    fn a_step_equals_the_plain_one_on_any_number_of_threads() {
        let mut random = Random::new(21);
        for round in 0..60 {
            let (images, channels, area) = (
                1 + random.below(4),
                1 + random.below(150),
                1 + random.below(90),
            );
            let len = images * channels * area;
            let bounds = [INFINITE, (0.0, f32::INFINITY), (-0.3, 0.5)];
            let case = Case {
                channels,
                area,
                bounds: bounds[random.below(3)],
                input_bounds: [bounds[random.below(3)], bounds[random.below(3)]],
                kept: (0..images)
                    .map(|_| [0.0, 1.0, 1.25][random.below(3)])
                    .collect(),
                values: [random.values(len), random.values(len)],
                affine: std::array::from_fn(|_| random.values(channels)),
                gradient: random.values(len),
            };
            let ours = step(&case, 2);
            assert!(ours == step(&case, 1), "round {round}");
            for index in 0..len {
                let sum = case.sum(index);
                assert_eq!(ours.0[index], sum.max(case.bounds.0).min(case.bounds.1));
            }
            for (side, (gradient, sums)) in ours.1.iter().enumerate() {
                let (low, high) = case.input_bounds[side];
                let mut expected = vec![Sums::default(); channels];
                for (index, &ours) in gradient.iter().enumerate() {
                    let read = case.read(side, index);
                    let sum = case.sum(index);
                    let factor = if side == 0 { case.kept(index) } else { 1.0 };
                    let passes =
                        case.bounds.0 < sum && sum < case.bounds.1 && low < read && read < high;
                    let new = if passes {
                        factor * case.gradient[index]
                    } else {
                        0.0
                    };
                    let before = if side == 0 { 0.0 } else { case.gradient[index] };
                    assert_eq!(ours, before + new);
                    let channel = index / area % channels;
                    let difference =
                        f64::from(case.values[side][index]) - f64::from(case.affine[4][channel]);
                    expected[channel].first += f64::from(new);
                    expected[channel].second += f64::from(new) * difference;
                }
                for (ours, plain) in sums.iter().zip(&expected) {
                    assert!((ours.first - plain.first).abs() < 1e-4 * (1.0 + plain.first.abs()));
                    assert!((ours.second - plain.second).abs() < 1e-4 * (1.0 + plain.second.abs()));
                }
            }
        }
    }
}
