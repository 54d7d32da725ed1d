//! Every operator, on every instruction set of this processor, against a naive loop over random shapes, strides,
//! paddings, scales and zero points: all results equal to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use graft_kernels::{
    Add, Conv, ConvParameters, Depthwise, GlobalAveragePool, Isa, Linear, MaxPool, Table, Window,
};

/// A small generator of repeatable numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
    fn scale(&mut self, magnitude: f32) -> f32 {
        magnitude * (0.5 + (self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
    fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() as i8).max(-127)).collect()
    }
    fn biases(&mut self, n: usize) -> Vec<i32> {
        (0..n).map(|_| self.next() as i16 as i32).collect()
    }
}

fn requantize(sum: i32, scale: f32, zero_point: u8) -> u8 {
    ((sum as f32 * scale).round_ties_even() + f32::from(zero_point)).clamp(0.0, 255.0) as u8
}

struct Case {
    input: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
}

impl Case {
    fn random(random: &mut Random) -> Case {
        let kernel = [random.range(1, 5), random.range(1, 5)];
        let mut padding = [0; 4];
        for (i, p) in padding.iter_mut().enumerate() {
            *p = random.below(kernel[i % 2]);
        }
        let input = [
            kernel[0] + random.below(9),
            kernel[1] + random.below(9),
            random.range(1, 40),
        ];
        Case {
            input,
            kernel,
            stride: [random.range(1, 3), random.range(1, 3)],
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

/// Runs `kernel` on every instruction set and compares its output with `expected`.
fn same_everywhere<T: Copy + Default + PartialEq + std::fmt::Debug>(
    expected: &[T],
    what: &str,
    kernel: impl Fn(Isa, &mut [T]),
) {
    for isa in Isa::available() {
        let mut output = vec![T::default(); expected.len()];
        kernel(isa, &mut output);
        assert!(
            output == expected,
            "{what} on {}:\n{output:?}\n{expected:?}",
            isa.name()
        );
    }
}

#[test]
fn dense_convolution() {
    let mut random = Random(1);
    for round in 0..300 {
        let mut case = Case::random(&mut random);
        if round % 3 == 0 {
            case = Case {
                kernel: [1, 1],
                stride: [1, 1],
                padding: [0; 4],
                ..case
            };
        }
        let (n, channels) = (random.range(1, 40), case.input[2]);
        let taps = case.kernel[0] * case.kernel[1];
        let input = random.bytes(case.input.iter().product());
        let weights = random.weights(n * channels * taps);
        let bias = random.biases(n);
        let weight_scales: Vec<f32> = (0..n).map(|_| random.scale(0.01)).collect();
        let (sx, sy, zx, zy) = (
            random.scale(0.02),
            random.scale(0.2),
            random.next() as u8,
            random.next() as u8,
        );
        let parameters = ConvParameters {
            weights: &weights,
            bias: &bias,
            input_scale: sx,
            input_zero_point: zx,
            weight_scales: &weight_scales,
            output_scale: sy,
            output_zero_point: zy,
        };
        let mut expected = vec![];
        for position in case.positions() {
            for o in 0..n {
                let mut sum = bias[o];
                for (t, tap) in case.taps().enumerate() {
                    for c in 0..channels {
                        let x = case.at(&input, position, tap, c).unwrap_or(zx);
                        sum += (i32::from(x) - i32::from(zx))
                            * i32::from(weights[(o * channels + c) * taps + t]);
                    }
                }
                expected.push(requantize(sum, (sx * weight_scales[o]) / sy, zy));
            }
        }
        let conv = Conv::new(case.window(), n, parameters).unwrap();
        same_everywhere(&expected, "conv", |isa, y| {
            conv.run(isa, &input, y).unwrap()
        });
    }
}

#[test]
fn depthwise_convolution() {
    let mut random = Random(2);
    for _ in 0..300 {
        let case = Case::random(&mut random);
        let channels = case.input[2];
        let taps = case.kernel[0] * case.kernel[1];
        let input = random.bytes(case.input.iter().product());
        let weights = random.weights(channels * taps);
        let bias = random.biases(channels);
        let weight_scales: Vec<f32> = (0..channels).map(|_| random.scale(0.01)).collect();
        let (sx, sy, zx, zy) = (
            random.scale(0.02),
            random.scale(0.1),
            random.next() as u8,
            random.next() as u8,
        );
        let parameters = ConvParameters {
            weights: &weights,
            bias: &bias,
            input_scale: sx,
            input_zero_point: zx,
            weight_scales: &weight_scales,
            output_scale: sy,
            output_zero_point: zy,
        };
        let mut expected = vec![];
        for position in case.positions() {
            for c in 0..channels {
                let mut sum = bias[c];
                for (t, tap) in case.taps().enumerate() {
                    let x = case.at(&input, position, tap, c).unwrap_or(zx);
                    sum += (i32::from(x) - i32::from(zx)) * i32::from(weights[c * taps + t]);
                }
                expected.push(requantize(sum, (sx * weight_scales[c]) / sy, zy));
            }
        }
        let conv = Depthwise::new(case.window(), parameters).unwrap();
        same_everywhere(&expected, "depthwise", |isa, y| {
            conv.run(isa, &input, y).unwrap()
        });
    }
}

/// Sums beyond 2^24, where an f32 accumulator would round.
#[test]
fn sums_are_exact_at_the_extremes() {
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
        let linear = Linear::new(k, &weights, &[7], zero_point, &[1.0]).unwrap();
        same_everywhere(&[(sum(254) + 7) as f32], "linear", |isa, y| {
            linear.run(isa, &input[..k], y).unwrap()
        });

        let scale = 1.0 / 1_400_000.0;
        let conv = Conv::new(
            window,
            1,
            ConvParameters {
                weights: &weights,
                bias: &[],
                input_scale: 1.0,
                input_zero_point: zero_point,
                weight_scales: &[scale],
                output_scale: 1.0,
                output_zero_point: 100,
            },
        )
        .unwrap();
        let expected = [sum(254), sum(i32::from(x))].map(|s| requantize(s, scale, 100));
        same_everywhere(&expected, "conv", |isa, y| {
            conv.run(isa, &input, y).unwrap()
        });
    }
}

/// Scales at which requantization rounds ties, and at which it leaves every integer type.
#[test]
fn requantization_rounds_ties_to_even_and_never_wraps() {
    let window = Window::new([16, 16, 1], [1, 1], [1, 1], [0; 4]).unwrap();
    let input: Vec<u8> = (0..=255).collect();
    for scale in [0.5, 0.25, 1.5, 1e-30, 1e8, 1e30] {
        for weight in [1i8, -1, 127] {
            for zero_point in [0u8, 3, 128, 255] {
                let parameters = ConvParameters {
                    weights: &[weight],
                    bias: &[],
                    input_scale: 1.0,
                    input_zero_point: 77,
                    weight_scales: &[scale],
                    output_scale: 1.0,
                    output_zero_point: zero_point,
                };
                let expected: Vec<u8> = input
                    .iter()
                    .map(|x| {
                        requantize((i32::from(*x) - 77) * i32::from(weight), scale, zero_point)
                    })
                    .collect();
                let conv = Conv::new(window, 1, parameters).unwrap();
                same_everywhere(&expected, "conv", |isa, y| {
                    conv.run(isa, &input, y).unwrap()
                });
                let depthwise = Depthwise::new(window, parameters).unwrap();
                same_everywhere(&expected, "depthwise", |isa, y| {
                    depthwise.run(isa, &input, y).unwrap()
                });
            }
        }
    }
}

#[test]
fn linear_layer() {
    let mut random = Random(3);
    for _ in 0..100 {
        let (k, n) = (random.range(1, 1300), random.range(1, 40));
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
        let linear = Linear::new(k, &weights, &bias, zero_point, &scales).unwrap();
        same_everywhere(&expected, "linear", |isa, y| {
            linear.run(isa, &input, y).unwrap()
        });
    }
}

/// All 65,536 pairs of bytes, on random scales.
#[test]
fn residual_add() {
    let mut random = Random(4);
    let a: Vec<u8> = (0..=65535u32).map(|i| (i >> 8) as u8).collect();
    let b: Vec<u8> = (0..=65535u32).map(|i| i as u8).collect();
    for _ in 0..50 {
        let (sa, sb, sy) = (random.scale(0.05), random.scale(0.05), random.scale(0.05));
        let (za, zb, zy) = (
            random.next() as u8,
            random.next() as u8,
            random.next() as u8,
        );
        let (ra, rb) = (sa / sy, sb / sy);
        let fix = f32::from(zy) - ra.mul_add(f32::from(za), rb * f32::from(zb));
        let expected: Vec<u8> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| {
                f32::from(*a)
                    .mul_add(ra, f32::from(*b).mul_add(rb, fix))
                    .round_ties_even()
                    .clamp(0.0, 255.0) as u8
            })
            .collect();
        let add = Add::new((sa, za), (sb, zb), (sy, zy)).unwrap();
        same_everywhere(&expected, "add", |isa, y| add.run(isa, &a, &b, y).unwrap());
    }
}

#[test]
fn global_average_pool() {
    let mut random = Random(5);
    for _ in 0..100 {
        let (positions, channels) = (random.range(1, 400), random.range(1, 70));
        let input = random.bytes(positions * channels);
        let (sx, sy, zx, zy) = (
            random.scale(0.05),
            random.scale(0.03),
            random.next() as u8,
            random.next() as u8,
        );
        let scale = (sx / sy) / positions as f32;
        let expected: Vec<u8> = (0..channels)
            .map(|c| {
                let sum: i32 = (0..positions)
                    .map(|p| i32::from(input[p * channels + c]))
                    .sum();
                requantize(sum - positions as i32 * i32::from(zx), scale, zy)
            })
            .collect();
        let pool = GlobalAveragePool::new(positions, channels, (sx, zx), (sy, zy)).unwrap();
        same_everywhere(&expected, "pool", |isa, y| {
            pool.run(isa, &input, y).unwrap()
        });
    }
}

#[test]
fn max_pool_and_table() {
    let mut random = Random(6);
    for _ in 0..100 {
        let case = Case::random(&mut random);
        let channels = case.input[2];
        let input = random.bytes(case.input.iter().product());
        let mut expected = vec![];
        for position in case.positions() {
            for c in 0..channels {
                expected.push(
                    case.taps()
                        .filter_map(|tap| case.at(&input, position, tap, c))
                        .max()
                        .unwrap_or(0),
                );
            }
        }
        let pool = MaxPool::new(case.window());
        same_everywhere(&expected, "max pool", |isa, y| {
            pool.run(isa, &input, y).unwrap()
        });

        let rows: Vec<[u8; 256]> = (0..channels)
            .map(|_| std::array::from_fn(|_| random.next() as u8))
            .collect();
        let expected: Vec<u8> = input
            .iter()
            .enumerate()
            .map(|(i, x)| rows[i % channels][usize::from(*x)])
            .collect();
        let mut output = vec![0; input.len()];
        Table::new(rows).unwrap().run(&input, &mut output).unwrap();
        assert_eq!(output, expected);
    }
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let window = |input, kernel, stride, padding| Window::new(input, kernel, stride, padding);
    assert!(window([0, 1, 1], [1, 1], [1, 1], [0; 4]).is_err());
    assert!(window([4, 4, 1], [5, 1], [1, 1], [0; 4]).is_err());
    assert!(window([4, 4, 1], [3, 3], [1, 1], [3, 0, 0, 0]).is_err());
    assert!(window([65536, 65536, 1], [1, 1], [1, 1], [0; 4]).is_err());
    assert!(window([usize::MAX, 1, 1], [1, 1], [1, 1], [0; 4]).is_err());

    let one = window([1, 1, 1], [1, 1], [1, 1], [0; 4]).unwrap();
    let good = ConvParameters {
        weights: &[1],
        bias: &[0],
        input_scale: 1.0,
        input_zero_point: 0,
        weight_scales: &[1.0],
        output_scale: 1.0,
        output_zero_point: 0,
    };
    assert!(Conv::new(one, 1, good).is_ok());
    assert!(Conv::new(one, 0, good).is_err());
    assert!(Conv::new(one, 2, good).is_err());
    assert!(Conv::new(one, usize::MAX, good).is_err());
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
            input_scale: f32::NAN,
            ..good
        },
        ConvParameters {
            output_scale: 0.0,
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
            input_scale: f32::MAX,
            output_scale: f32::MIN_POSITIVE,
            ..good
        },
    ] {
        assert!(Conv::new(one, 1, bad).is_err(), "{bad:?}");
        assert!(Depthwise::new(one, bad).is_err(), "{bad:?}");
    }
    assert!(Add::new((1.0, 0), (1.0, 0), (0.0, 0)).is_err());
    assert!(Add::new((1e38, 0), (1.0, 0), (1e-3, 0)).is_err());
    assert!(GlobalAveragePool::new(0, 1, (1.0, 0), (1.0, 0)).is_err());
    assert!(GlobalAveragePool::new(usize::MAX, usize::MAX, (1.0, 0), (1.0, 0)).is_err());
    assert!(Linear::new(0, &[], &[], 0, &[1.0]).is_err());
    assert!(Linear::new(2, &[1, 2, 3], &[], 0, &[1.0]).is_err());
    assert!(Linear::new(1, &[1], &[], 0, &[f32::NAN]).is_err());
    assert!(Table::new(vec![]).is_err());

    let conv = Conv::new(one, 1, good).unwrap();
    assert!(conv.run(Isa::detect(), &[1, 2], &mut [0]).is_err());
    assert!(conv.run(Isa::detect(), &[1], &mut []).is_err());
}
