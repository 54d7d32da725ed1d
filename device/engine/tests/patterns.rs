//! Each pattern of standard ONNX nodes, and a whole small net of them: recognised, and its results equal to what the
//! kernels give when called by themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graft_engine::Engine;
use graft_kernels::{ConvParameters, Isa, Operator, Quantization, SLACK, Window};
use graft_shared::preprocess::Pixels;
use support::{Conv, Graph, Head, Random, int, ints};

const ISA: Isa = Isa::PLAIN;
const PIXELS: (f32, u8) = (1.0 / 128.0, 127);
const HEIGHT: usize = 12;
const WIDTH: usize = 10;

/// An activation computed by the kernels themselves, NHWC.
#[derive(Clone)]
struct Activation {
    shape: [usize; 3],
    quantization: (f32, u8),
    bytes: Vec<u8>,
}

impl Activation {
    fn new(pixels: &Pixels) -> Activation {
        Activation {
            shape: [pixels.height, pixels.width, 3],
            quantization: PIXELS,
            bytes: pixels.data.clone(),
        }
    }

    fn conv(&self, conv: &Conv) -> Activation {
        let window = Window::new(self.shape, conv.kernel, conv.stride, conv.padding).unwrap();
        let parameters = ConvParameters {
            weights: &conv.weights,
            bias: &conv.bias,
            weight_scales: &conv.weight_scales,
            input: quantization(self.quantization),
            output: quantization(conv.output),
        };
        let operator = if conv.depthwise {
            Operator::depthwise(ISA, window, parameters)
        } else {
            Operator::conv(ISA, window, conv.channels, parameters)
        };
        let [height, width] = window.output();
        Activation {
            shape: [height, width, conv.channels],
            quantization: conv.output,
            bytes: run(&operator.unwrap(), &[&self.bytes]),
        }
    }

    fn add(&self, other: &Activation, output: (f32, u8)) -> Activation {
        let [a, b, sum] = [self.quantization, other.quantization, output].map(quantization);
        let add = Operator::add(ISA, self.bytes.len(), a, b, sum).unwrap();
        Activation {
            quantization: output,
            bytes: run(&add, &[&self.bytes, &other.bytes]),
            ..*self
        }
    }

    fn pool(&self, output: (f32, u8)) -> Activation {
        let [x, y] = [self.quantization, output].map(quantization);
        let pool = Operator::global_average_pool(ISA, self.shape, x, y).unwrap();
        Activation {
            shape: [1, 1, self.shape[2]],
            quantization: output,
            bytes: run(&pool, &[&self.bytes]),
        }
    }

    fn max_pool(&self, kernel: usize, stride: usize, padding: usize) -> Activation {
        let window = Window::new(self.shape, [kernel; 2], [stride; 2], [padding; 4]).unwrap();
        let [height, width] = window.output();
        Activation {
            shape: [height, width, self.shape[2]],
            bytes: run(&Operator::max_pool(ISA, window).unwrap(), &[&self.bytes]),
            ..*self
        }
    }

    fn head(&self, head: &Head) -> Vec<f32> {
        let linear = Operator::linear(
            ISA,
            self.bytes.len(),
            &head.weights,
            &head.bias,
            self.quantization.1,
            &head.scales,
        );
        run(&linear.unwrap(), &[&self.bytes])
    }
}

fn quantization((scale, zero_point): (f32, u8)) -> Quantization {
    Quantization { scale, zero_point }
}

/// What `operator` makes of `inputs`.
fn run<T: Clone + Default>(operator: &Operator<T>, inputs: &[&[u8]]) -> Vec<T> {
    let slack: Vec<Vec<u8>> = inputs
        .iter()
        .map(|input| [input, &[0; SLACK][..]].concat())
        .collect();
    let inputs: Vec<&[u8]> = slack.iter().map(Vec::as_slice).collect();
    let mut output = vec![T::default(); operator.output_len()];
    let mut scratch = vec![0; operator.scratch_len()];
    operator.run(&inputs, &mut output, &mut scratch).unwrap();
    output
}

/// Pool, Flatten and head after `tensor`.
fn finish(graph: &mut Graph, tensor: &str, pooled: (f32, u8), head: &Head) {
    graph.pool(tensor, "pooled", pooled);
    graph.node("Flatten", &["pooled"], "flat", vec![int("axis", 1)]);
    graph.head("flat", "pooled_zero", head);
}

/// The engine's logits for random pixels are `expected`'s to the bit, and all nodes ran in our operators.
fn check(graph: &Graph, random: &mut Random, expected: impl Fn(Activation) -> Vec<f32>) {
    let engine = graph.engine();
    assert_eq!(engine.nodes().tract, 0, "{:?}", engine.nodes());
    for _ in 0..3 {
        let pixels = random.pixels(HEIGHT, WIDTH);
        assert_eq!(
            engine.logits(&pixels).unwrap(),
            expected(Activation::new(&pixels))
        );
    }
}

#[test]
fn a_whole_net_runs_in_our_operators_alone() {
    let mut random = Random(1);
    let stem = Conv::random(&mut random, 3, 8, 3, 2, false);
    let expand = Conv::random(&mut random, 8, 24, 1, 1, false);
    let depthwise = Conv::random(&mut random, 24, 24, 3, 1, true);
    let project = Conv::random(&mut random, 24, 8, 1, 1, false);
    let head = Head::random(&mut random, 8, 5);
    let (sum, pooled) = ((0.05, 100), (0.02, 90));

    let mut graph = Graph::new(HEIGHT, WIDTH, 5);
    graph.transpose();
    graph.conv("pixels", "stem", &stem);
    graph.conv("stem", "expand", &expand);
    graph.conv("expand", "depthwise", &depthwise);
    graph.conv("depthwise", "project", &project);
    graph.residual_add("stem", "project", "sum", sum);
    finish(&mut graph, "sum", pooled, &head);

    check(&graph, &mut random, |image| {
        let stem = image.conv(&stem);
        let project = stem.conv(&expand).conv(&depthwise).conv(&project);
        stem.add(&project, sum).pool(pooled).head(&head)
    });
    let engine = graph.engine();
    let operators: Vec<&str> = engine
        .nodes()
        .list
        .iter()
        .map(|node| node.operator.as_str())
        .collect();
    assert_eq!(
        operators,
        [
            "Conv",
            "Conv",
            "DepthwiseConv",
            "Conv",
            "Add",
            "GlobalAveragePool",
            "Linear"
        ]
    );
    assert_eq!(
        engine.macs(),
        30 * (27 * 8 + 8 * 24 + 9 * 24 + 24 * 8) + 8 * 5
    );
}

#[test]
fn convolutions_of_many_shapes() {
    let mut random = Random(2);
    for (kernel, stride, channels) in [
        (1, 1, 3),
        (1, 2, 17),
        (3, 1, 16),
        (3, 2, 33),
        (5, 1, 4),
        (5, 2, 7),
    ] {
        let mut dense = Conv::random(&mut random, 3, channels, kernel, stride, false);
        dense.padding = [kernel / 2, 0, kernel / 3, kernel / 2];
        let depthwise = Conv::random(&mut random, channels, channels, 3, 1, true);
        let head = Head::random(&mut random, channels, 2);
        let mut graph = Graph::new(HEIGHT, WIDTH, 2);
        graph.transpose();
        graph.conv("pixels", "dense", &dense);
        graph.conv("dense", "depthwise", &depthwise);
        finish(&mut graph, "depthwise", (0.01, 3), &head);
        check(&graph, &mut random, |image| {
            image
                .conv(&dense)
                .conv(&depthwise)
                .pool((0.01, 3))
                .head(&head)
        });
    }
}

#[test]
fn max_pool_stays_in_bytes() {
    let mut random = Random(3);
    let conv = Conv::random(&mut random, 3, 9, 3, 1, false);
    let head = Head::random(&mut random, 9, 4);
    let mut graph = Graph::new(HEIGHT, WIDTH, 4);
    graph.transpose();
    graph.conv("pixels", "conv", &conv);
    let attributes = vec![
        ints("kernel_shape", &[3, 3]),
        ints("strides", &[2, 2]),
        ints("pads", &[1, 1, 1, 1]),
    ];
    graph.node("MaxPool", &["conv"], "largest", attributes);
    graph.quantization("largest", conv.output);
    finish(&mut graph, "largest", (0.03, 7), &head);
    check(&graph, &mut random, |image| {
        image
            .conv(&conv)
            .max_pool(3, 2, 1)
            .pool((0.03, 7))
            .head(&head)
    });
}

#[test]
fn the_head_comes_in_several_spellings() {
    let mut random = Random(4);
    let head = Head::random(&mut random, 3, 6);
    let pooled = (0.004, 120);
    let reshapes: [&[i64]; 5] = [&[1, 3], &[1, -1], &[0, -1], &[-1, 3], &[0, 3]];
    for reshape in reshapes {
        let mut graph = Graph::new(HEIGHT, WIDTH, 6);
        graph.transpose();
        graph.pool("pixels", "pooled", pooled);
        graph.i64("shape", &[2], reshape);
        graph.node("Reshape", &["pooled", "shape"], "flat", vec![]);
        graph.head("flat", "pooled_zero", &head);
        // Operands of commutative operators may come the other way round.
        for node in &mut graph.graph.node {
            if node.name == "head.sums" || node.name == "logits" {
                node.input.reverse();
            }
        }
        check(&graph, &mut random, |image| image.pool(pooled).head(&head));
    }
    let unbiased = Head {
        bias: vec![0; 6],
        ..head
    };
    let mut graph = Graph::new(HEIGHT, WIDTH, 6);
    graph.transpose();
    finish(&mut graph, "pixels", pooled, &unbiased);
    graph.graph.node.retain(|node| node.name != "head.sums");
    graph
        .graph
        .node
        .iter_mut()
        .find(|node| node.name == "head.floats")
        .unwrap()
        .input = vec!["head.products".into()];
    check(&graph, &mut random, |image| {
        image.pool(pooled).head(&unbiased)
    });
}

#[test]
fn normalisation_of_pixels_becomes_a_table() {
    let mut random = Random(5);
    let head = Head::random(&mut random, 3, 3);
    let pooled = (0.01, 128);
    let quantization = (0.0187, 114);
    let (mean, std) = ([123.675f32, 116.28, 103.53], [58.395f32, 57.12, 57.375]);
    for before_transpose in [false, true] {
        let mut graph = Graph::new(HEIGHT, WIDTH, 3);
        let perm = || vec![ints("perm", &[0, 3, 1, 2])];
        let (shape, source): (&[usize], _) = if before_transpose {
            (&[3], "image")
        } else {
            (&[1, 3, 1, 1], "nchw")
        };
        if !before_transpose {
            graph.node("Transpose", &["image"], "nchw", perm());
        }
        graph.f32("mean", shape, &mean);
        graph.f32("std", shape, &std);
        graph.node("Cast", &[source], "floats", vec![int("to", 1)]);
        graph.node("Sub", &["floats", "mean"], "centred", vec![]);
        graph.node("Div", &["centred", "std"], "normal", vec![]);
        graph.quantize("normal", "normalised", quantization);
        let mut tensor = "normalised";
        if before_transpose {
            graph.node("Transpose", &["normalised"], "pixels", perm());
            graph.quantization("pixels", quantization);
            tensor = "pixels";
        }
        finish(&mut graph, tensor, pooled, &head);
        check(&graph, &mut random, |image| {
            let row = |c: usize| {
                std::array::from_fn(|byte| {
                    let normal = (byte as f32 - mean[c]) / std[c];
                    ((normal / quantization.0).round_ties_even() + f32::from(quantization.1))
                        .clamp(0.0, 255.0) as u8
                })
            };
            let rows: Vec<[u8; 256]> = (0..3).map(row).collect();
            let table = Operator::table(ISA, HEIGHT * WIDTH, &rows).unwrap();
            let bytes = run(&table, &[&image.bytes]);
            Activation {
                quantization,
                bytes,
                ..image
            }
            .pool(pooled)
            .head(&head)
        });
    }
}

/// A node whose result somebody else needs too is computed, and the pattern is replaced all the same.
#[test]
fn shared_intermediates_stay() {
    let mut random = Random(6);
    let conv = Conv::random(&mut random, 3, 3, 1, 1, false);
    let head = Head::random(&mut random, 3, 2);
    let (first, second) = ((0.02, 100), (0.03, 50));
    let mut graph = Graph::new(HEIGHT, WIDTH, 2);
    graph.transpose();
    graph.conv("pixels", "conv", &conv);
    graph.dequantize("pixels", "x");
    graph.dequantize("conv", "y");
    graph.node("Add", &["x", "y"], "sum.floats", vec![]);
    graph.quantize("sum.floats", "sum", first);
    graph.dequantize("sum", "z");
    graph.node("Add", &["z", "y"], "total.floats", vec![]);
    graph.quantize("total.floats", "total", second);
    finish(&mut graph, "total", (0.01, 9), &head);
    check(&graph, &mut random, |image| {
        let conv = image.conv(&conv);
        image
            .add(&conv, first)
            .add(&conv, second)
            .pool((0.01, 9))
            .head(&head)
    });
}

/// What does not match in every detail runs in tract's operators, and is named.
#[test]
fn what_is_not_recognised_runs_in_tract() {
    let mut random = Random(7);
    let conv = Conv::random(&mut random, 3, 4, 3, 1, false);
    let head = Head::random(&mut random, 4, 2);
    let mut graph = Graph::new(HEIGHT, WIDTH, 2);
    graph.transpose();
    graph.conv("pixels", "conv", &conv);
    finish(&mut graph, "conv", (0.01, 9), &head);
    let exact = graph.engine();

    // A weight zero point other than 0 has no kernel: here all the weights are shifted with it.
    let shift = |w: &i8| (w / 2) as i32;
    let halved = Conv {
        weights: conv.weights.iter().map(|w| shift(w) as i8).collect(),
        ..conv.clone()
    };
    let mut shifted = Graph::new(HEIGHT, WIDTH, 2);
    shifted.transpose();
    shifted.conv(
        "pixels",
        "conv",
        &Conv {
            weights: halved.weights.iter().map(|w| w + 5).collect(),
            ..halved.clone()
        },
    );
    shifted
        .graph
        .initializer
        .iter_mut()
        .find(|t| t.name == "conv_wz")
        .unwrap()
        .raw_data = vec![5];
    finish(&mut shifted, "conv", (0.01, 9), &head);
    let engine = shifted.engine();
    assert!(engine.nodes().tract > 0 && !engine.nodes().tract_operators.is_empty());
    assert_eq!(engine.nodes().fast, exact.nodes().fast - 1);
    let pixels = random.pixels(HEIGHT, WIDTH);
    let expected = Activation::new(&pixels)
        .conv(&halved)
        .pool((0.01, 9))
        .head(&head);
    for (got, expected) in engine.logits(&pixels).unwrap().iter().zip(&expected) {
        assert!(
            (got - expected).abs() < 0.05 * expected.abs().max(1.0),
            "{got} {expected}"
        );
    }
}

/// A float graph runs in tract altogether.
#[test]
fn a_float_net_runs_in_tract() {
    let mut random = Random(8);
    let mut graph = Graph::new(HEIGHT, WIDTH, 2);
    let weights: Vec<f32> = (0..4 * 27).map(|_| random.scale(1.0) - 1.0).collect();
    let linear: Vec<f32> = (0..8).map(|_| random.scale(1.0) - 1.0).collect();
    graph.f32("127", &[], &[127.0]);
    graph.f32("128", &[], &[128.0]);
    graph.f32("0", &[], &[0.0]);
    graph.f32("6", &[], &[6.0]);
    graph.f32("w", &[4, 3, 3, 3], &weights);
    graph.f32("b", &[4], &[0.1, -0.2, 0.3, 0.4]);
    graph.f32("fw", &[2, 4], &linear);
    graph.f32("fb", &[2], &[0.5, -0.5]);
    graph.node("Cast", &["image"], "floats", vec![int("to", 1)]);
    graph.node("Sub", &["floats", "127"], "centred", vec![]);
    graph.node("Div", &["centred", "128"], "normal", vec![]);
    graph.node(
        "Transpose",
        &["normal"],
        "x",
        vec![ints("perm", &[0, 3, 1, 2])],
    );
    let attributes = vec![
        ints("kernel_shape", &[3, 3]),
        ints("strides", &[2, 2]),
        ints("pads", &[0, 0, 1, 1]),
    ];
    graph.node("Conv", &["x", "w", "b"], "conv", attributes);
    graph.node("Clip", &["conv", "0", "6"], "relu6", vec![]);
    graph.node("Add", &["relu6", "conv"], "sum", vec![]);
    graph.node("GlobalAveragePool", &["sum"], "mean", vec![]);
    graph.node("Flatten", &["mean"], "flat", vec![int("axis", 1)]);
    graph.node(
        "Gemm",
        &["flat", "fw", "fb"],
        "logits",
        vec![int("transB", 1)],
    );
    let engine = graph.engine();
    assert_eq!(engine.nodes().fast, 0);

    let pixels = random.pixels(HEIGHT, WIDTH);
    let at = |y: usize, x: usize, c: usize| -> f64 {
        let inside = y < HEIGHT && x < WIDTH;
        if inside {
            (f64::from(pixels.data[(y * WIDTH + x) * 3 + c]) - 127.0) / 128.0
        } else {
            0.0
        }
    };
    let mut mean = [0f64; 4];
    for y in 0..6 {
        for x in 0..5 {
            for (o, mean) in mean.iter_mut().enumerate() {
                let mut sum = [0.1, -0.2, 0.3, 0.4][o];
                for (i, w) in weights[o * 27..][..27].iter().enumerate() {
                    sum += f64::from(*w) * at(2 * y + i % 9 / 3, 2 * x + i % 3, i / 9);
                }
                *mean += (sum.clamp(0.0, 6.0) + sum) / 30.0;
            }
        }
    }
    for (o, logit) in engine.logits(&pixels).unwrap().iter().enumerate() {
        let products = (0..4).map(|i| f64::from(linear[o * 4 + i]) * mean[i]);
        let expected = products.sum::<f64>() + [0.5, -0.5][o];
        assert!(
            (f64::from(*logit) - expected).abs() < 1e-4,
            "{logit} {expected}"
        );
    }
}

/// One engine gives the same bits from many threads at once.
#[test]
fn an_engine_is_shared_between_threads() {
    let mut random = Random(9);
    let conv = Conv::random(&mut random, 3, 20, 3, 1, false);
    let head = Head::random(&mut random, 20, 7);
    let mut graph = Graph::new(HEIGHT, WIDTH, 7);
    graph.transpose();
    graph.conv("pixels", "conv", &conv);
    finish(&mut graph, "conv", (0.02, 30), &head);
    let engine = graph.engine();
    let pictures: Vec<Pixels> = (0..8).map(|_| random.pixels(HEIGHT, WIDTH)).collect();
    let expected: Vec<Vec<f32>> = pictures
        .iter()
        .map(|pixels| engine.logits(pixels).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (pixels, expected) in pictures.iter().zip(&expected) {
                    assert_eq!(&engine.logits(pixels).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn threads_share_the_work_without_changing_it() {
    const SIDE: usize = 96;
    let mut random = Random(10);
    // Large enough to be worth sharing.
    let dense = Conv::random(&mut random, 3, 32, 3, 2, false);
    let depthwise = Conv::random(&mut random, 32, 32, 5, 1, true);
    let wide = Conv::random(&mut random, 32, 48, 1, 1, false);
    let head = Head::random(&mut random, 48, 9);
    let mut graph = Graph::new(SIDE, SIDE, 9);
    graph.transpose();
    graph.conv("pixels", "dense", &dense);
    graph.conv("dense", "depthwise", &depthwise);
    graph.conv("depthwise", "wide", &wide);
    finish(&mut graph, "wide", (0.02, 9), &head);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, graph.file()).unwrap();
    let alone = graph.engine();
    for threads in [2, 3, 7] {
        let shared = Engine::open_with_threads(&path, threads).unwrap();
        for _ in 0..20 {
            let pixels = random.pixels(SIDE, SIDE);
            let logits = shared.logits(&pixels).unwrap();
            assert_eq!(logits, alone.logits(&pixels).unwrap(), "{threads}");
        }
    }
}
