//! Small graphs of operators, each reading what others made: on every instruction set, on one thread and on two, they
//! leave the same memory as on the plain one.

use std::ops::Range;
use std::sync::Mutex;

use graft_kernels::{
    AlignedBytes, ConcatInput, ConvParameters, Invalid, Isa, Operator, Padding, Quantization,
    SLACK, Threads, Window,
};

use crate::random::{Random, cases};

/// Bytes of the largest activation.
const LARGEST: usize = 1500;

/// Most products of one operator.
const MOST_PRODUCTS: usize = 20_000;

/// Most operators of a graph that make bytes.
const MOST_STEPS: usize = 8;

/// Bytes that hold any graph: two inputs and what the operators make, with slack and a gap after each.
const MEMORY: usize = (MOST_STEPS + 2) * (LARGEST + 3 * SLACK);

/// Bytes of scratch that suffice for operators this small.
const SCRATCH: usize = 1 << 18;

/// An activation and its place in memory.
#[derive(Debug, Clone, Copy)]
struct Activation {
    /// Height, width, channels.
    image: [usize; 3],
    quantization: Quantization,
    start: usize,
}

impl Activation {
    fn len(&self) -> usize {
        self.image.iter().product()
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len()
    }

    fn positions(&self) -> usize {
        self.image[0] * self.image[1]
    }

    fn channels(&self) -> usize {
        self.image[2]
    }
}

/// An operator as each instruction set computes it, and the activations that it reads.
struct Step<T = u8> {
    name: &'static str,
    operators: Vec<Operator<T>>,
    inputs: Vec<usize>,
}

/// A graph: its activations are the inputs, then what each step makes.
struct Graph<'a> {
    isas: &'a [Isa],
    /// Whether all scales are powers of two, so that requantization meets ties.
    ties: bool,
    activations: Vec<Activation>,
    steps: Vec<Step>,
    logits: Option<Step<f32>>,
    /// Bytes of memory that it takes.
    len: usize,
}

impl<'a> Graph<'a> {
    fn random(isas: &'a [Isa], random: &mut Random) -> Graph<'a> {
        let mut graph = Graph {
            isas,
            ties: random.below(4) == 0,
            activations: vec![],
            steps: vec![],
            logits: None,
            len: 0,
        };
        let mut image = [random.range(1, 9), random.range(1, 9), random.range(1, 20)];
        match random.below(8) {
            0 => image = [1, random.range(1, 40), random.range(1, 36)],
            1 => image = [random.range(1, 4), random.range(1, 4), random.range(1, 90)],
            _ => {}
        }
        let inputs = [image, *random.pick(&[image, [1, 1, image[2]]])];
        for image in &inputs[..random.range(1, 2)] {
            let quantization = graph.quantization(random, 0.05);
            graph.place(random, *image, quantization);
        }
        let steps = random.range(2, MOST_STEPS);
        while graph.steps.len() < steps {
            // What does not fit the activation, or is refused on all instruction sets alike, is not there.
            let _ = graph.grow(random);
        }
        if random.below(2) == 0 {
            graph.logits = graph.linear(random);
        }
        graph
    }

    /// Finds the place of an activation that nothing overlaps.
    fn place(&mut self, random: &mut Random, image: [usize; 3], quantization: Quantization) {
        let gap = random.below(2) * random.below(SLACK);
        let activation = Activation {
            image,
            quantization,
            start: self.len + gap,
        };
        self.len = (activation.range().end + SLACK).next_multiple_of(SLACK);
        self.activations.push(activation);
    }

    fn scale(&self, random: &mut Random, magnitude: f32) -> f32 {
        const MANTISSA: u32 = (1 << 23) - 1;
        let scale = random.scale(magnitude);
        if self.ties {
            f32::from_bits(scale.to_bits() & !MANTISSA)
        } else {
            scale
        }
    }

    fn quantization(&self, random: &mut Random, magnitude: f32) -> Quantization {
        Quantization {
            scale: self.scale(random, magnitude),
            ..random.quantization(magnitude)
        }
    }

    /// Adds a step that makes an `image`, if its operator can be built.
    fn step(
        &mut self,
        random: &mut Random,
        name: &'static str,
        inputs: &[usize],
        (image, quantization): ([usize; 3], Quantization),
        build: impl Fn(Isa) -> Result<Operator, Invalid>,
    ) -> Option<()> {
        let operators = self.build(build)?;
        assert_eq!(operators[0].output_len(), image.iter().product::<usize>());
        self.steps.push(Step {
            name,
            operators,
            inputs: inputs.to_vec(),
        });
        self.place(random, image, quantization);
        Some(())
    }

    /// An operator on every instruction set, or none where it is refused.
    fn build<T>(
        &self,
        build: impl Fn(Isa) -> Result<Operator<T>, Invalid>,
    ) -> Option<Vec<Operator<T>>> {
        let (plain, others) = self.isas.split_first()?;
        let mut operators = vec![build(*plain).ok()?];
        operators.extend(others.iter().map(|isa| build(*isa).unwrap()));
        Some(operators)
    }

    /// Adds a random step on the newest activation, or on any.
    fn grow(&mut self, random: &mut Random) -> Option<()> {
        let newest = self.activations.len() - 1;
        let any = random.below(newest + 1);
        let x = *random.pick(&[newest, newest, any]);
        match random.below(16) {
            0..4 => self.pointwise(random, x),
            4..6 => self.conv(random, x),
            6..9 => self.depthwise(random, x),
            9 => self.add(random, x),
            10 => self.multiply(random, x),
            11 => self.multiply_channels(random, x),
            12 => self.concat(random, x),
            13 => self.max_pool(random, x),
            14 => self.average_pool(random, x),
            _ => self.table(random, x),
        }
    }

    fn pointwise(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let window = Window::new(self.activations[x].image, [1, 1], [1, 1], [0; 4]).ok()?;
        self.dense(random, "pointwise", x, window, 1)
    }

    fn conv(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let (window, taps) = window(random, self.activations[x].image)?;
        self.dense(random, "conv", x, window, taps)
    }

    fn dense(
        &mut self,
        random: &mut Random,
        name: &'static str,
        x: usize,
        window: Window,
        taps: usize,
    ) -> Option<()> {
        let from = self.activations[x];
        let depth = taps * from.channels();
        let [height, width] = window.output();
        let most = (MOST_PRODUCTS / depth).min(LARGEST) / (height * width);
        let few = random.range(1, most.clamp(1, 20));
        let many = random.range(1, most.clamp(1, 70));
        let n = *random.pick(&[few, from.channels(), many]);
        if n > most {
            return None;
        }
        let to = self.quantization(random, 0.05);
        let values = self.values(random, n, depth, from.quantization, to);
        self.step(random, name, &[x], ([height, width, n], to), |isa| {
            Operator::conv(isa, window, n, values.parameters(from.quantization, to))
        })
    }

    fn depthwise(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let from = self.activations[x];
        let (window, taps) = window(random, from.image)?;
        let image = image(&window, from.channels())?;
        let to = self.quantization(random, 0.05);
        let values = self.values(random, from.channels(), taps, from.quantization, to);
        self.step(random, "depthwise", &[x], (image, to), |isa| {
            Operator::depthwise(isa, window, values.parameters(from.quantization, to))
        })
    }

    /// Weights, biases and scales of a convolution most of whose results are no extremes; rarely, all of them are.
    fn values(
        &self,
        random: &mut Random,
        channels: usize,
        depth: usize,
        from: Quantization,
        to: Quantization,
    ) -> Values {
        // Products of random bytes and weights are of this magnitude, and their sum grows with the root of their number.
        let sum = 74.0 * 74.0 * (depth as f32).sqrt();
        let spread = *random.pick(&[10.0, 50.0, 50.0, 100.0]);
        let mut usual = spread / sum * to.scale / from.scale;
        if random.below(64) == 0 {
            usual *= *random.pick(&[1e-20, 1e-3, 1e4, 1e9]);
        }
        let scales = *random.pick(&[1, channels]);
        let biases = *random.pick(&[0, channels]);
        Values {
            weights: random.weights(channels * depth),
            bias: random.biases(biases),
            scales: (0..scales).map(|_| self.scale(random, usual)).collect(),
        }
    }

    /// Some activation for which `fits` holds.
    fn other(&self, random: &mut Random, fits: impl Fn(&Activation) -> bool) -> Option<usize> {
        let start = random.below(self.activations.len());
        let turn = (start..self.activations.len()).chain(0..start);
        turn.into_iter().find(|i| fits(&self.activations[*i]))
    }

    fn add(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let a = self.activations[x];
        let y = self.other(random, |other| other.image == a.image)?;
        let (a, b) = (a.quantization, self.activations[y].quantization);
        let (len, image) = (self.activations[x].len(), self.activations[x].image);
        let to = self.quantization(random, 0.05);
        self.step(random, "add", &[x, y], (image, to), |isa| {
            Operator::add(isa, len, a, b, to)
        })
    }

    fn multiply(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let a = self.activations[x];
        let y = self.other(random, |other| other.image == a.image)?;
        let b = self.activations[y].quantization;
        let to = self.quantization(random, 0.2);
        self.step(random, "multiply", &[x, y], (a.image, to), |isa| {
            Operator::multiply(isa, a.len(), a.quantization, b, to)
        })
    }

    /// By a byte for each channel; makes such bytes where there are none.
    fn multiply_channels(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let a = self.activations[x];
        let one = [1, 1, a.channels()];
        let Some(y) = self.other(random, |other| other.image == one) else {
            let to = self.quantization(random, 0.02);
            return self.step(random, "global average pool", &[x], (one, to), |isa| {
                Operator::global_average_pool(isa, a.image, a.quantization, to)
            });
        };
        let b = self.activations[y].quantization;
        let to = self.quantization(random, 0.2);
        self.step(random, "multiply channels", &[x, y], (a.image, to), |isa| {
            let (positions, channels) = (a.positions(), a.channels());
            Operator::multiply_channels(isa, positions, channels, a.quantization, b, to)
        })
    }

    fn concat(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let [height, width, _] = self.activations[x].image;
        let mut inputs = vec![x];
        for _ in 0..random.below(4) {
            inputs.push(self.other(random, |other| other.image[..2] == [height, width])?);
        }
        let parts = inputs.iter().map(|i| ConcatInput {
            channels: self.activations[*i].channels(),
            quantization: self.activations[*i].quantization,
        });
        let parts: Vec<ConcatInput> = parts.collect();
        let channels = parts.iter().map(|part| part.channels).sum();
        if height * width * channels > LARGEST {
            return None;
        }
        let other = self.quantization(random, 0.05);
        let to = *random.pick(&[other, parts[0].quantization]);
        let image = [height, width, channels];
        self.step(random, "concat", &inputs, (image, to), |isa| {
            Operator::concat(isa, height * width, &parts, to)
        })
    }

    fn max_pool(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let from = self.activations[x];
        let (window, _) = window(random, from.image)?;
        let image = image(&window, from.channels())?;
        self.step(
            random,
            "max pool",
            &[x],
            (image, from.quantization),
            |isa| Operator::max_pool(isa, window),
        )
    }

    fn average_pool(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let from = self.activations[x];
        let (window, _) = window(random, from.image)?;
        let image = image(&window, from.channels())?;
        let padding = *random.pick(&[Padding::Counts, Padding::IsLeftOut]);
        let to = self.quantization(random, 0.03);
        self.step(random, "average pool", &[x], (image, to), |isa| {
            Operator::average_pool(isa, window, padding, from.quantization, to)
        })
    }

    fn table(&mut self, random: &mut Random, x: usize) -> Option<()> {
        let from = self.activations[x];
        let mut row = || <[u8; 256]>::try_from(random.noise(256)).unwrap();
        let mut rows: Vec<[u8; 256]> = vec![row(); from.channels()];
        let channels = rows.len();
        // As many of their own as shows which row is whose.
        for own in (0..channels.min(4)).map(|i| i * 7 % channels) {
            rows[own] = row();
        }
        if random.below(2) == 0 {
            rows = vec![rows[0]; channels];
        }
        let to = self.quantization(random, 0.05);
        self.step(random, "table", &[x], (from.image, to), |isa| {
            Operator::table(isa, from.positions(), &rows)
        })
    }

    fn linear(&self, random: &mut Random) -> Option<Step<f32>> {
        let x = self.activations.len() - 1;
        let inputs = self.activations[x].len();
        let n = random.range(1, (MOST_PRODUCTS / inputs).clamp(1, 40));
        let weights = random.weights(inputs * n);
        let bias = random.biases(n);
        let scales: Vec<f32> = (0..n).map(|_| self.scale(random, 0.001)).collect();
        let zero_point = self.activations[x].quantization.zero_point;
        let operators =
            self.build(|isa| Operator::linear(isa, inputs, &weights, &bias, zero_point, &scales))?;
        Some(Step {
            name: "linear",
            operators,
            inputs: vec![x],
        })
    }

    fn inputs(&self) -> &[Activation] {
        &self.activations[..self.activations.len() - self.steps.len()]
    }

    /// What the steps make.
    fn made(&self) -> &[Activation] {
        &self.activations[self.activations.len() - self.steps.len()..]
    }

    fn names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.name).collect()
    }

    /// What this byte of memory belongs to.
    fn name_of(&self, byte: usize) -> String {
        let is_in = |activation: &Activation| activation.range().contains(&byte);
        match self.made().iter().position(is_in) {
            Some(step) => format!("the bytes of step {step} ({})", self.steps[step].name),
            None => "bytes that no step makes".to_owned(),
        }
    }
}

/// The values of a convolution.
struct Values {
    weights: Vec<i8>,
    bias: Vec<i32>,
    scales: Vec<f32>,
}

impl Values {
    fn parameters(&self, input: Quantization, output: Quantization) -> ConvParameters<'_> {
        ConvParameters {
            weights: &self.weights,
            bias: &self.bias,
            weight_scales: &self.scales,
            input,
            output,
        }
    }
}

/// A window on `image`, and its taps.
fn window(random: &mut Random, image: [usize; 3]) -> Option<(Window, usize)> {
    let (kernel, stride) = match random.below(4) {
        0 => (
            [random.range(1, 5), random.range(1, 5)],
            [random.range(1, 3), random.range(1, 3)],
        ),
        1 => (*random.pick(&[[1, 7], [7, 1], [2, 2], [5, 5]]), [1, 1]),
        _ => (
            *random.pick(&[[3, 3], [5, 5]]),
            *random.pick(&[[1, 1], [2, 2]]),
        ),
    };
    let padding = if random.below(2) == 0 {
        std::array::from_fn(|side| kernel[side % 2] / 2)
    } else {
        std::array::from_fn(|side| random.below(kernel[side % 2]))
    };
    let window = Window::new(image, kernel, stride, padding).ok()?;
    Some((window, kernel[0] * kernel[1]))
}

/// What `window` makes with as many channels, if it is not too large.
fn image(window: &Window, channels: usize) -> Option<[usize; 3]> {
    let [height, width] = window.output();
    (height * width * channels <= LARGEST).then_some([height, width, channels])
}

/// What graphs run in.
struct Memory {
    bytes: AlignedBytes,
    logits: Vec<f32>,
    /// Of each thread.
    scratch: [AlignedBytes; 2],
}

impl Memory {
    fn new() -> Memory {
        Memory {
            bytes: AlignedBytes::new(MEMORY),
            logits: vec![],
            scratch: [AlignedBytes::new(SCRATCH), AlignedBytes::new(SCRATCH)],
        }
    }

    /// Runs `graph` as the instruction set of this index computes it, each operator in so many parts, on memory that
    /// starts as `content`.
    fn run(&mut self, graph: &Graph, isa: usize, parts: usize, threads: &Threads, content: &[u8]) {
        self.bytes[..graph.len].copy_from_slice(content);
        for (step, output) in graph.steps.iter().zip(graph.made()) {
            let (before, after) = self.bytes.split_at_mut(output.start);
            let starts = step.inputs.iter().map(|i| graph.activations[*i].start);
            let inputs: Vec<&[u8]> = starts.map(|start| &before[start..]).collect();
            let output = &mut after[..output.len()];
            let operator = &step.operators[isa];
            share(operator, parts, &inputs, output, &mut self.scratch, threads);
        }
        self.logits.clear();
        if let Some(step) = &graph.logits {
            let operator = &step.operators[isa];
            self.logits.resize(operator.output_len(), 0.0);
            let input = &self.bytes[graph.activations[step.inputs[0]].start..];
            let output = &mut self.logits[..];
            share(
                operator,
                parts,
                &[input],
                output,
                &mut self.scratch,
                threads,
            );
        }
    }
}

/// Runs the operator's parts, each with scratch of its own.
fn share<T: Send>(
    operator: &Operator<T>,
    parts: usize,
    inputs: &[&[u8]],
    mut output: &mut [T],
    scratch: &mut [AlignedBytes],
    threads: &Threads,
) {
    let parts = operator.split(parts).into_iter().zip(scratch);
    let parts: Vec<_> = parts
        .map(|(units, scratch)| {
            let len = operator.output_range(units.clone()).len();
            let own = output.split_off_mut(..len).unwrap();
            Mutex::new((units, own, &mut scratch[..operator.scratch_len()]))
        })
        .collect();
    threads.run(parts.len(), &|part| {
        let (units, output, scratch) = &mut *parts[part].lock().unwrap();
        let ran = operator.run_part(units.clone(), inputs, output, scratch);
        ran.unwrap();
    });
}

#[test]
fn graphs() {
    let isas = Isa::available();
    assert!(isas[0] == Isa::PLAIN);
    let (one, two) = (Threads::new(1), Threads::new(2));
    let (mut plain, mut memory) = (Memory::new(), Memory::new());
    let noise = Random(0).bytes(2 * MEMORY);
    cases(8, 20_000, |random| {
        let graph = Graph::random(&isas, random);
        let from = random.below(MEMORY);
        let mut content = noise[from..from + graph.len].to_vec();
        for input in graph.inputs() {
            content[input.range()].copy_from_slice(&random.bytes(input.len()));
        }
        plain.run(&graph, 0, 1, &one, &content);
        // A thread is woken in the time in which a graph runs twenty times: mostly, both parts run on this one.
        let threads = if random.below(100) == 0 { &two } else { &one };
        for (isa, parts) in (0..isas.len()).flat_map(|isa| [(isa, 1), (isa, 2)]).skip(1) {
            memory.run(&graph, isa, parts, threads, &content);
            let (found, right) = (&memory.bytes[..graph.len], &plain.bytes[..graph.len]);
            if found != right || memory.logits != plain.logits {
                let mut pairs = found.iter().zip(right);
                let what = match pairs.position(|(found, right)| found != right) {
                    Some(at) => graph.name_of(at),
                    None => "the logits".to_owned(),
                };
                let name = isas[isa].name();
                panic!(
                    "{name} in {parts} parts: {what} differ, in {:?}",
                    graph.names()
                );
            }
        }
    });
}
