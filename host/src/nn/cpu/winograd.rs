//! 3x3 convolutions of stride 1 in training by minimal filtering: 16 multiplications for every 2x2 outputs instead of 36.
//!
//! Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308). A tile of 4x4 inputs `d`
//! and a kernel `g` give 2x2 outputs, `Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` with `B` 4x4, `G` 4x3 and `A` 4x2 (F(2x2, 3x3)); summed over
//! channels, the elementwise product is 16 matrix products. The gradient by the input is such a convolution of the output's
//! gradient. The gradient by the kernel is one with the output's gradient, 2x2 of it, in the kernel's place: the same `B`,
//! `G` 4x2, `A` 4x3 (F(3x3, 2x2)).
//!
//! Values lie in blocks of channels, `[blocks, pixels or tiles, 16]`, so that transforms have nothing to shuffle.

mod convolution;
mod correlation;
mod planes;
mod transform;

use super::columns::Source;
use super::product::{self, Mask, Store, Weight};
use super::training::{InputGradient, Output, OutputGradient, Stored};
use super::transpose::SIDE;
use super::{Geometry, Size};
use convolution::Convolution;
use planes::Planes;

/// Channels of a block.
const BLOCK: usize = SIDE;
/// Rows and columns of a tile of the input.
const TILE: usize = 4;
/// Rows and columns of outputs that a tile gives.
const STEP: usize = 2;
/// Values of a transformed tile, each of which has its own matrix product.
const POINTS: usize = TILE * TILE;
/// Rows and columns of a kernel.
const KERNEL: usize = 3;
/// Channels from which on the transforms cost less than they save.
const FEWEST_CHANNELS: usize = 32;

/// Whether a convolution can be made here, and is made faster.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let Geometry {
        input_channels,
        output_channels,
        kernel,
        stride,
        padding,
        depthwise,
        ..
    } = *geometry;
    !depthwise
        && stride == 1
        && (kernel.height, kernel.width) == (KERNEL, KERNEL)
        && padding.top.max(padding.left) < KERNEL
        && input_channels.min(output_channels) >= FEWEST_CHANNELS
}

/// Weight `[out, in, 3, 3]`; see [`Output`].
pub(super) fn forward_training(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) {
    let taps = KERNEL * KERNEL;
    let convolution = Convolution {
        planes: input_planes(geometry, input),
        weight: Weight {
            values: weight,
            rows: geometry.output_channels,
            row: geometry.input_channels * taps,
            channels: geometry.input_channels,
            channel: taps,
            taps: (0..taps).collect(),
        },
        output: geometry.output,
    };
    let finish = Store {
        pivot: output.pivot,
    };
    let sums = convolution.run(geometry.images, &finish, output.values);
    output.sums.copy_from_slice(&sums);
}

/// Weight `[out, in, 3, 3]`; see [`OutputGradient`] and [`InputGradient`].
pub(super) fn input_gradient(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    mut target: InputGradient<'_>,
) {
    let taps = KERNEL * KERNEL;
    let convolution = Convolution {
        planes: Planes {
            source: output_gradient,
            channels: geometry.output_channels,
            size: geometry.output,
            top: KERNEL - 1 - geometry.padding.top,
            left: KERNEL - 1 - geometry.padding.left,
        },
        weight: Weight {
            values: weight,
            rows: geometry.input_channels,
            row: taps,
            channels: geometry.output_channels,
            channel: geometry.input_channels * taps,
            taps: (0..taps).rev().collect(),
        },
        output: geometry.input,
    };
    let finish = Mask {
        input,
        pivot: target.pivot,
        add: target.add,
    };
    let sums = convolution.run(geometry.images, &finish, target.gradient);
    product::add_sums(&mut target, &sums);
}

/// The gradient by the weight, `[out, in, 3, 3]`, overwritten.
pub(super) fn weight_gradient(
    geometry: &Geometry,
    input: Stored<'_>,
    output_gradient: OutputGradient<'_>,
    target: &mut [f32],
) {
    let gradient = Planes {
        source: output_gradient,
        channels: geometry.output_channels,
        size: geometry.output,
        top: 0,
        left: 0,
    };
    let input = input_planes(geometry, input);
    correlation::correlate(&input, &gradient, geometry.images, target);
}

fn input_planes<'a>(geometry: &Geometry, input: Stored<'a>) -> Planes<Stored<'a>> {
    Planes {
        source: input,
        channels: geometry.input_channels,
        size: geometry.input,
        top: geometry.padding.top,
        left: geometry.padding.left,
    }
}

/// Tiles of an output's plane, those at its end not all inside.
fn tiles(output: Size) -> Size {
    Size {
        height: output.height.div_ceil(STEP),
        width: output.width.div_ceil(STEP),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::{self, Case, Random};
    use super::*;

    fn backward(
        geometry: &Geometry,
        input: Stored<'_>,
        weight: &[f32],
        output_gradient: OutputGradient<'_>,
        into: Option<&mut [f32]>,
        target: Option<InputGradient<'_>>,
    ) {
        if let Some(into) = into {
            weight_gradient(geometry, input, output_gradient, into);
        }
        if let Some(target) = target {
            input_gradient(geometry, input, weight, output_gradient, target);
        }
    }

    #[test]
    fn a_training_step_is_the_plain_one_on_any_number_of_threads() {
        let mut random = Random::new(1);
        for (outputs, inputs, largest) in [
            (1, 1, 1),
            (1, 1, 9),
            (5, 4, 20),
            (16, 32, 14),
            (70, 20, 14),
            (20, 66, 7),
            (33, 49, 8),
            (130, 96, 3),
        ] {
            for _ in 0..4 {
                let mut geometry = random.geometry([outputs, inputs, 3, 3], 1, 1, largest);
                geometry.images += random.below(7);
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
