//! The fully connected layer of a training step: a 1x1 convolution of planes of one pixel.

use super::Geometry;
use super::dense;
use super::training::{InputGradient, Output, OutputGradient, Stored, Sums};
use crate::nn::Padding;

/// Number of rows of a batch, and the lengths of a row in and out.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Sizes {
    pub(in crate::nn) images: usize,
    pub(in crate::nn) inputs: usize,
    pub(in crate::nn) outputs: usize,
}

impl Sizes {
    fn geometry(self) -> Geometry {
        let pixel = super::Size {
            height: 1,
            width: 1,
        };
        Geometry {
            images: self.images,
            input_channels: self.inputs,
            output_channels: self.outputs,
            input: pixel,
            output: pixel,
            kernel: pixel,
            stride: 1,
            padding: Padding::default(),
            depthwise: false,
        }
    }
}

/// Scale, shift and pivot that change nothing.
struct Identity {
    ones: Vec<f32>,
    zeros: Vec<f32>,
}

impl Identity {
    fn new(sizes: Sizes) -> Identity {
        let len = sizes.inputs.max(sizes.outputs);
        Identity {
            ones: vec![1.0; len],
            zeros: vec![0.0; len],
        }
    }

    fn stored<'a>(&'a self, values: &'a [f32]) -> Stored<'a> {
        Stored {
            values,
            scale: &self.ones,
            shift: &self.zeros,
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
        }
    }
}

/// `output = input weightᵀ + bias`: input `[n, in]`, weight `[out, in]`, bias `[out]`, output `[n, out]`, overwritten.
pub(in crate::nn) fn forward(
    sizes: Sizes,
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    output: &mut [f32],
) {
    let identity = Identity::new(sizes);
    dense::forward_training(
        &sizes.geometry(),
        identity.stored(input),
        weight,
        Output {
            values: output,
            sums: &mut vec![Sums::default(); sizes.outputs],
            pivot: &identity.zeros,
        },
    );
    for row in output.chunks_exact_mut(sizes.outputs.max(1)) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// The gradients that are written, all overwritten.
pub(in crate::nn) struct Gradients<'a> {
    /// `[out, in]`.
    pub(in crate::nn) weight: &'a mut [f32],
    /// `[out]`.
    pub(in crate::nn) bias: &'a mut [f32],
    /// `[n, in]`.
    pub(in crate::nn) input: Option<&'a mut [f32]>,
}

/// The gradients of [`forward`], given that of its output, `[n, out]`.
pub(in crate::nn) fn backward(
    sizes: Sizes,
    input: &[f32],
    weight: &[f32],
    output_gradient: &[f32],
    gradients: Gradients<'_>,
) {
    let identity = Identity::new(sizes);
    let mut sums = vec![Sums::default(); sizes.inputs];
    dense::backward(
        &sizes.geometry(),
        identity.stored(input),
        weight,
        OutputGradient {
            gradient: output_gradient,
            values: output_gradient,
            by_gradient: &identity.ones,
            by_value: &identity.zeros,
            constant: &identity.zeros,
        },
        Some(gradients.weight),
        gradients.input.map(|gradient| InputGradient {
            gradient,
            add: false,
            sums: &mut sums,
            pivot: &identity.zeros,
        }),
    );
    gradients.bias.fill(0.0);
    for row in output_gradient.chunks_exact(sizes.outputs.max(1)) {
        for (total, value) in gradients.bias.iter_mut().zip(row) {
            *total += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain::Random;
    use super::*;

    #[test]
    fn a_training_step_is_that_of_plain_loops() {
        let mut random = Random::new(1);
        for (images, inputs, outputs) in [(1, 1, 1), (9, 50, 37), (16, 130, 3), (3, 7, 200)] {
            let sizes = Sizes {
                images,
                inputs,
                outputs,
            };
            let (input, weight) = (
                random.values(images * inputs),
                random.values(outputs * inputs),
            );
            let (bias, gradient) = (random.values(outputs), random.values(images * outputs));
            let mut output = vec![f32::NAN; images * outputs];
            forward(sizes, &input, &weight, &bias, &mut output);
            let mut by_weight = vec![f32::NAN; weight.len()];
            let mut by_bias = vec![f32::NAN; outputs];
            let mut by_input = vec![f32::NAN; input.len()];
            let gradients = Gradients {
                weight: &mut by_weight,
                bias: &mut by_bias,
                input: Some(&mut by_input),
            };
            backward(sizes, &input, &weight, &gradient, gradients);

            let near = |ours: f32, terms: &mut dyn Iterator<Item = f32>| {
                let expected: f32 = terms.sum();
                assert!((ours - expected).abs() < 1e-4, "{ours}, not {expected}");
            };
            for (image, row) in output.chunks(outputs).enumerate() {
                for (index, &value) in row.iter().enumerate() {
                    let products =
                        (0..inputs).map(|i| input[image * inputs + i] * weight[index * inputs + i]);
                    near(value, &mut products.chain([bias[index]]));
                }
            }
            for index in 0..outputs {
                let of_output = |image: usize| gradient[image * outputs + index];
                near(by_bias[index], &mut (0..images).map(of_output));
                for i in 0..inputs {
                    let products = (0..images).map(|n| of_output(n) * input[n * inputs + i]);
                    near(by_weight[index * inputs + i], &mut { products });
                }
            }
            for image in 0..images {
                for i in 0..inputs {
                    let products = (0..outputs)
                        .map(|o| gradient[image * outputs + o] * weight[o * inputs + i]);
                    near(by_input[image * inputs + i], &mut { products });
                }
            }
        }
    }
}
