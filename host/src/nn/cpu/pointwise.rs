//! 1x1 convolution: a matrix product per image.

use super::columns::{self, Lines};
use super::correlation::correlate;
use super::matrix::{Columns, PackedWeight};
use super::product::{self, Mask, Part, Store, Weight};
use super::training::{InputGradient, Output, OutputGradient, Stored};
use super::{Epilogue, Geometry};

/// Weight `[out, in]`, input `[n, in, h, w]`; returns `[n, out, h, w]`.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let pixels = geometry.input.area();
    let image_len = geometry.input_channels * pixels;
    PackedWeight::new(weight, geometry.output_channels, geometry.input_channels).multiply_images(
        geometry.images,
        |image| Planes {
            data: &input[image * image_len..][..image_len],
            pixels,
        },
        pixels,
        epilogue,
    )
}

/// Weight `[out, in]`; see [`Output`].
pub(in crate::nn) fn forward_training(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) {
    let area = geometry.output.area();
    let part = Part {
        weight: Weight {
            values: weight,
            rows: geometry.output_channels,
            row: geometry.input_channels,
            channels: geometry.input_channels,
            channel: 1,
            taps: vec![0],
        },
        columns: columns::Columns::new(input, geometry.input_channels, geometry.input, None),
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

/// Weight and its gradient (overwritten) `[out, in]`; see [`OutputGradient`] and [`InputGradient`].
pub(in crate::nn) fn backward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<InputGradient<'_>>,
) {
    let plane = geometry.input;
    let gradient = columns::Columns::new(output_gradient, geometry.output_channels, plane, None);
    if let Some(weight_gradient) = weight_gradient {
        let input = columns::Columns::new(input, geometry.input_channels, plane, None);
        correlate(&gradient, &input, geometry.images, weight_gradient);
    }
    if let Some(mut target) = input_gradient {
        let part = Part {
            weight: Weight {
                values: weight,
                rows: geometry.input_channels,
                row: 1,
                channels: geometry.output_channels,
                channel: geometry.input_channels,
                taps: vec![0],
            },
            columns: gradient,
            lines: Lines::plane(plane.area()),
        };
        let sums = product::multiply(
            &[part],
            &Mask {
                input,
                pivot: target.pivot,
                add: target.add,
            },
            target.gradient,
            plane.area(),
        );
        product::add_sums(&mut target, &sums);
    }
}

/// An image's channels as the rows of a matrix.
struct Planes<'a> {
    data: &'a [f32],
    pixels: usize,
}

impl Columns for Planes<'_> {
    #[inline(always)]
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]) {
        // Inlined loads and stores: a call of memcpy for each row of a panel costs more than the copy.
        let source = &self.data[row * self.pixels + first..][..panel.len()];
        let (blocks, rest) = panel.as_chunks_mut::<8>();
        let (source_blocks, source_rest) = source.as_chunks::<8>();
        for (block, source) in blocks.iter_mut().zip(source_blocks) {
            *block = *source;
        }
        rest.copy_from_slice(source_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::{self, Case, Random};
    use super::*;

    #[test]
    fn a_training_step_is_the_plain_one_on_any_number_of_threads() {
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
