//! Each operator by itself: on every instruction set of this processor the same as a naive loop, whole and in parts, with
//! nothing written out of place.

use std::fmt::Debug;

use graft_kernels::{
    AlignedBytes, ConcatInput, ConvParameters, Invalid, Isa, Operator, Padding, Quantization,
    SLACK, Window,
};

use crate::random::{Random, cases};

/// An input with slack of any content behind it.
fn slackened(random: &mut Random, input: &[u8]) -> Vec<u8> {
    let mut slackened = input.to_vec();
    slackened.extend((0..SLACK).map(|_| random.next() as u8));
    slackened
}

/// Runs what `build` makes for every instruction set, whole and in parts, and compares its output with `expected`.
fn same_everywhere<T: Copy + PartialEq + Debug>(
    random: &mut Random,
    what: &str,
    inputs: &[&[u8]],
    expected: &[T],
    build: impl Fn(Isa) -> Result<Operator<T>, Invalid>,
) {
    for isa in Isa::available() {
        let what = format!("{what} on {}", isa.name());
        let operator = build(isa).unwrap();
        assert_eq!(operator.output_len(), expected.len());
        let inputs: Vec<_> = inputs.iter().map(|i| slackened(random, i)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(|i| &i[..]).collect();
        let offset = random.below(64);
        let mut scratch = AlignedBytes::new(operator.scratch_len() + offset);
        for byte in &mut scratch[..] {
            *byte = random.next() as u8;
        }
        let scratch = &mut scratch[offset..];

        let first = expected[0];
        let mut output = vec![first; expected.len() + 2 * SLACK];
        let inner = SLACK..SLACK + expected.len();
        operator
            .run(&inputs, &mut output[inner.clone()], scratch)
            .unwrap();
        for (i, (found, right)) in output[inner.clone()].iter().zip(expected).enumerate() {
            assert!(found == right, "{what}: {found:?} for {right:?} at {i}");
        }
        let mut outside = output[..SLACK].iter().chain(&output[inner.end..]);
        assert!(outside.all(|x| *x == first), "{what} wrote out of place");

        let units = operator.units();
        let parts = random.range(1, 5);
        let mut ranges = operator.split(parts);
        assert!(ranges.len() <= parts && ranges.iter().all(|r| !r.is_empty()));
        if random.below(2) == 0 {
            let (a, b) = (random.below(units + 1), random.below(units + 1));
            ranges = vec![0..a.min(b), a.min(b)..a.max(b), a.max(b)..units];
        }
        let mut joined = vec![];
        for range in ranges {
            let mut part = vec![first; operator.output_range(range.clone()).len()];
            operator
                .run_part(range, &inputs, &mut part, scratch)
                .unwrap();
            joined.extend(part);
        }
        assert!(joined == expected, "{what}: parts differ from the whole");
    }
}

fn requantize(sum: i32, scale: f32, zero_point: u8) -> u8 {
    ((sum as f32 * scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0) as u8
}

/// A random geometry.
struct Case {
    input: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
}

impl Case {
    fn random(random: &mut Random) -> Case {
        let mut kernel = [random.range(1, 5), random.range(1, 5)];
        let mut stride = [random.range(1, 3), random.range(1, 3)];
        match random.below(4) {
            0 => {}
            1 => kernel = *random.pick(&[[1, 7], [7, 1], [1, 1], [7, 7]]),
            _ => {
                kernel = *random.pick(&[[3, 3], [5, 5]]);
                stride = *random.pick(&[[1, 1], [2, 2]]);
            }
        }
        let mut padding = [0; 4];
        for (i, p) in padding.iter_mut().enumerate() {
            *p = random.below(kernel[i % 2]);
        }
        let input = [
            kernel[0] + random.size(40) - 1,
            kernel[1] + random.size(40) - 1,
            random.size(150),
        ];
        Case {
            input,
            kernel,
            stride,
            padding,
        }
    }

    fn window(&self) -> Window {
        Window::new(self.input, self.kernel, self.stride, self.padding).unwrap()
    }

    fn output(&self) -> [usize; 2] {
        std::array::from_fn(|i| {
            (self.input[i] + self.padding[i] + self.padding[i + 2] - self.kernel[i])
                / self.stride[i]
                + 1
        })
    }

    /// The byte under tap (dy, dx) of output position (y, x), or none in the padding.
    fn at(&self, input: &[u8], [y, x]: [usize; 2], [dy, dx]: [usize; 2], c: usize) -> Option<u8> {
        let y = (y * self.stride[0] + dy).checked_sub(self.padding[0])?;
        let x = (x * self.stride[1] + dx).checked_sub(self.padding[1])?;
        (y < self.input[0] && x < self.input[1])
            .then(|| input[(y * self.input[1] + x) * self.input[2] + c])
    }

    fn positions(&self) -> impl Iterator<Item = [usize; 2]> {
        let [height, width] = self.output();
        (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
    }

    fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [height, width] = self.kernel;
        (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
    }
}

#[test]
fn dense_convolution() {
    cases(0, 400, |random| {
        let mut case = Case::random(random);
        if random.below(3) == 0 {
            case = Case {
                kernel: [1, 1],
                stride: [1, 1],
                padding: [0; 4],
                ..case
            };
        }
        let channels = case.input[2];
        let taps = case.kernel[0] * case.kernel[1];
        let [height, width] = case.output();
        // Keeps the naive loop below a few million products.
        let most = (4_000_000 / (height * width * channels * taps)).clamp(1, 100);
        let n = random.range(1, most);
        let input = random.bytes(case.input.iter().product());
        let weights = random.weights(n * channels * taps);
        let bias = random.biases(n);
        let weight_scales: Vec<f32> = (0..n).map(|_| random.scale(0.01)).collect();
        let (from, to) = (random.quantization(0.02), random.quantization(0.2));
        let parameters = ConvParameters {
            weights: &weights,
            bias: &bias,
            weight_scales: &weight_scales,
            input: from,
            output: to,
        };
        let mut expected = vec![];
        for position in case.positions() {
            for o in 0..n {
                let mut sum = bias[o];
                for (t, tap) in case.taps().enumerate() {
                    for c in 0..channels {
                        let x = case.at(&input, position, tap, c).unwrap_or(from.zero_point);
                        sum += (i32::from(x) - i32::from(from.zero_point))
                            * i32::from(weights[(o * channels + c) * taps + t]);
                    }
                }
                let scale = (from.scale * weight_scales[o]) / to.scale;
                expected.push(requantize(sum, scale, to.zero_point));
            }
        }
        same_everywhere(random, "conv", &[&input], &expected, |isa| {
            Operator::conv(isa, case.window(), n, parameters)
        });
    });
}

#[test]
fn depthwise_convolution() {
    cases(1, 400, |random| {
        let case = Case::random(random);
        let channels = case.input[2];
        let taps = case.kernel[0] * case.kernel[1];
        let input = random.bytes(case.input.iter().product());
        let weights = random.weights(channels * taps);
        let bias = random.biases(channels);
        let weight_scales: Vec<f32> = (0..channels).map(|_| random.scale(0.01)).collect();
        let (from, to) = (random.quantization(0.02), random.quantization(0.1));
        let parameters = ConvParameters {
            weights: &weights,
            bias: &bias,
            weight_scales: &weight_scales,
            input: from,
            output: to,
        };
        let mut expected = vec![];
        for position in case.positions() {
            for c in 0..channels {
                let mut sum = bias[c];
                for (t, tap) in case.taps().enumerate() {
                    let x = case.at(&input, position, tap, c).unwrap_or(from.zero_point);
                    sum += (i32::from(x) - i32::from(from.zero_point))
                        * i32::from(weights[c * taps + t]);
                }
                let scale = (from.scale * weight_scales[c]) / to.scale;
                expected.push(requantize(sum, scale, to.zero_point));
            }
        }
        let what = format!(
            "depthwise {:?} {:?} {:?} {:?}",
            case.input, case.kernel, case.stride, case.padding
        );
        same_everywhere(random, &what, &[&input], &expected, |isa| {
            Operator::depthwise(isa, case.window(), parameters)
        });
    });
}

/// Sums beyond 2^24, where an f32 accumulator would round.
#[test]
fn sums_are_exact_at_the_extremes() {
    let mut random = Random(0);
    let k = 5000;
    let window = Window::new([2, 1, k], [1, 1], [1, 1], [0; 4]).unwrap();
    for (x, w) in [(255u8, 127i8), (255, -128), (0, -128)] {
        let mut input = vec![x; 2 * k];
        input[0] = 254;
        let weights = vec![w; k];
        let zero_point = 1u8;
        let sum = |first: i32| {
            (first - 1) * i32::from(w) + (k as i32 - 1) * (i32::from(x) - 1) * i32::from(w)
        };
        let expected = [(sum(254) + 7) as f32];
        same_everywhere(&mut random, "linear", &[&input[..k]], &expected, |isa| {
            Operator::linear(isa, k, &weights, &[7], zero_point, &[1.0])
        });

        let scale = 1.0 / 1_400_000.0;
        let parameters = ConvParameters {
            weights: &weights,
            bias: &[],
            weight_scales: &[scale],
            input: quantization(1.0, zero_point),
            output: quantization(1.0, 100),
        };
        let expected = [sum(254), sum(i32::from(x))].map(|s| requantize(s, scale, 100));
        same_everywhere(&mut random, "conv", &[&input], &expected, |isa| {
            Operator::conv(isa, window, 1, parameters)
        });
    }
}

/// Scales at which requantization rounds ties, and at which it leaves every integer type.
#[test]
fn requantization_rounds_ties_to_even_and_never_wraps() {
    let mut random = Random(0);
    let window = Window::new([16, 16, 1], [1, 1], [1, 1], [0; 4]).unwrap();
    let input: Vec<u8> = (0..=255).collect();
    for scale in [0.5, 0.25, 1.5, 1e-30, 1e4, 1e8, 1e30] {
        for weight in [1i8, -1, 127] {
            for zero_point in [0u8, 3, 128, 255] {
                let parameters = ConvParameters {
                    weights: &[weight],
                    bias: &[],
                    weight_scales: &[scale],
                    input: quantization(1.0, 77),
                    output: quantization(1.0, zero_point),
                };
                let expected: Vec<u8> = input
                    .iter()
                    .map(|x| {
                        requantize((i32::from(*x) - 77) * i32::from(weight), scale, zero_point)
                    })
                    .collect();
                same_everywhere(&mut random, "conv", &[&input], &expected, |isa| {
                    Operator::conv(isa, window, 1, parameters)
                });
                same_everywhere(&mut random, "depthwise", &[&input], &expected, |isa| {
                    Operator::depthwise(isa, window, parameters)
                });
            }
        }
    }
}

#[test]
fn linear_layer() {
    cases(2, 100, |random| {
        let (k, n) = (random.size(1300), random.size(200));
        let input = random.bytes(k);
        let weights = random.weights(k * n);
        let bias = random.biases(n);
        let scales: Vec<f32> = (0..n).map(|_| random.scale(0.001)).collect();
        let zero_point = random.next() as u8;
        let expected: Vec<f32> = (0..n)
            .map(|c| {
                let products = (0..k).map(|i| {
                    (i32::from(input[i]) - i32::from(zero_point)) * i32::from(weights[i * n + c])
                });
                (bias[c] + products.sum::<i32>()) as f32 * scales[c]
            })
            .collect();
        same_everywhere(random, "linear", &[&input], &expected, |isa| {
            Operator::linear(isa, k, &weights, &bias, zero_point, &scales)
        });
    });
}

/// All 65,536 pairs of bytes, on random scales, in a random order and number.
fn pairs(random: &mut Random) -> [Vec<u8>; 2] {
    let step = random.below(1 << 15) as u32 * 2 + 1;
    let len = 1 + (1 << 16) / random.size(60);
    let pair = (0..len as u32).map(|i| i.wrapping_mul(step));
    [
        pair.clone().map(|i| (i >> 8) as u8).collect(),
        pair.map(|i| i as u8).collect(),
    ]
}

#[test]
fn residual_add() {
    cases(3, 50, |random| {
        let [a, b] = pairs(random);
        let (qa, qb, qy) = (
            random.quantization(0.05),
            random.quantization(0.05),
            random.quantization(0.05),
        );
        let (ra, rb) = (qa.scale / qy.scale, qb.scale / qy.scale);
        let inner = ra.mul_add(f32::from(qa.zero_point), rb * f32::from(qb.zero_point));
        let fix = f32::from(qy.zero_point) - inner;
        let sum = |(a, b): (&u8, &u8)| {
            f32::from(*a)
                .mul_add(ra, f32::from(*b).mul_add(rb, fix))
                .round_ties_even()
                .clamp(0.0, 255.0) as u8
        };
        let expected: Vec<u8> = a.iter().zip(&b).map(sum).collect();
        same_everywhere(random, "add", &[&a, &b], &expected, |isa| {
            Operator::add(isa, a.len(), qa, qb, qy)
        });
    });
}

#[test]
fn products() {
    cases(4, 50, |random| {
        let [a, b] = pairs(random);
        let (qa, qb, qy) = (
            random.quantization(0.05),
            random.quantization(0.05),
            random.quantization(0.05),
        );
        let scale = (qa.scale * qb.scale) / qy.scale;
        let product = |a: u8, b: u8| {
            let (a, b) = (i32::from(a), i32::from(b));
            let product = (a - i32::from(qa.zero_point)) * (b - i32::from(qb.zero_point));
            requantize(product, scale, qy.zero_point)
        };
        let expected: Vec<u8> = a.iter().zip(&b).map(|(a, b)| product(*a, *b)).collect();
        same_everywhere(random, "multiply", &[&a, &b], &expected, |isa| {
            Operator::multiply(isa, a.len(), qa, qb, qy)
        });

        let channels = random.size(200);
        let positions = a.len().min(5000) / channels;
        if positions > 0 {
            let (a, b) = (&a[..positions * channels], random.bytes(channels));
            let pairs = a.iter().zip(b.iter().cycle());
            let expected: Vec<u8> = pairs.map(|(a, b)| product(*a, *b)).collect();
            same_everywhere(random, "multiply channels", &[a, &b], &expected, |isa| {
                Operator::multiply_channels(isa, positions, channels, qa, qb, qy)
            });
        }
    });
}

#[test]
fn pools() {
    cases(5, 200, |random| {
        let case = Case::random(random);
        let channels = case.input[2];
        let input = random.bytes(case.input.iter().product());
        let mut largest = vec![];
        for position in case.positions() {
            for c in 0..channels {
                let seen = case
                    .taps()
                    .filter_map(|tap| case.at(&input, position, tap, c));
                largest.push(seen.max().unwrap_or(0));
            }
        }
        same_everywhere(random, "max pool", &[&input], &largest, |isa| {
            Operator::max_pool(isa, case.window())
        });

        let (from, to) = (random.quantization(0.05), random.quantization(0.03));
        let padding = *random.pick(&[Padding::Counts, Padding::IsLeftOut]);
        let mut means = vec![];
        for position in case.positions() {
            for c in 0..channels {
                let seen = case.taps().map(|tap| case.at(&input, position, tap, c));
                let seen: Vec<u8> = match padding {
                    Padding::Counts => seen.map(|x| x.unwrap_or(from.zero_point)).collect(),
                    Padding::IsLeftOut => seen.flatten().collect(),
                };
                let sum: i32 = seen.iter().map(|x| i32::from(*x)).sum();
                let offset = seen.len() as i32 * i32::from(from.zero_point);
                let scale = (from.scale / to.scale) / seen.len() as f32;
                means.push(requantize(sum - offset, scale, to.zero_point));
            }
        }
        same_everywhere(random, "average pool", &[&input], &means, |isa| {
            Operator::average_pool(isa, case.window(), padding, from, to)
        });

        let positions = input.len() / channels;
        let scale = (from.scale / to.scale) / positions as f32;
        let means: Vec<u8> = (0..channels)
            .map(|c| {
                let pixels = input[c..].iter().step_by(channels);
                let sum: i32 = pixels.map(|x| i32::from(*x)).sum();
                let offset = positions as i32 * i32::from(from.zero_point);
                requantize(sum - offset, scale, to.zero_point)
            })
            .collect();
        same_everywhere(random, "global average pool", &[&input], &means, |isa| {
            Operator::global_average_pool(isa, case.input, from, to)
        });
    });
}

#[test]
fn concatenation() {
    cases(6, 100, |random| {
        let positions = random.size(300);
        let to = random.quantization(0.05);
        let mut parts = vec![];
        for _ in 0..random.range(1, 4) {
            let other = random.quantization(0.05);
            parts.push(ConcatInput {
                channels: random.size(100),
                quantization: *random.pick(&[to, other]),
            });
        }
        let inputs: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| random.bytes(positions * part.channels))
            .collect();
        let mut expected = vec![];
        for position in 0..positions {
            for (part, input) in parts.iter().zip(&inputs) {
                let from = part.quantization;
                for x in &input[position * part.channels..][..part.channels] {
                    let value = (f32::from(*x) - f32::from(from.zero_point)) * from.scale;
                    let rounded = (value / to.scale).round_ties_even() + f32::from(to.zero_point);
                    expected.push(if from == to {
                        *x
                    } else {
                        rounded.clamp(0.0, 255.0) as u8
                    });
                }
            }
        }
        let inputs: Vec<&[u8]> = inputs.iter().map(|i| &i[..]).collect();
        same_everywhere(random, "concat", &inputs, &expected, |isa| {
            Operator::concat(isa, positions, &parts, to)
        });
    });
}

#[test]
fn tables() {
    cases(7, 100, |random| {
        let (positions, channels) = (random.size(300), random.size(100));
        let input = random.bytes(positions * channels);
        let same = random.below(2) == 0;
        let first: [u8; 256] = std::array::from_fn(|_| random.next() as u8);
        let rows: Vec<[u8; 256]> = (0..channels)
            .map(|_| match same {
                true => first,
                false => std::array::from_fn(|_| random.next() as u8),
            })
            .collect();
        let looked_up = input.iter().enumerate();
        let expected: Vec<u8> = looked_up
            .map(|(i, x)| rows[i % channels][usize::from(*x)])
            .collect();
        same_everywhere(random, "table", &[&input], &expected, |isa| {
            Operator::table(isa, positions, &rows)
        });
    });
}

fn quantization(scale: f32, zero_point: u8) -> Quantization {
    Quantization { scale, zero_point }
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let isa = Isa::detect();
    let window = |input, kernel, stride, padding| Window::new(input, kernel, stride, padding);
    assert!(window([0, 1, 1], [1, 1], [1, 1], [0; 4]).is_err());
    assert!(window([4, 4, 1], [5, 1], [1, 1], [0; 4]).is_err());
    assert!(window([4, 4, 1], [3, 3], [1, 1], [3, 0, 0, 0]).is_err());
    assert!(window([65536, 65536, 1], [1, 1], [1, 1], [0; 4]).is_err());
    assert!(window([usize::MAX, 1, 1], [1, 1], [1, 1], [0; 4]).is_err());

    let one = window([1, 1, 1], [1, 1], [1, 1], [0; 4]).unwrap();
    let unit = quantization(1.0, 0);
    let good = ConvParameters {
        weights: &[1],
        bias: &[0],
        weight_scales: &[1.0],
        input: unit,
        output: unit,
    };
    assert!(Operator::conv(isa, one, 1, good).is_ok());
    assert!(Operator::conv(isa, one, 0, good).is_err());
    assert!(Operator::conv(isa, one, 2, good).is_err());
    assert!(Operator::conv(isa, one, usize::MAX, good).is_err());
    for bad in [
        ConvParameters {
            bias: &[i32::MAX],
            ..good
        },
        ConvParameters {
            bias: &[i32::MIN],
            ..good
        },
        ConvParameters {
            bias: &[1, 2],
            ..good
        },
        ConvParameters {
            input: quantization(f32::NAN, 0),
            ..good
        },
        ConvParameters {
            output: quantization(0.0, 0),
            ..good
        },
        ConvParameters {
            weight_scales: &[f32::INFINITY],
            ..good
        },
        ConvParameters {
            weight_scales: &[-1.0],
            ..good
        },
        ConvParameters {
            input: quantization(f32::MAX, 0),
            output: quantization(f32::MIN_POSITIVE, 0),
            ..good
        },
    ] {
        assert!(Operator::conv(isa, one, 1, bad).is_err(), "{bad:?}");
        assert!(Operator::depthwise(isa, one, bad).is_err(), "{bad:?}");
    }
    let (none, huge, tiny) = (
        quantization(0.0, 0),
        quantization(1e38, 0),
        quantization(1e-3, 0),
    );
    assert!(Operator::add(isa, 1, unit, unit, none).is_err());
    assert!(Operator::add(isa, 1, huge, unit, tiny).is_err());
    assert!(Operator::multiply(isa, 1, unit, none, unit).is_err());
    assert!(Operator::multiply(isa, 1, huge, unit, tiny).is_err());
    assert!(Operator::multiply_channels(isa, 0, 1, unit, unit, unit).is_err());
    assert!(Operator::global_average_pool(isa, [0, 1, 1], unit, unit).is_err());
    assert!(Operator::global_average_pool(isa, [usize::MAX; 3], unit, unit).is_err());
    assert!(Operator::average_pool(isa, one, Padding::Counts, huge, tiny).is_err());
    assert!(Operator::linear(isa, 0, &[], &[], 0, &[1.0]).is_err());
    assert!(Operator::linear(isa, 2, &[1, 2, 3], &[], 0, &[1.0]).is_err());
    assert!(Operator::linear(isa, 1, &[1], &[], 0, &[f32::NAN]).is_err());
    assert!(Operator::table(isa, 1, &[]).is_err());
    assert!(Operator::table(isa, usize::MAX, &[[0; 256]; 2]).is_err());
    assert!(Operator::concat(isa, 1, &[], unit).is_err());
    let part = ConcatInput {
        channels: 1,
        quantization: unit,
    };
    assert!(Operator::concat(isa, 1, &[part], none).is_err());
    assert!(Operator::concat(isa, usize::MAX, &[part], unit).is_err());
}

#[test]
fn slices_of_another_length_are_refused() {
    let window = Window::new([2, 2, 1], [1, 1], [1, 1], [0; 4]).unwrap();
    let parameters = ConvParameters {
        weights: &[1],
        bias: &[],
        weight_scales: &[1.0],
        input: quantization(1.0, 0),
        output: quantization(1.0, 0),
    };
    for isa in Isa::available() {
        let conv = Operator::conv(isa, window, 1, parameters).unwrap();
        let mut scratch = AlignedBytes::new(conv.scratch_len());
        let input = [0; 4 + SLACK];
        assert!(conv.run(&[&input], &mut [0; 4], &mut scratch).is_ok());
        assert!(conv.run(&[&input[1..]], &mut [0; 4], &mut scratch).is_err());
        assert!(conv.run(&[&input], &mut [0; 3], &mut scratch).is_err());
        assert!(conv.run(&[], &mut [0; 4], &mut scratch).is_err());
        assert!(
            conv.run(&[&input[..]; 2], &mut [0; 4], &mut scratch)
                .is_err()
        );
        let part = |units, output: &mut [u8], scratch: &mut [u8]| {
            conv.run_part(units, &[&input], output, scratch)
        };
        assert!(part(1..3, &mut [0; 2], &mut scratch).is_ok());
        assert!(part(3..5, &mut [0; 2], &mut scratch).is_err());
        assert!(part(1..3, &mut [0; 3], &mut scratch).is_err());
        assert!(part(2..2, &mut [], &mut scratch).is_ok());
        if !scratch.is_empty() {
            let less = scratch.len() - 1;
            assert!(part(1..3, &mut [0; 2], &mut scratch[..less]).is_err());
        }
    }
}
