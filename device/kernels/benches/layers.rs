//! Time of every layer of EfficientNet-Lite0, MobileNetV2 and ResNet-18, and of each net as a whole, on one thread.
//!
//! `cargo bench -p graft-kernels --bench layers -- [lite0|mobilenetv2|resnet18] [INSTRUCTION SET] [seven] [layers]`:
//! `seven` takes weights of seven bits, `layers` prints every layer beside the sums. A sample counts only if a loop that
//! needs nothing but registers ran at its full speed just before and after.
//!
//! `runs=N` runs the layers N times in sequence and measures nothing: under an emulator that counts instructions, the
//! difference of two counts is what one inference takes. `only=PREFIX` keeps the layers whose name starts so.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use graft_kernels::{AlignedBytes, ConvParameters, Isa, Operator, Quantization, SLACK, Window};

/// A small generator of repeatable numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Rows of weights that look trained: bell-shaped, the largest of each row at `limit`.
    fn weights(&mut self, rows: usize, depth: usize, limit: f32) -> Vec<i8> {
        let mut weights = Vec::with_capacity(rows * depth);
        for _ in 0..rows {
            let bell = |random: &mut Random| {
                let bits = random.next();
                (0..8)
                    .map(|i| (bits >> (8 * i) & 0xff) as f32 - 127.5)
                    .sum()
            };
            let row: Vec<f32> = (0..depth).map(|_| bell(self)).collect();
            let largest = row.iter().fold(1.0f32, |a, b| a.max(b.abs()));
            weights.extend(row.iter().map(|w| (w / largest * limit).round() as i8));
        }
        weights
    }
}

enum Layer {
    Image(Operator),
    Logits(Operator<f32>),
}

struct Named {
    name: String,
    layer: Layer,
}

/// Builds the layers of a net one after the other.
struct Builder {
    isa: Isa,
    /// Spent in constructors.
    packing: Duration,
    limit: f32,
    random: Random,
    picture: [usize; 3],
    layers: Vec<Named>,
}

const INPUT: Quantization = Quantization {
    scale: 0.02,
    zero_point: 3,
};

impl Builder {
    fn window(&self, kernel: usize, stride: usize) -> Window {
        let before = kernel / 2;
        let size = self.picture[0];
        // As "same" padding: an even picture with stride 2 has its padding behind.
        let (first, last) = if stride == 2 && kernel > 1 {
            (before - 1, before)
        } else {
            (before, before)
        };
        assert_eq!(size, self.picture[1]);
        Window::new(
            self.picture,
            [kernel; 2],
            [stride; 2],
            [first, first, last, last],
        )
        .unwrap()
    }

    fn push(&mut self, name: String, layer: Layer) {
        self.layers.push(Named { name, layer });
    }

    fn conv(&mut self, channels: usize, kernel: usize, stride: usize) {
        let window = self.window(kernel, stride);
        let depth = kernel * kernel * self.picture[2];
        let weights = self.random.weights(channels, depth, self.limit);
        let isa = self.isa;
        let conv = self.build(&weights, |p| {
            Operator::conv(isa, window, channels, p).unwrap()
        });
        let [height, width, from] = self.picture;
        let name = format!(
            "conv {height:3} x {width:3} x {from:4} -> {channels:4}  {kernel}x{kernel} / {stride}"
        );
        let [height, width] = window.output();
        self.picture = [height, width, channels];
        self.push(name, Layer::Image(conv));
    }

    fn depthwise(&mut self, kernel: usize, stride: usize) {
        let window = self.window(kernel, stride);
        let [height, width, channels] = self.picture;
        let weights = self.random.weights(channels, kernel * kernel, self.limit);
        let isa = self.isa;
        let conv = self.build(&weights, |p| Operator::depthwise(isa, window, p).unwrap());
        let name = format!(
            "dw   {height:3} x {width:3} x {channels:4}          {kernel}x{kernel} / {stride}"
        );
        let [height, width] = window.output();
        self.picture = [height, width, channels];
        self.push(name, Layer::Image(conv));
    }

    fn build(&mut self, weights: &[i8], build: impl Fn(ConvParameters) -> Operator) -> Operator {
        let start = Instant::now();
        let operator = build(ConvParameters {
            weights,
            bias: &[],
            weight_scales: &[0.002],
            input: INPUT,
            output: INPUT,
        });
        self.packing += start.elapsed();
        operator
    }

    fn add(&mut self) {
        let len = self.picture.iter().product();
        let add = Operator::add(self.isa, len, INPUT, INPUT, INPUT).unwrap();
        self.push(format!("add  {:?}", self.picture), Layer::Image(add));
    }

    /// Expansion, depthwise, projection, as of MobileNetV2 (Sandler et al. 2018); `repeats` of them.
    fn inverted(
        &mut self,
        expansion: usize,
        channels: usize,
        kernel: usize,
        stride: usize,
        repeats: usize,
    ) {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let from = self.picture[2];
            if expansion > 1 {
                self.conv(from * expansion, 1, 1);
            }
            self.depthwise(kernel, stride);
            self.conv(channels, 1, 1);
            if repeat > 0 {
                self.add();
            }
        }
    }

    fn head(&mut self, classes: usize) {
        let pool = Operator::global_average_pool(self.isa, self.picture, INPUT, INPUT).unwrap();
        self.push("global average pool".into(), Layer::Image(pool));
        let inputs = self.picture[2];
        let weights = self.random.weights(1, inputs * classes, self.limit);
        let linear = Operator::linear(self.isa, inputs, &weights, &[], 3, &[0.001]).unwrap();
        self.push(
            format!("linear {inputs} -> {classes}"),
            Layer::Logits(linear),
        );
    }

    fn lite0(&mut self) {
        self.conv(32, 3, 2);
        self.inverted(1, 16, 3, 1, 1);
        self.inverted(6, 24, 3, 2, 2);
        self.inverted(6, 40, 5, 2, 2);
        self.inverted(6, 80, 3, 2, 3);
        self.inverted(6, 112, 5, 1, 3);
        self.inverted(6, 192, 5, 2, 4);
        self.inverted(6, 320, 3, 1, 1);
        self.conv(1280, 1, 1);
        self.head(1000);
    }

    fn mobilenetv2(&mut self) {
        self.conv(32, 3, 2);
        self.inverted(1, 16, 3, 1, 1);
        self.inverted(6, 24, 3, 2, 2);
        self.inverted(6, 32, 3, 2, 3);
        self.inverted(6, 64, 3, 2, 4);
        self.inverted(6, 96, 3, 1, 3);
        self.inverted(6, 160, 3, 2, 3);
        self.inverted(6, 320, 3, 1, 1);
        self.conv(1280, 1, 1);
        self.head(1000);
    }

    fn resnet18(&mut self) {
        self.conv(64, 7, 2);
        let window = self.window(3, 2);
        let pool = Operator::max_pool(self.isa, window).unwrap();
        self.push("max pool".into(), Layer::Image(pool));
        self.picture = [56, 56, 64];
        for channels in [64, 128, 256, 512] {
            for block in 0..2 {
                let stride = if block == 0 && channels > 64 { 2 } else { 1 };
                if stride == 2 {
                    let picture = self.picture;
                    self.conv(channels, 1, 2);
                    self.picture = picture;
                }
                self.conv(channels, 3, stride);
                self.conv(channels, 3, 1);
                self.add();
            }
        }
        self.head(1000);
    }
}

/// Nanoseconds of a loop that needs nothing but registers.
fn gate() -> f64 {
    let start = Instant::now();
    let mut x = 1u64;
    for i in 0..20_000u64 {
        x = black_box(x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i);
    }
    black_box(x);
    start.elapsed().as_secs_f64() * 1e9
}

/// Minimum and median of gated samples of `run`, in microseconds.
fn measure(fastest_gate: &mut f64, samples: usize, mut run: impl FnMut()) -> [f64; 2] {
    run();
    let start = Instant::now();
    run();
    let once = start.elapsed().as_secs_f64();
    let repeats = (200e-6 / once).ceil().max(1.0) as usize;
    let (mut kept, mut all) = (vec![], vec![]);
    let begin = Instant::now();
    let mut before = gate();
    while kept.len() < samples && begin.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        for _ in 0..repeats {
            run();
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / repeats as f64;
        let after = gate();
        *fastest_gate = fastest_gate.min(before).min(after);
        all.push(micros);
        if before.max(after) < *fastest_gate * 1.03 {
            kept.push(micros);
        }
        before = after;
    }
    if kept.len() < 3 {
        kept = all;
    }
    kept.sort_by(f64::total_cmp);
    [kept[0], kept[kept.len() / 2]]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let value = |key: &str| arguments.iter().find_map(|a| a.strip_prefix(key));
    let runs: Option<usize> = value("runs=").map(|runs| runs.parse().unwrap());
    let nets = ["lite0", "mobilenetv2", "resnet18"];
    let mut fastest_gate = (0..200).map(|_| gate()).fold(f64::MAX, f64::min);
    let isas = Isa::available();
    for net in nets {
        if nets.iter().any(|n| has(n)) && !has(net) {
            continue;
        }
        for isa in isas.iter().rev() {
            let named = isas.iter().any(|isa| has(isa.name()));
            if (named && !has(isa.name())) || (!named && *isa == Isa::PLAIN) {
                continue;
            }
            let mut builder = Builder {
                isa: *isa,
                packing: Duration::ZERO,
                limit: if has("seven") { 64.0 } else { 127.0 },
                random: Random(88_172_645_463_325_252),
                picture: [224, 224, 3],
                layers: vec![],
            };
            match net {
                "lite0" => builder.lite0(),
                "mobilenetv2" => builder.mobilenetv2(),
                _ => builder.resnet18(),
            }
            if let Some(only) = value("only=") {
                builder.layers.retain(|layer| layer.name.starts_with(only));
            }
            if let Some(runs) = runs {
                run_net(&builder, runs);
                continue;
            }
            time_net(net, &mut builder, has("layers"), &mut fastest_gate);
        }
    }
}

fn run_net(builder: &Builder, runs: usize) {
    let input = AlignedBytes::new(112 * 112 * 96 + SLACK);
    let mut output = AlignedBytes::new(112 * 112 * 96);
    let mut logits = vec![0.0; 1000];
    let mut scratch = AlignedBytes::new(1 << 20);
    for Named { layer, .. } in (0..runs).flat_map(|_| &builder.layers) {
        match layer {
            Layer::Image(operator) => {
                let inputs = &[&input[..]; 2][..operator.input_lens().len()];
                let output = &mut output[..operator.output_len()];
                operator.run(inputs, output, &mut scratch).unwrap();
            }
            Layer::Logits(operator) => {
                let inputs = [&input[..]];
                operator.run(&inputs, &mut logits, &mut scratch).unwrap();
            }
        }
    }
}

fn time_net(net: &str, builder: &mut Builder, each: bool, fastest_gate: &mut f64) {
    const ACTIVATION: usize = 112 * 112 * 96 + SLACK;
    let mut buffers: Vec<AlignedBytes> = (0..3).map(|_| AlignedBytes::new(ACTIVATION)).collect();
    for buffer in &mut buffers {
        for byte in &mut buffer[..] {
            *byte = (builder.random.next() >> 57) as u8;
        }
    }
    let scratch_len = |layer: &Named| match &layer.layer {
        Layer::Image(operator) => operator.scratch_len(),
        Layer::Logits(operator) => operator.scratch_len(),
    };
    let mut scratch = AlignedBytes::new(builder.layers.iter().map(scratch_len).max().unwrap_or(0));
    let mut logits = vec![0.0; 1000];
    let [mut a, mut b, shortcut] = <[AlignedBytes; 3]>::try_from(buffers).unwrap();
    let mut run = |layer: &Layer, a: &AlignedBytes, b: &mut AlignedBytes| match layer {
        Layer::Image(operator) => {
            let inputs = [&a[..], &shortcut[..]];
            let inputs = &inputs[..operator.input_lens().len()];
            let output = &mut b[..operator.output_len()];
            operator.run(inputs, output, &mut scratch).unwrap();
        }
        Layer::Logits(operator) => operator.run(&[&a[..]], &mut logits, &mut scratch).unwrap(),
    };
    let mut sum = [0.0, 0.0];
    let mut kinds: Vec<(String, f64)> = vec![];
    for Named { name, layer } in &builder.layers {
        let macs = match layer {
            Layer::Image(operator) => operator.macs(),
            Layer::Logits(operator) => operator.macs(),
        };
        let [least, median] = measure(fastest_gate, 9, || run(layer, &a, &mut b));
        sum = [sum[0] + least, sum[1] + median];
        let kind = name.split(' ').next().unwrap_or("").to_string();
        match kinds.iter_mut().find(|k| k.0 == kind) {
            Some(k) => k.1 += median,
            None => kinds.push((kind, median)),
        }
        if each {
            println!(
                "  {name:42} {least:8.1} {median:8.1} us {:6.1} GMAC/s",
                macs as f64 / median / 1e3
            );
        }
    }
    let whole = measure(fastest_gate, 31, || {
        for Named { layer, .. } in &builder.layers {
            run(layer, &a, &mut b);
            std::mem::swap(&mut a, &mut b);
        }
    });
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(k, v)| format!("{k} {:.2}", v / 1e3))
        .collect();
    println!(
        "{net} on {}: layers {:.2} / {:.2} ms, in sequence {:.2} / {:.2} ms (minimum / median); {}; packed in {:.0} ms",
        builder.isa.name(),
        sum[0] / 1e3,
        sum[1] / 1e3,
        whole[0] / 1e3,
        whole[1] / 1e3,
        kinds.join(", "),
        builder.packing.as_secs_f64() * 1e3
    );
}
