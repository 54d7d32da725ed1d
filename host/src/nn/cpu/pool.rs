//! Pooling in a training step: maximum of a window, mean of a plane. What they read is [`Stored`], what they write plain.

use candle_core::{Result, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::gate::{self, GradientPart};
use super::training::{InputGradient, Stored};
use super::{Geometry, channels};

/// Maximum of each window of an input `[n, c, h, w]`: `output` and `taps` are `[n, c, h', w']`.
///
/// `geometry` is that of a convolution of each channel; padding never is the maximum. `taps` keeps where in its window the
/// first maximum lies, in row-major order.
///
/// # Errors
/// A window of more than 256 values, padding as large as it, and lengths that do not fit the geometry.
pub(in crate::nn) fn max_forward(
    geometry: &Geometry,
    input: Stored<'_>,
    output: &mut [f32],
    taps: &mut [u8],
) -> Result<()> {
    check_max(geometry, &input, output.len(), taps.len())?;
    let area = geometry.output.area();
    output
        .par_chunks_mut(area)
        .zip(taps.par_chunks_mut(area))
        .enumerate()
        .for_each_init(
            || MaxScratch::new(geometry),
            |scratch, (plane, (output, taps))| {
                Arch::new().dispatch(MaxPlane {
                    geometry,
                    input,
                    plane,
                    output,
                    taps,
                    scratch,
                });
            },
        );
    Ok(())
}

/// Gives each window's gradient to its maximum, as kept by [`max_forward`].
///
/// # Errors
/// As [`max_forward`].
pub(in crate::nn) fn max_backward(
    geometry: &Geometry,
    input: Stored<'_>,
    taps: &[u8],
    output_gradient: &[f32],
    input_gradient: InputGradient<'_>,
) -> Result<()> {
    check_max(geometry, &input, output_gradient.len(), taps.len())?;
    let area = geometry.output.area();
    backward(
        geometry.input_channels,
        geometry.input.area(),
        input,
        input_gradient,
        |plane, gradient| {
            gradient.fill(0.0);
            let taps = &taps[plane * area..][..area];
            let output_gradient = &output_gradient[plane * area..][..area];
            scatter(geometry, taps, output_gradient, gradient);
        },
    )
}

/// Mean of each plane of an input `[n, c, area]`: `output` is `[n, c]`.
///
/// # Errors
/// Lengths that do not fit each other, and planes without a pixel.
pub(in crate::nn) fn average_forward(
    area: usize,
    input: Stored<'_>,
    output: &mut [f32],
) -> Result<()> {
    check_average(area, &input, output.len())?;
    let channels = input.scale.len();
    output
        .par_iter_mut()
        .zip(input.values.par_chunks(area))
        .enumerate()
        .with_min_len(TASK_VALUES.div_ceil(area))
        .for_each(|(plane, (output, values))| {
            let channel = plane % channels;
            *output = Arch::new().dispatch(Sum {
                input,
                channel,
                values,
            }) / area as f32;
        });
    Ok(())
}

/// Gives each pixel its part of its plane's gradient, `[n, c]`.
///
/// # Errors
/// As [`average_forward`].
pub(in crate::nn) fn average_backward(
    area: usize,
    input: Stored<'_>,
    output_gradient: &[f32],
    input_gradient: InputGradient<'_>,
) -> Result<()> {
    check_average(area, &input, output_gradient.len())?;
    backward(
        input.scale.len(),
        area,
        input,
        input_gradient,
        |plane, gradient| gradient.fill(output_gradient[plane] / area as f32),
    )
}

/// Lanes of the widest vector.
const LANES: usize = 16;
/// Values of one unit of parallel work, at least.
const TASK_VALUES: usize = 16 * 1024;

fn check_max(
    geometry: &Geometry,
    input: &Stored<'_>,
    output_len: usize,
    taps_len: usize,
) -> Result<()> {
    let Geometry {
        kernel, padding, ..
    } = *geometry;
    if kernel.area() > 256
        || padding.top.max(padding.bottom) >= kernel.height
        || padding.left.max(padding.right) >= kernel.width
    {
        bail!(
            "a maximum of {kernel:?} values, padded by {padding:?}: a window must be small and hold a value"
        );
    }
    let channels = geometry.input_channels;
    let planes = geometry.images * channels;
    if geometry.input.area() == 0
        || input.values.len() != planes * geometry.input.area()
        || input.scale.len() != channels
        || input.shift.len() != channels
        || output_len != planes * geometry.output.area()
        || taps_len != output_len
    {
        bail!("a maximum pool's input and output do not fit each other");
    }
    Ok(())
}

fn check_average(area: usize, input: &Stored<'_>, output_len: usize) -> Result<()> {
    let channels = input.scale.len();
    if area * channels == 0
        || input.shift.len() != channels
        || !output_len.is_multiple_of(channels)
        || input.values.len() != output_len * area
    {
        bail!(
            "{output_len} means of {area} pixels in {channels} channels, of {} values",
            input.values.len()
        );
    }
    Ok(())
}

/// Buffers of one thread.
struct MaxScratch {
    /// A padded input row; the padding is less than every value.
    line: Vec<f32>,
    /// `[h, w']`: maxima of the windows' rows, and where in a row they lie.
    maxima: Vec<f32>,
    columns: Vec<u8>,
}

impl MaxScratch {
    fn new(geometry: &Geometry) -> MaxScratch {
        let Geometry {
            input,
            output,
            padding,
            ..
        } = *geometry;
        MaxScratch {
            line: vec![f32::NEG_INFINITY; padding.left + input.width + padding.right],
            maxima: vec![0.0; input.height * output.width],
            columns: vec![0; input.height * output.width],
        }
    }
}

/// One channel of one image.
struct MaxPlane<'a> {
    geometry: &'a Geometry,
    input: Stored<'a>,
    plane: usize,
    output: &'a mut [f32],
    taps: &'a mut [u8],
    scratch: &'a mut MaxScratch,
}

impl WithSimd for MaxPlane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            padding,
            ..
        } = *self.geometry;
        let MaxScratch {
            line,
            maxima,
            columns,
        } = self.scratch;
        let read = gate::read(simd, &self.input, self.plane % self.geometry.input_channels);
        let rows = self.input.values[self.plane * input.area()..][..input.area()]
            .chunks_exact(input.width);
        for ((row, maxima), columns) in rows
            .zip(maxima.chunks_exact_mut(output.width))
            .zip(columns.chunks_exact_mut(output.width))
        {
            read.row(row, &mut line[padding.left..][..input.width]);
            match stride {
                1 => max_of_row::<1>(line, kernel.width, 1, maxima, columns),
                2 => max_of_row::<2>(line, kernel.width, 2, maxima, columns),
                _ => max_of_row::<0>(line, kernel.width, stride, maxima, columns),
            }
        }
        let outputs = self.output.chunks_exact_mut(output.width);
        let taps = self.taps.chunks_exact_mut(output.width);
        for (y, (output_row, taps)) in outputs.zip(taps).enumerate() {
            output_row.fill(f32::NEG_INFINITY);
            taps.fill(0);
            for tap_y in 0..kernel.height {
                let Some(y) = (y * stride + tap_y)
                    .checked_sub(padding.top)
                    .filter(|&y| y < input.height)
                else {
                    continue;
                };
                let before = (tap_y * kernel.width) as u8;
                let maxima = &maxima[y * output.width..][..output.width];
                let columns = &columns[y * output.width..][..output.width];
                for (((best, tap), &value), &column) in output_row
                    .iter_mut()
                    .zip(&mut *taps)
                    .zip(maxima)
                    .zip(columns)
                {
                    let greater = value > *best;
                    *best = if greater { value } else { *best };
                    *tap = if greater {
                        before.wrapping_add(column)
                    } else {
                        *tap
                    };
                }
            }
        }
    }
}

/// The first maximum of each window of a row, `STRIDE` apart (`stride` where it is 0), and where in the window it lies.
#[inline(always)]
fn max_of_row<const STRIDE: usize>(
    line: &[f32],
    kernel: usize,
    stride: usize,
    maxima: &mut [f32],
    columns: &mut [u8],
) {
    let stride = if STRIDE == 0 { stride } else { STRIDE };
    maxima.fill(f32::NEG_INFINITY);
    columns.fill(0);
    for tap in 0..kernel {
        let values = line[tap..].iter().step_by(stride);
        for ((best, column), &value) in maxima.iter_mut().zip(&mut *columns).zip(values) {
            let greater = value > *best;
            *best = if greater { value } else { *best };
            *column = if greater { tap as u8 } else { *column };
        }
    }
}

/// Adds each output's gradient to its maximum's.
fn scatter(geometry: &Geometry, taps: &[u8], output_gradient: &[f32], gradient: &mut [f32]) {
    let Geometry {
        input,
        output,
        kernel,
        stride,
        padding,
        ..
    } = *geometry;
    // Where in the plane a tap lies, seen from the corner of the window; the padding is subtracted from the sum.
    let places: Vec<usize> = (0..kernel.area())
        .map(|tap| tap / kernel.width * input.width + tap % kernel.width)
        .collect();
    let padding = padding.top * input.width + padding.left;
    let rows = taps.chunks_exact(output.width);
    let gradients = output_gradient.chunks_exact(output.width);
    for (y, (taps, gradients)) in rows.zip(gradients).enumerate() {
        let row = y * stride * input.width;
        for (x, (&tap, &value)) in taps.iter().zip(gradients).enumerate() {
            let place = places
                .get(usize::from(tap))
                .and_then(|place| (row + x * stride + place).checked_sub(padding));
            if let Some(gradient) = place.and_then(|place| gradient.get_mut(place)) {
                *gradient += value;
            }
        }
    }
}

/// One plane as read.
struct Sum<'a> {
    input: Stored<'a>,
    channel: usize,
    values: &'a [f32],
}

impl WithSimd for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let read = gate::read(simd, &self.input, self.channel);
        let (vectors, rest) = S::as_simd_f32s(self.values);
        let mut sum = simd.splat_f32s(0.0);
        for &vector in vectors {
            sum = simd.add_f32s(sum, read.apply(vector));
        }
        let mut last = [0.0; LANES];
        read.row(rest, &mut last[..rest.len()]);
        simd.reduce_sum_f32s(sum) + last.iter().sum::<f32>()
    }
}

/// Passes each plane's gradient, which `fill` writes for the plane's index in the batch, through the input's gate.
fn backward(
    channels: usize,
    area: usize,
    input: Stored<'_>,
    input_gradient: InputGradient<'_>,
    fill: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<()> {
    gate::check(&input_gradient, input.values.len(), channels)?;
    let per_task = channels::per_task(channels);
    let parts: Vec<GradientPart<'_>> = gate::split(input_gradient, channels, area).collect();
    parts.into_par_iter().enumerate().for_each_init(
        || vec![0.0; area],
        |gradient, (task, mut part)| {
            for image in 0..part.planes.len() {
                for index in 0..part.planes[image].len() / area {
                    let channel = task * per_task + index;
                    let plane = image * channels + channel;
                    fill(plane, gradient);
                    Arch::new().dispatch(Pass {
                        input,
                        plane,
                        channel,
                        image,
                        index,
                        gradient,
                        part: &mut part,
                    });
                }
            }
        },
    );
    Ok(())
}

/// One channel of one image.
struct Pass<'a, 'b> {
    input: Stored<'a>,
    plane: usize,
    channel: usize,
    image: usize,
    index: usize,
    gradient: &'b [f32],
    part: &'b mut GradientPart<'a>,
}

impl WithSimd for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let area = self.gradient.len();
        let mut gate = self.part.gate(simd, &self.input, self.channel);
        let values = &self.input.values[self.plane * area..][..area];
        let output = &mut self.part.planes[self.image][self.index * area..][..area];
        gate.pass(self.gradient, values, output, self.part.add);
        self.part.close(self.index, gate);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::plain::{Random, on_threads};
    use super::super::training::Sums;
    use super::*;

    /// What a step reads, at random: values, scale, shift, pivot.
    struct Case {
        read: [Vec<f32>; 4],
        bounds: (f32, f32),
        area: usize,
    }

    impl Case {
        fn new(random: &mut Random, images: usize, channels: usize, area: usize) -> Case {
            let bounds = [(f32::NEG_INFINITY, f32::INFINITY), (0.0, 6.0), (-0.2, 0.3)];
            Case {
                read: [images * channels * area, channels, channels, channels]
                    .map(|len| random.values(len)),
                bounds: bounds[random.below(3)],
                area,
            }
        }

        fn stored(&self) -> Stored<'_> {
            let [values, scale, shift, _] = &self.read;
            Stored {
                values,
                scale,
                shift,
                low: self.bounds.0,
                high: self.bounds.1,
            }
        }

        fn as_read(&self, index: usize) -> f32 {
            let [values, scale, shift, _] = &self.read;
            let channel = index / self.area % scale.len();
            let value = values[index].mul_add(scale[channel], shift[channel]);
            value.max(self.bounds.0).min(self.bounds.1)
        }

        /// The gradient and its sums that `run` gives, added to ones and not added, on any number of threads; they must
        /// be `expected` of the input as read, masked.
        fn check(&self, expected: &[f32], run: impl Fn(InputGradient<'_>) + Sync) {
            let [values, scale, _, pivot] = &self.read;
            for add in [false, true] {
                let on = |threads| {
                    on_threads(threads, || {
                        let mut gradient = vec![1.0; values.len()];
                        let mut sums = vec![Sums::default(); scale.len()];
                        run(InputGradient {
                            gradient: &mut gradient,
                            add,
                            sums: &mut sums,
                            pivot,
                        });
                        (gradient, sums)
                    })
                };
                let ours = on(2);
                assert!(ours == on(1));
                let mut sums = vec![Sums::default(); scale.len()];
                for (index, &value) in expected.iter().enumerate() {
                    let read = self.as_read(index);
                    let passes = self.bounds.0 < read && read < self.bounds.1;
                    let new = if passes { value } else { 0.0 };
                    let before = if add { 1.0 } else { 0.0 };
                    assert!((ours.0[index] - before - new).abs() < 1e-5);
                    let channel = index / self.area % scale.len();
                    let difference = f64::from(values[index]) - f64::from(pivot[channel]);
                    sums[channel].first += f64::from(new);
                    sums[channel].second += f64::from(new) * difference;
                }
                for (ours, plain) in ours.1.iter().zip(&sums) {
                    assert!((ours.first - plain.first).abs() < 1e-4 * (1.0 + plain.first.abs()));
                    assert!((ours.second - plain.second).abs() < 1e-4 * (1.0 + plain.second.abs()));
                }
            }
        }
    }

    #[test]
    fn maximum_pool_equals_a_plain_one() {
        let mut random = Random::new(31);
        for round in 0..60 {
            let channels = 1 + random.below(80);
            let kernel = 1 + random.below(4);
            let stride = 1 + random.below(3);
            let geometry = random.geometry([channels, 1, kernel, kernel], stride, channels, 20);
            let Geometry {
                input,
                output,
                padding,
                ..
            } = geometry;
            let case = Case::new(&mut random, geometry.images, channels, input.area());
            let outputs = geometry.images * channels * output.area();
            let gradient = random.values(outputs);
            let (mut values, mut taps) = (vec![f32::NAN; outputs], vec![255; outputs]);
            max_forward(&geometry, case.stored(), &mut values, &mut taps).unwrap();

            let mut expected = vec![0.0; case.read[0].len()];
            for index in 0..outputs {
                let (plane, pixel) = (index / output.area(), index % output.area());
                let mut best: Option<(f32, usize, usize)> = None;
                for tap in 0..kernel * kernel {
                    let y = (pixel / output.width * stride + tap / kernel).checked_sub(padding.top);
                    let x =
                        (pixel % output.width * stride + tap % kernel).checked_sub(padding.left);
                    if let (Some(y), Some(x)) = (y, x)
                        && y < input.height
                        && x < input.width
                    {
                        let place = plane * input.area() + y * input.width + x;
                        let value = case.as_read(place);
                        if best.is_none_or(|(best, ..)| value > best) {
                            best = Some((value, tap, place));
                        }
                    }
                }
                let (value, tap, place) = best.unwrap();
                assert_eq!(
                    (values[index], usize::from(taps[index])),
                    (value, tap),
                    "round {round}"
                );
                expected[place] += gradient[index];
            }
            case.check(&expected, |target| {
                max_backward(&geometry, case.stored(), &taps, &gradient, target).unwrap();
            });
        }
    }

    #[test]
    fn average_pool_equals_a_plain_one() {
        let mut random = Random::new(32);
        for _ in 0..40 {
            let (images, channels, area) = (
                1 + random.below(4),
                1 + random.below(150),
                1 + random.below(90),
            );
            let case = Case::new(&mut random, images, channels, area);
            let gradient = random.values(images * channels);
            let mut means = vec![f32::NAN; images * channels];
            average_forward(area, case.stored(), &mut means).unwrap();
            for (plane, mean) in means.iter().enumerate() {
                let sum: f32 = (plane * area..(plane + 1) * area)
                    .map(|index| case.as_read(index))
                    .sum();
                assert!((mean - sum / area as f32).abs() < 1e-5);
            }
            let expected: Vec<f32> = (0..case.read[0].len())
                .map(|index| gradient[index / area] / area as f32)
                .collect();
            case.check(&expected, |target| {
                average_backward(area, case.stored(), &gradient, target).unwrap();
            });
        }
    }
}
