//! The kernels, run by the processor, against the plain loops and the kernels of [`crate::nn::cpu`].
#![allow(clippy::unwrap_used)]

use super::host;
use super::kernels::{InputGradient, Kernels, OutputGradient, Planes, Stored};
use super::machine::{Address, Memory};
use crate::nn::Padding;
use crate::nn::cpu::plain::{self, Case, Random, assert_near};
use crate::nn::cpu::{self, Geometry, Size, training};
use crate::nn::shapes::Shape;

/// Kernels for one layer, and the memory that it was given.
struct Layer {
    kernels: Kernels,
    memory: Vec<Memory>,
}

impl Layer {
    fn new(geometry: &Geometry) -> Layer {
        let shape = |channels, size, geometry| Shape {
            channels,
            size,
            low: 0.0,
            high: 0.0,
            geometry,
        };
        let input = shape(geometry.input_channels, geometry.input, None);
        let output = shape(geometry.output_channels, geometry.output, Some(*geometry));
        Layer {
            kernels: Kernels::new(host::machine(), geometry.images, &[input, output]).unwrap(),
            memory: Vec::new(),
        }
    }

    /// A copy of `values` that lives as long as the layer.
    fn put(&mut self, values: &[f32]) -> Address {
        let memory = host::machine().allocate(values.len()).unwrap();
        host::machine().write(&memory, values).unwrap();
        let address = memory.start();
        self.memory.push(memory);
        address
    }

    /// The values at `address`, which [`Layer::put`] gave.
    fn get(&self, address: Address, into: &mut [f32]) {
        let mut memory = self.memory.iter();
        let memory = memory.find(|memory| memory.start() == address).unwrap();
        host::machine().read(memory, into).unwrap();
    }

    fn stored(&mut self, stored: training::Stored<'_>) -> Stored {
        Stored {
            values: self.put(stored.values),
            scale: self.put(stored.scale),
            shift: self.put(stored.shift),
            low: stored.low,
            high: stored.high,
        }
    }

    /// Fills `target` by what `run` does to its copy; its sums are those of the values that are new.
    fn input_gradient(
        &mut self,
        planes: Planes,
        input: training::Stored<'_>,
        target: training::InputGradient<'_>,
        run: impl FnOnce(&Kernels, InputGradient),
    ) {
        let before = target.gradient.to_vec();
        let into = InputGradient {
            input: self.stored(input),
            gradient: self.put(&before),
            add: i32::from(target.add),
        };
        run(&self.kernels, into);
        self.get(into.gradient, target.gradient);
        let mut new = target.gradient.to_vec();
        if target.add {
            new.iter_mut()
                .zip(before)
                .for_each(|(new, before)| *new -= before);
        }
        let (new, pivot) = (self.put(&new), self.put(target.pivot));
        let sums = self
            .kernels
            .sums(planes, new, into.input.values, pivot)
            .unwrap();
        for (into, (first, second)) in target.sums.iter_mut().zip(sums) {
            into.first += first;
            into.second += second;
        }
    }
}

fn planes(images: usize, channels: usize, size: Size) -> Planes {
    Planes {
        images,
        channels,
        area: size.area(),
    }
}

fn forward(
    geometry: &Geometry,
    input: training::Stored<'_>,
    weight: &[f32],
    output: training::Output<'_>,
) {
    let mut layer = Layer::new(geometry);
    let (input, weight) = (layer.stored(input), layer.put(weight));
    let (values, pivot) = (layer.put(output.values), layer.put(output.pivot));
    layer
        .kernels
        .forward(geometry, input, weight, values)
        .unwrap();
    layer.get(values, output.values);
    let planes = planes(geometry.images, geometry.output_channels, geometry.output);
    let sums = layer
        .kernels
        .sums(planes, Address::NONE, values, pivot)
        .unwrap();
    for (into, (first, second)) in output.sums.iter_mut().zip(sums) {
        *into = training::Sums { first, second };
    }
}

fn backward(
    geometry: &Geometry,
    input: training::Stored<'_>,
    weight: &[f32],
    gradient: training::OutputGradient<'_>,
    weight_gradient: Option<&mut [f32]>,
    input_gradient: Option<training::InputGradient<'_>>,
) {
    let mut layer = Layer::new(geometry);
    let weight = layer.put(weight);
    let gradient = OutputGradient {
        gradient: layer.put(gradient.gradient),
        values: layer.put(gradient.values),
        by_gradient: layer.put(gradient.by_gradient),
        by_value: layer.put(gradient.by_value),
        constant: layer.put(gradient.constant),
    };
    if let Some(into) = weight_gradient {
        let (stored, address) = (layer.stored(input), layer.put(into));
        layer
            .kernels
            .weight_gradient(geometry, stored, gradient, address)
            .unwrap();
        layer.get(address, into);
    }
    if let Some(target) = input_gradient {
        let planes = planes(geometry.images, geometry.input_channels, geometry.input);
        layer.input_gradient(planes, input, target, |kernels, into| {
            kernels
                .input_gradient(geometry, gradient, weight, into)
                .unwrap();
        });
    }
}

/// Convolutions of any padding, on images of up to `largest` pixels a side.
fn assert_convolution(weight: [usize; 4], stride: usize, groups: usize, largest: usize) {
    let mut random = Random::new(7);
    for _ in 0..3 {
        let case = Case::new(
            random.geometry(weight, stride, groups, largest),
            &mut random,
        );
        let expected = case.run(plain::forward, plain::backward);
        case.run(forward, backward)
            .assert_near(&expected, &format!("{:?}", case.geometry));
    }
}

#[test]
fn a_depthwise_step_is_the_plain_one() {
    for side in [3, 5, 7] {
        for stride in [1, 2, 3] {
            assert_convolution([6, 1, side, side], stride, 6, 20);
        }
    }
    // More than one part of a sum.
    assert_convolution([2, 1, 3, 3], 1, 2, 120);
}

#[test]
fn a_dense_step_is_the_plain_one() {
    for (weight, stride, largest) in [
        ([1, 1, 1, 1], 1, 1),
        ([70, 33, 1, 1], 1, 14),
        ([5, 4, 1, 1], 2, 9),
        ([32, 3, 3, 3], 2, 25),
        ([9, 3, 7, 7], 2, 30),
        ([17, 9, 3, 3], 1, 14),
        ([8, 6, 1, 7], 1, 17),
        ([6, 7, 5, 3], 3, 20),
        ([3, 2, 2, 2], 3, 20),
        ([4, 3, 1, 1], 1, 50),
    ] {
        assert_convolution(weight, stride, 1, largest);
    }
}

/// What a layer without weights reads, at random.
struct Reading {
    lists: [Vec<f32>; 4],
    bounds: (f32, f32),
}

impl Reading {
    fn new(random: &mut Random, planes: Planes) -> Reading {
        let Planes {
            images,
            channels,
            area,
        } = planes;
        let bounds = [(f32::NEG_INFINITY, f32::INFINITY), (0.0, 6.0), (-0.2, 0.3)];
        Reading {
            lists: [images * channels * area, channels, channels, channels]
                .map(|len| random.values(len)),
            bounds: bounds[random.below(3)],
        }
    }

    fn stored(&self) -> training::Stored<'_> {
        let [values, scale, shift, _] = &self.lists;
        training::Stored {
            values,
            scale,
            shift,
            low: self.bounds.0,
            high: self.bounds.1,
        }
    }

    /// A gradient by it as `run` leaves it, and its sums, when what was there stays and when it does not.
    fn gradients(&self, mut run: impl FnMut(training::InputGradient<'_>)) -> Vec<f64> {
        let [values, _, _, pivot] = &self.lists;
        let mut all = Vec::new();
        for add in [false, true] {
            let mut gradient = values.iter().rev().copied().collect::<Vec<f32>>();
            let mut sums = vec![training::Sums::default(); pivot.len()];
            run(training::InputGradient {
                gradient: &mut gradient,
                add,
                sums: &mut sums,
                pivot,
            });
            all.extend(gradient.iter().copied().map(f64::from));
            all.extend(sums.iter().flat_map(|sums| [sums.first, sums.second]));
        }
        all
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn a_maximum_is_the_processors() {
    let mut random = Random::new(31);
    for _ in 0..20 {
        let channels = 1 + random.below(20);
        let (kernel, stride) = (1 + random.below(4), 1 + random.below(3));
        let grouped = random.geometry([channels, 1, kernel, kernel], stride, channels, 20);
        let geometry = Geometry {
            depthwise: false,
            ..grouped
        };
        let planes = planes(geometry.images, channels, geometry.input);
        let reading = Reading::new(&mut random, planes);
        let len = geometry.images * channels * geometry.output.area();
        let gradient = random.values(len);
        let (mut expected, mut taps) = (vec![0.0; len], vec![0; len]);
        cpu::pool::max_forward(&geometry, reading.stored(), &mut expected, &mut taps).unwrap();

        let mut layer = Layer::new(&geometry);
        let (input, output) = (layer.stored(reading.stored()), layer.put(&vec![0.0; len]));
        let our_taps = layer.put(&vec![0.0; len.div_ceil(4)]);
        layer
            .kernels
            .maximum(&geometry, input, output, our_taps)
            .unwrap();
        let mut values = vec![0.0; len];
        layer.get(output, &mut values);
        assert_eq!(values, expected);
        let by_cpu = reading.gradients(|target| {
            cpu::pool::max_backward(&geometry, reading.stored(), &taps, &gradient, target).unwrap();
        });
        let gradient = layer.put(&gradient);
        let by_kernel = reading.gradients(|target| {
            layer.input_gradient(planes, reading.stored(), target, |kernels, into| {
                kernels
                    .maximum_backward(&geometry, gradient, our_taps, into)
                    .unwrap();
            });
        });
        assert_near("maximum", &by_kernel, &by_cpu);
    }
}

/// A layer that keeps its planes, for their memory.
fn same(planes: Planes) -> Layer {
    let size = Size {
        height: 1,
        width: planes.area,
    };
    let geometry = Geometry {
        images: planes.images,
        input_channels: planes.channels,
        output_channels: planes.channels,
        input: size,
        output: size,
        kernel: Size {
            height: 1,
            width: 1,
        },
        stride: 1,
        padding: Padding::default(),
        depthwise: false,
    };
    Layer::new(&geometry)
}

fn some_planes(random: &mut Random) -> Planes {
    Planes {
        images: 1 + random.below(4),
        channels: 1 + random.below(50),
        area: 1 + random.below(90),
    }
}

#[test]
fn a_mean_is_the_processors() {
    let mut random = Random::new(32);
    for _ in 0..20 {
        let planes = some_planes(&mut random);
        let reading = Reading::new(&mut random, planes);
        let len = planes.images * planes.channels;
        let gradient = random.values(len);
        let mut expected = vec![0.0; len];
        cpu::pool::average_forward(planes.area, reading.stored(), &mut expected).unwrap();
        let factors = random.values(len);
        let times = |values: &[f32]| -> Vec<f32> {
            let pairs = values.iter().zip(&factors);
            pairs.map(|(value, factor)| value * factor).collect()
        };
        let (expected, kept_gradient) = (times(&expected), times(&gradient));

        let mut layer = same(planes);
        let (input, output) = (layer.stored(reading.stored()), layer.put(&vec![0.0; len]));
        let kept = layer.put(&factors);
        layer.kernels.average(planes, input, kept, output).unwrap();
        let mut values = vec![0.0; len];
        layer.get(output, &mut values);
        assert_near("means", &wide(&values), &wide(&expected));
        let by_cpu = reading.gradients(|target| {
            cpu::pool::average_backward(planes.area, reading.stored(), &kept_gradient, target)
                .unwrap();
        });
        let gradient = layer.put(&gradient);
        let by_kernel = reading.gradients(|target| {
            layer.input_gradient(planes, reading.stored(), target, |kernels, into| {
                kernels
                    .average_backward(planes, kept, gradient, into)
                    .unwrap();
            });
        });
        assert_near("gradient of means", &by_kernel, &by_cpu);
    }
}

#[test]
fn a_sum_is_the_processors() {
    let mut random = Random::new(33);
    for _ in 0..20 {
        let planes = some_planes(&mut random);
        let [left, right] = [0, 1].map(|_| Reading::new(&mut random, planes));
        let bounds = left.bounds;
        let len = planes.images * planes.channels * planes.area;
        let gradient = random.values(len);
        let mut expected = vec![0.0; len];
        let sizes = (planes.channels, planes.area);
        let inputs = (left.stored(), right.stored());
        let factors = random.values(planes.images);
        let (one, two) = inputs;
        cpu::add::forward(sizes, one, two, bounds, &factors, &mut expected).unwrap();

        let mut layer = same(planes);
        let (one, two) = (layer.stored(inputs.0), layer.stored(inputs.1));
        let output = layer.put(&vec![0.0; len]);
        let kept = layer.put(&factors);
        let kernels = &layer.kernels;
        kernels
            .add(planes, (one, two), bounds, kept, output)
            .unwrap();
        let mut values = vec![0.0; len];
        layer.get(output, &mut values);
        assert_near("sum", &wide(&values), &wide(&expected));
        let by_cpu = left.gradients(|target| {
            let (left, right) = ((inputs.0, Some(target)), (inputs.1, None));
            let (kept, sum) = (&factors[..], &values[..]);
            cpu::add::backward(sizes, bounds, kept, sum, &gradient, left, right).unwrap();
        });
        let gradient = layer.put(&gradient);
        let by_kernel = left.gradients(|target| {
            layer.input_gradient(planes, inputs.0, target, |kernels, into| {
                kernels
                    .add_backward(planes, bounds, kept, (output, gradient), into)
                    .unwrap();
            });
        });
        assert_near("gradient of a sum", &by_kernel, &by_cpu);
    }
}
