//! Convolution over all input channels: a matrix product with patches gathered on the way, in training 1x1 ones included.

use super::columns::{self, Lines, Window};
use super::correlation::correlate;
use super::matrix::{Columns, PackedWeight};
use super::product::{self, Mask, Part, Store, Weight};
use super::training::{InputGradient, Output, OutputGradient, Stored};
use super::{Epilogue, Geometry, Size, winograd};

/// Weight `[out, in, kh, kw]`, input `[n, in, h, w]`; returns `[n, out, h', w']`.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let depth = geometry.input_channels * geometry.kernel.area();
    let image_len = geometry.input_channels * geometry.input.area();
    PackedWeight::new(weight, geometry.output_channels, depth).multiply_images(
        geometry.images,
        |image| Patches {
            data: &input[image * image_len..][..image_len],
            geometry,
        },
        geometry.output.area(),
        epilogue,
    )
}

/// Weight `[out, in, kh, kw]`; see [`Output`].
pub(in crate::nn) fn forward_training(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) {
    if winograd::suits(geometry) {
        return winograd::forward_training(geometry, input, weight, output);
    }
    let taps: Vec<usize> = (0..geometry.kernel.area()).collect();
    let area = geometry.output.area();
    let part = Part {
        weight: Weight {
            values: weight,
            rows: geometry.output_channels,
            row: geometry.input_channels * taps.len(),
            channels: geometry.input_channels,
            channel: taps.len(),
            taps,
        },
        columns: patches(geometry, input),
        lines: Lines::plane(area),
    };
    let sums = product::multiply(
        &[part],
        &Store {
            pivot: output.pivot,
        },
        output.values,
        area,
    );
    output.sums.copy_from_slice(&sums);
}

/// Weight and its gradient (overwritten) `[out, in, kh, kw]`; see [`OutputGradient`] and [`InputGradient`].
pub(in crate::nn) fn backward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<InputGradient<'_>>,
) {
    if winograd::suits(geometry) {
        if let Some(weight_gradient) = weight_gradient {
            winograd::weight_gradient(geometry, input, output_gradient, weight_gradient);
        }
        if let Some(target) = input_gradient {
            winograd::input_gradient(geometry, input, weight, output_gradient, target);
        }
        return;
    }
    if let Some(weight_gradient) = weight_gradient {
        let gradient = output_columns(geometry, output_gradient, None);
        let input = patches(geometry, input);
        correlate(&gradient, &input, geometry.images, weight_gradient);
    }
    if let Some(mut target) = input_gradient {
        let phases = |input: usize| 0..geometry.stride.min(input);
        let parts: Vec<_> = phases(geometry.input.height)
            .flat_map(|y| phases(geometry.input.width).map(move |x| (y, x)))
            .map(|phase| phase_gradient(geometry, weight, output_gradient, phase))
            .collect();
        let mask = Mask {
            input,
            pivot: target.pivot,
            add: target.add,
        };
        let sums = product::multiply(&parts, &mask, target.gradient, geometry.input.area());
        product::add_sums(&mut target, &sums);
    }
}

/// The input's patches as a matrix `[in * kh * kw, n * h' * w']`; those of one pixel are the input itself.
fn patches<'a>(geometry: &Geometry, input: Stored<'a>) -> columns::Columns<Stored<'a>> {
    let window = Window {
        top: geometry.padding.top.cast_signed(),
        left: geometry.padding.left.cast_signed(),
        stride: geometry.stride,
        kernel: geometry.kernel,
        output: geometry.output,
    };
    let window = (!geometry.is_pointwise()).then_some(window);
    columns::Columns::new(input, geometry.input_channels, geometry.input, window)
}

/// The output's gradient as a matrix: its pixels, or patches of them.
fn output_columns<'a>(
    geometry: &Geometry,
    gradient: OutputGradient<'a>,
    window: Option<Window>,
) -> columns::Columns<OutputGradient<'a>> {
    columns::Columns::new(gradient, geometry.output_channels, geometry.output, window)
}

/// What the pixels `first + stride * i` of one axis of the input take their gradient from: a convolution of stride 1 over
/// the output's gradient.
struct Phase {
    pixels: usize,
    /// Of the kernel, last first: they go the other way than forward.
    taps: Vec<usize>,
    before: isize,
}

impl Phase {
    fn new(first: usize, stride: usize, padding: usize, kernel: usize, input: usize) -> Phase {
        let taps: Vec<usize> = ((first + padding) % stride..kernel)
            .step_by(stride)
            .collect();
        let reach = ((first + padding) / stride).cast_signed();
        Phase {
            pixels: (input - first).div_ceil(stride),
            before: taps.len().cast_signed() - 1 - reach,
            taps: taps.into_iter().rev().collect(),
        }
    }
}

/// The gradient of the input's pixels of one phase, row and column modulo stride.
fn phase_gradient<'a>(
    geometry: &Geometry,
    weight: &'a [f32],
    output_gradient: OutputGradient<'a>,
    (first_y, first_x): (usize, usize),
) -> Part<'a, OutputGradient<'a>> {
    let Geometry {
        input,
        stride,
        padding,
        kernel,
        ..
    } = *geometry;
    let rows = Phase::new(first_y, stride, padding.top, kernel.height, input.height);
    let columns = Phase::new(first_x, stride, padding.left, kernel.width, input.width);
    let window = Window {
        top: rows.before,
        left: columns.before,
        stride: 1,
        kernel: Size {
            height: rows.taps.len(),
            width: columns.taps.len(),
        },
        output: Size {
            height: rows.pixels,
            width: columns.pixels,
        },
    };
    let lines = if stride == 1 {
        Lines::plane(input.area())
    } else {
        Lines {
            length: columns.pixels,
            count: rows.pixels,
            pitch: input.width * stride,
            first: first_y * input.width + first_x,
            step: stride,
        }
    };
    let window = (!geometry.is_pointwise()).then_some(window);
    let taps = rows.taps.iter();
    Part {
        weight: Weight {
            values: weight,
            rows: geometry.input_channels,
            row: kernel.area(),
            channels: geometry.output_channels,
            channel: geometry.input_channels * kernel.area(),
            taps: taps
                .flat_map(|y| columns.taps.iter().map(move |x| y * kernel.width + x))
                .collect(),
        },
        columns: output_columns(geometry, output_gradient, window),
        lines,
    }
}

/// The matrix of an image's patches (im2col), `[in * kh * kw, h' * w']`, never stored as a whole.
struct Patches<'a> {
    data: &'a [f32],
    geometry: &'a Geometry,
}

impl Columns for Patches<'_> {
    #[inline(always)]
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]) {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            padding,
            ..
        } = *self.geometry;
        let (channel, tap) = (row / kernel.area(), row % kernel.area());
        let (tap_y, tap_x) = (tap / kernel.width, tap % kernel.width);
        let plane = &self.data[channel * input.area()..][..input.area()];
        let (mut y, mut x) = (first / output.width, first % output.width);
        let mut panel = panel;
        while !panel.is_empty() {
            let (line, rest) = panel.split_at_mut(panel.len().min(output.width - x));
            let source = (y * stride + tap_y)
                .checked_sub(padding.top)
                .and_then(|source_y| plane.chunks_exact(input.width).nth(source_y));
            gather(line, source, (x * stride + tap_x, padding.left), stride);
            panel = rest;
            (y, x) = (y + 1, 0);
        }
    }
}

/// Fills `line` with every `stride`-th value of `source`, which begins after `before` zeros, from position `first` on;
/// zeros beyond its end, and everywhere without a source.
#[inline(always)]
fn gather(
    line: &mut [f32],
    source: Option<&[f32]>,
    (first, before): (usize, usize),
    stride: usize,
) {
    let zeros = before
        .saturating_sub(first)
        .div_ceil(stride)
        .min(line.len());
    let (left, inside) = line.split_at_mut(zeros);
    left.fill(0.0);
    let values = source
        .and_then(|source| source.get((first + zeros * stride).saturating_sub(before)..))
        .unwrap_or_default();
    let (inside, right) = inside.split_at_mut(inside.len().min(values.len().div_ceil(stride)));
    for (value, &source) in inside.iter_mut().zip(values.iter().step_by(stride)) {
        *value = source;
    }
    right.fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::super::plain::{self, Case, Random};
    use super::*;

    #[test]
    fn a_training_step_is_the_plain_one_on_any_number_of_threads() {
        let mut random = Random::new(1);
        for (weight, stride, largest) in [
            ([1, 1, 1, 1], 1, 1),
            ([1, 1, 3, 3], 1, 9),
            ([5, 4, 1, 1], 2, 9),
            ([32, 3, 3, 3], 2, 25),
            ([9, 3, 7, 7], 2, 30),
            ([70, 20, 3, 3], 1, 14),
            ([20, 66, 3, 3], 1, 7),
            ([17, 9, 3, 3], 2, 14),
            ([8, 6, 1, 7], 1, 17),
            ([8, 6, 7, 1], 1, 17),
            ([6, 7, 5, 3], 3, 20),
            ([3, 2, 2, 2], 3, 20),
        ] {
            for _ in 0..4 {
                let geometry = random.geometry(weight, stride, 1, largest);
                let case = Case::new(geometry, &mut random);
                let what = format!("{:?}", case.geometry);
                let expected = case.run(plain::forward, plain::backward);
                let [one, two] = [1, 2].map(|threads| {
                    plain::on_threads(threads, || case.run(forward_training, backward))
                });
                one.assert_near(&expected, &what);
                assert_eq!(one, two, "{what}");
            }
        }
    }

    #[test]
    fn a_training_step_of_one_pixel_is_the_plain_one() {
        let mut random = Random::new(1);
        for (outputs, inputs, largest) in [
            (1, 1, 1),
            (1, 1, 9),
            (24, 16, 20),
            (7, 33, 7),
            (40, 5, 14),
            (150, 130, 7),
            (65, 200, 3),
            (96, 24, 40),
        ] {
            for _ in 0..3 {
                let mut geometry = random.geometry([outputs, inputs, 1, 1], 1, 1, largest);
                assert!(geometry.is_pointwise());
                geometry.images += random.below(12);
                let case = Case::new(geometry, &mut random);
                let what = format!("{:?}", case.geometry);
                let expected = case.run(plain::forward, plain::backward);
                let [one, two] = [1, 2].map(|threads| {
                    plain::on_threads(threads, || case.run(forward_training, backward))
                });
                one.assert_near(&expected, &what);
                assert_eq!(one, two, "{what}");
            }
        }
    }
}
