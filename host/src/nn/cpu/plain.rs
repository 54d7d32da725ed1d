//! What a convolution computes in a training step, written as one loop over every product: the tests' specification.
#![allow(clippy::unwrap_used)]

use super::Geometry;
use super::training::{InputGradient, Output, OutputGradient, Stored, Sums};
use crate::nn::Padding;

/// Calls `visit` with the flat indices of (output, input, weight) of every product that the convolution sums, padding left
/// out.
fn products(geometry: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let Geometry {
        input,
        output,
        kernel,
        stride,
        padding,
        ..
    } = *geometry;
    for image in 0..geometry.images {
        for output_channel in 0..geometry.output_channels {
            let input_channels = if geometry.depthwise {
                output_channel..output_channel + 1
            } else {
                0..geometry.input_channels
            };
            let group_channels = input_channels.len();
            for (group_channel, input_channel) in input_channels.enumerate() {
                let output_plane = image * geometry.output_channels + output_channel;
                let input_plane = image * geometry.input_channels + input_channel;
                let weight_plane = output_channel * group_channels + group_channel;
                for pixel in 0..output.area() {
                    for tap in 0..kernel.area() {
                        let y = pixel / output.width * stride + tap / kernel.width;
                        let x = pixel % output.width * stride + tap % kernel.width;
                        if let (Some(y), Some(x)) =
                            (y.checked_sub(padding.top), x.checked_sub(padding.left))
                            && y < input.height
                            && x < input.width
                        {
                            visit(
                                output_plane * output.area() + pixel,
                                input_plane * input.area() + y * input.width + x,
                                weight_plane * kernel.area() + tap,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// See [`Output`].
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) {
    let read = read(geometry, input);
    let mut values = vec![0.0; output.values.len()];
    products(geometry, |to, from, tap| {
        values[to] += read[from] * f64::from(weight[tap]);
    });
    output.sums.fill(Sums::default());
    for (index, (stored, value)) in output.values.iter_mut().zip(values).enumerate() {
        let channel = index / geometry.output.area() % geometry.output_channels;
        let difference = value - f64::from(output.pivot[channel]);
        output.sums[channel].first += difference;
        output.sums[channel].second += difference * difference;
        *stored = value as f32;
    }
}

/// See [`OutputGradient`] and [`InputGradient`]; `weight_gradient` is overwritten.
pub(in crate::nn) fn backward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<InputGradient<'_>>,
) {
    let read = read(geometry, input);
    let gradient: Vec<f64> = (0..output_gradient.gradient.len())
        .map(|index| {
            let channel = index / geometry.output.area() % geometry.output_channels;
            f64::from(output_gradient.gradient[index])
                * f64::from(output_gradient.by_gradient[channel])
                + f64::from(output_gradient.values[index])
                    * f64::from(output_gradient.by_value[channel])
                + f64::from(output_gradient.constant[channel])
        })
        .collect();
    if let Some(weight_gradient) = weight_gradient {
        let mut sums = vec![0.0; weight_gradient.len()];
        products(geometry, |to, from, tap| {
            sums[tap] += gradient[to] * read[from];
        });
        for (value, sum) in weight_gradient.iter_mut().zip(sums) {
            *value = sum as f32;
        }
    }
    if let Some(target) = input_gradient {
        let mut sums = vec![0.0; target.gradient.len()];
        products(geometry, |to, from, tap| {
            sums[from] += gradient[to] * f64::from(weight[tap]);
        });
        for (index, (value, sum)) in target.gradient.iter_mut().zip(sums).enumerate() {
            let channel = index / geometry.input.area() % geometry.input_channels;
            let passes = f64::from(input.low) < read[index] && read[index] < f64::from(input.high);
            let new = if passes { sum } else { 0.0 };
            let difference = f64::from(input.values[index]) - f64::from(target.pivot[channel]);
            target.sums[channel].first += new;
            target.sums[channel].second += new * difference;
            *value = if target.add {
                *value + new as f32
            } else {
                new as f32
            };
        }
    }
}

/// The input as read, rounded once as the kernels do, so that the clamp lets through the same values.
fn read(geometry: &Geometry, input: Stored<'_>) -> Vec<f64> {
    let area = geometry.input.area();
    let channels = geometry.input_channels;
    input
        .values
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let channel = index / area % channels;
            let value = value.mul_add(input.scale[channel], input.shift[channel]);
            f64::from(value.max(input.low).min(input.high))
        })
        .collect()
}

/// Values in -1 to 1, and choices, the same for the same seed.
pub(in crate::nn) struct Random(u64);

impl Random {
    pub(in crate::nn) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 40
    }

    pub(in crate::nn) fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    pub(in crate::nn) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| self.next() as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    fn padding(&mut self, most: usize) -> Padding {
        Padding {
            top: self.below(most + 1),
            left: self.below(most + 1),
            bottom: self.below(most + 1),
            right: self.below(most + 1),
        }
    }

    /// A convolution with this weight shape, stride and number of groups, on a few images of any size that it fits, padded
    /// by less than its kernel.
    pub(in crate::nn) fn geometry(
        &mut self,
        weight: [usize; 4],
        stride: usize,
        groups: usize,
        largest: usize,
    ) -> Geometry {
        let [outputs, group_channels, height, width] = weight;
        loop {
            let padding = self.padding(height.max(width) - 1);
            let input = (
                1 + self.below(5),
                group_channels * groups,
                1 + self.below(largest),
                1 + self.below(largest),
            );
            let weight = (outputs, group_channels, height, width);
            if let Ok(geometry) = Geometry::new(input, weight, stride, padding, groups) {
                return geometry;
            }
        }
    }
}

/// All that a training step of one convolution reads, at random.
pub(in crate::nn) struct Case {
    pub(in crate::nn) geometry: Geometry,
    input: [Vec<f32>; 3],
    weight: Vec<f32>,
    output_gradient: [Vec<f32>; 5],
    output_pivot: Vec<f32>,
    input_pivot: Vec<f32>,
    input_gradient: Vec<f32>,
    bounds: (f32, f32),
}

/// What it writes.
#[derive(Debug, PartialEq)]
pub(in crate::nn) struct Results {
    output: Vec<f32>,
    output_sums: Vec<Sums>,
    weight_gradient: Vec<f32>,
    input_gradient: Vec<f32>,
    input_sums: Vec<Sums>,
    /// The input's gradient, added to what was there.
    added_gradient: Vec<f32>,
}

impl Case {
    pub(in crate::nn) fn new(geometry: Geometry, random: &mut Random) -> Case {
        let (inputs, outputs) = (geometry.input_channels, geometry.output_channels);
        let input_len = geometry.images * inputs * geometry.input.area();
        let output_len = geometry.images * outputs * geometry.output.area();
        let weight_len = if geometry.depthwise {
            outputs * geometry.kernel.area()
        } else {
            outputs * inputs * geometry.kernel.area()
        };
        let bounds = [
            (f32::NEG_INFINITY, f32::INFINITY),
            (0.0, f32::INFINITY),
            (0.0, 0.6),
        ][random.below(3)];
        Case {
            input: [input_len, inputs, inputs].map(|len| random.values(len)),
            weight: random.values(weight_len),
            output_gradient: [output_len, output_len, outputs, outputs, outputs]
                .map(|len| random.values(len)),
            output_pivot: random.values(outputs),
            input_pivot: random.values(inputs),
            input_gradient: random.values(input_len),
            bounds,
            geometry,
        }
    }

    /// A whole step by the given kernels.
    pub(in crate::nn) fn run(
        &self,
        forward: impl Fn(&Geometry, Stored<'_>, &[f32], Output<'_>),
        backward: impl Fn(
            &Geometry,
            Stored<'_>,
            &[f32],
            OutputGradient<'_>,
            Option<&mut [f32]>,
            Option<InputGradient<'_>>,
        ),
    ) -> Results {
        let [values, scale, shift] = &self.input;
        let (low, high) = self.bounds;
        let input = Stored {
            values,
            scale,
            shift,
            low,
            high,
        };
        let [gradient, values, by_gradient, by_value, constant] = &self.output_gradient;
        let output_gradient = OutputGradient {
            gradient,
            values,
            by_gradient,
            by_value,
            constant,
        };
        let unwritten = Sums {
            first: f64::NAN,
            second: f64::NAN,
        };
        let mut results = Results {
            output: vec![f32::NAN; values.len()],
            output_sums: vec![unwritten; self.output_pivot.len()],
            weight_gradient: vec![f32::NAN; self.weight.len()],
            input_gradient: vec![f32::NAN; self.input_gradient.len()],
            input_sums: vec![Sums::default(); self.input_pivot.len()],
            added_gradient: self.input_gradient.clone(),
        };
        let output = Output {
            values: &mut results.output,
            sums: &mut results.output_sums,
            pivot: &self.output_pivot,
        };
        forward(&self.geometry, input, &self.weight, output);
        backward(
            &self.geometry,
            input,
            &self.weight,
            output_gradient,
            Some(&mut results.weight_gradient),
            Some(InputGradient {
                gradient: &mut results.input_gradient,
                add: false,
                sums: &mut results.input_sums,
                pivot: &self.input_pivot,
            }),
        );
        backward(
            &self.geometry,
            input,
            &self.weight,
            output_gradient,
            None,
            Some(InputGradient {
                gradient: &mut results.added_gradient,
                add: true,
                sums: &mut results.input_sums,
                pivot: &self.input_pivot,
            }),
        );
        results
    }
}

impl Results {
    /// Fails where they are further apart than rounding explains.
    pub(in crate::nn) fn assert_near(&self, expected: &Results, what: &str) {
        let near = |name: &str, ours: &[f32], theirs: &[f32]| {
            let ours: Vec<f64> = ours.iter().copied().map(f64::from).collect();
            let theirs: Vec<f64> = theirs.iter().copied().map(f64::from).collect();
            assert_near(&format!("{name} of {what}"), &ours, &theirs);
        };
        near("output", &self.output, &expected.output);
        near(
            "weight gradient",
            &self.weight_gradient,
            &expected.weight_gradient,
        );
        near(
            "input gradient",
            &self.input_gradient,
            &expected.input_gradient,
        );
        near(
            "added gradient",
            &self.added_gradient,
            &expected.added_gradient,
        );
        for (name, ours, theirs) in [
            ("output", &self.output_sums, &expected.output_sums),
            ("input", &self.input_sums, &expected.input_sums),
        ] {
            let part = |sums: &[Sums], part: fn(&Sums) -> f64| -> Vec<f64> {
                sums.iter().map(part).collect()
            };
            for (order, get) in [
                ("first", (|sums| sums.first) as fn(&Sums) -> f64),
                ("second", |sums| sums.second),
            ] {
                assert_near(
                    &format!("{order} sums of the {name} of {what}"),
                    &part(ours, get),
                    &part(theirs, get),
                );
            }
        }
    }
}

/// Every value within 1e-4 of the largest.
pub(in crate::nn) fn assert_near(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs
        .iter()
        .fold(1.0_f64, |largest, value| largest.max(value.abs()));
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (ours - theirs).abs() <= 1e-4 * largest,
            "{what} at {index}: {ours}, expected {theirs} (largest {largest})"
        );
    }
}

/// Runs `job` on that many threads.
pub(in crate::nn) fn on_threads<T: Send>(threads: usize, job: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(job)
}

/// Values that are read as they are stored.
fn unchanged<'a>(values: &'a [f32], scale: &'a [f32], shift: &'a [f32]) -> Stored<'a> {
    Stored {
        values,
        scale,
        shift,
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    }
}

/// The gradients against differences of the output: a loss of `sum(output * gradient)` is linear in the weight, and in an
/// input that no clamp bends.
#[test]
fn gradients_are_those_of_the_output() {
    let mut random = Random::new(1);
    for (weight, stride, groups) in [([3, 2, 3, 2], 2, 1), ([4, 1, 3, 3], 1, 4)] {
        let geometry = random.geometry(weight, stride, groups, 7);
        let (inputs, outputs) = (geometry.input_channels, geometry.output_channels);
        let input_len = geometry.images * inputs * geometry.input.area();
        let output_len = geometry.images * outputs * geometry.output.area();
        let (values, gradient) = (random.values(input_len), random.values(output_len));
        let weight = random.values(weight.iter().product());
        let (ones, zeros) = (vec![1.0; 8], vec![0.0; 8]);
        let loss = |values: &[f32], weight: &[f32]| -> f64 {
            let mut output = vec![0.0; output_len];
            let mut sums = vec![Sums::default(); outputs];
            let output_to = Output {
                values: &mut output,
                sums: &mut sums,
                pivot: &zeros[..outputs],
            };
            let input = unchanged(values, &ones[..inputs], &zeros[..inputs]);
            forward(&geometry, input, weight, output_to);
            let products = output.iter().zip(&gradient);
            products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut weight_gradient = vec![0.0; weight.len()];
        let mut input_gradient = vec![0.0; input_len];
        let mut sums = vec![Sums::default(); inputs];
        backward(
            &geometry,
            unchanged(&values, &ones[..inputs], &zeros[..inputs]),
            &weight,
            OutputGradient {
                gradient: &gradient,
                values: &gradient,
                by_gradient: &ones[..outputs],
                by_value: &zeros[..outputs],
                constant: &zeros[..outputs],
            },
            Some(&mut weight_gradient),
            Some(InputGradient {
                gradient: &mut input_gradient,
                add: false,
                sums: &mut sums,
                pivot: &zeros[..inputs],
            }),
        );
        let base = loss(&values, &weight);
        for index in 0..weight.len() {
            let mut moved = weight.clone();
            moved[index] += 1.0;
            let difference = loss(&values, &moved) - base;
            assert!((difference - f64::from(weight_gradient[index])).abs() < 1e-3);
        }
        for index in 0..input_len {
            let mut moved = values.clone();
            moved[index] += 1.0;
            let difference = loss(&moved, &weight) - base;
            assert!((difference - f64::from(input_gradient[index])).abs() < 1e-3);
        }
    }
}
