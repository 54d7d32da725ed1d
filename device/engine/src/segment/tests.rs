//! Random graphs of our operators: gathered into segments, whose slots are reused, on one thread and on two, they give
//! what the operators give one after the other in plain code, each into memory of its own.
//!
//! `GRAFT_FUZZ_CASES` sets the number of graphs, `GRAFT_FUZZ_SEED` where they start.

use graft_kernels::Quantization;
use tract_core::ops::change_axes::AxisOp;

use super::*;
use crate::ops::concat::Concat;
use crate::ops::conv::Convolution;
use crate::ops::global_average_pool::Pool;
use crate::ops::head::Head;
use crate::ops::max_pool::BytesMaxPool;
use crate::ops::multiply::Multiply;
use crate::ops::quantize::QuantizePicture;
use crate::ops::residual_add::ResidualAdd;
use crate::ops::table::ByteTable;
use crate::ops::{Image, Import, Quantized};

/// Most bytes of an activation, and most products of an operator: a few times what one thread keeps to itself.
const MOST_BYTES: usize = 2 * LITTLE_OUTPUT;
const MOST_PRODUCTS: usize = 4 * FEW_MACS as usize;

/// Repeatable random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }

    fn quantization(&mut self) -> Quantization {
        Quantization {
            scale: 0.01 * self.range(1, 9) as f32,
            zero_point: self.next() as u8,
        }
    }
}

/// An activation.
#[derive(Debug, Clone, Copy)]
struct Activation {
    /// In NCHW.
    outlet: OutletId,
    image: Image,
    quantization: Quantization,
}

/// What makes an activation of others.
#[derive(Debug)]
enum Node {
    /// One of our operators, in plain code.
    Ours(Kernel, Vec<usize>),
    /// Height and width change places, by tract.
    Transposed(usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    /// Of an image in NHWC.
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

/// A graph for tract, and the same as a list.
struct Graph {
    model: TypedModel,
    /// The input, then what each node makes.
    activations: Vec<Activation>,
    nodes: Vec<Node>,
    floats: bool,
}

impl Graph {
    /// Only an input: bytes, or floats and what quantizes them.
    fn new(random: &mut Random, image: Image, floats: bool) -> TractResult<Graph> {
        let [height, width, channels] = image;
        let shape = [1, channels, height, width];
        let fact = if floats {
            f32::fact(shape)
        } else {
            u8::fact(shape)
        };
        let mut model = TypedModel::default();
        let input = Activation {
            outlet: model.add_source("input", fact)?,
            image,
            quantization: random.quantization(),
        };
        let mut graph = Graph {
            model,
            activations: vec![input],
            nodes: vec![],
            floats,
        };
        if floats {
            let output = random.quantization();
            graph.push(QuantizePicture { output }, &[0], output)?;
        }
        Ok(graph)
    }

    fn random(random: &mut Random) -> TractResult<Graph> {
        let high = if random.range(0, 3) == 0 { 32 } else { 9 };
        let image = [(); 3].map(|()| random.range(1, high));
        let floats = random.range(0, 2) == 0;
        let mut graph = Graph::new(random, image, floats)?;
        let nodes = random.range(2, 10);
        while graph.nodes.len() < nodes {
            graph.grow(random)?;
        }
        if random.range(0, 1) == 0 {
            graph.head(random)?;
        }
        let mut outputs = vec![];
        for activation in &graph.activations[1..] {
            let last = activation.outlet == graph.newest().outlet;
            if last || random.range(0, 5) == 0 {
                outputs.push(activation.outlet);
            }
        }
        graph.model.select_output_outlets(&outputs)?;
        Ok(graph)
    }

    fn newest(&self) -> &Activation {
        &self.activations[self.activations.len() - 1]
    }

    /// Adds one of our operators, if it takes these inputs and makes no more than there is room for.
    fn push(
        &mut self,
        operator: impl Quantized + 'static,
        inputs: &[usize],
        quantization: Quantization,
    ) -> TractResult<()> {
        let read = || inputs.iter().map(|i| self.activations[*i]);
        let images: Vec<Image> = read().map(|input| input.image).collect();
        let outlets: Vec<OutletId> = read().map(|input| input.outlet).collect();
        let image = match operator.output(&images) {
            Ok(Output::Image(image)) => image,
            Ok(Output::Row(n) | Output::Logits(n)) => [1, 1, n],
            Err(_) => return Ok(()),
        };
        if image.iter().product::<usize>() > MOST_BYTES {
            return Ok(());
        }
        let kernel = operator.kernel(Isa::PLAIN, &images)?;
        if kernel.macs() > MOST_PRODUCTS as u64 {
            return Ok(());
        }
        let import = Import {
            operator: Arc::new(operator),
            isa: Isa::detect(),
        };
        let name = format!("node.{}", self.nodes.len());
        let outlet = import.wire(&name, &mut self.model, &outlets)?[0];
        self.nodes.push(Node::Ours(kernel, inputs.to_vec()));
        self.activations.push(Activation {
            outlet,
            image,
            quantization,
        });
        Ok(())
    }

    /// Adds a node on the newest activation or any other of bytes.
    fn grow(&mut self, random: &mut Random) -> TractResult<()> {
        let first = usize::from(self.floats);
        let last = self.activations.len() - 1;
        let any = random.range(first, last);
        let x = if random.range(0, 1) == 0 { last } else { any };
        let a = self.activations[x];
        let like = |fits: &dyn Fn(Image) -> bool| {
            let found = (first..=last).filter(|i| fits(self.activations[*i].image));
            found.last().unwrap_or(x)
        };
        let output = random.quantization();
        match random.range(0, 8) {
            0 | 1 => self.conv(random, x, false),
            2 => self.conv(random, x, true),
            3 => {
                let y = like(&|image| image == a.image);
                let b = self.activations[y].quantization;
                let a = a.quantization;
                self.push(ResidualAdd { a, b, output }, &[x, y], output)
            }
            4 => {
                let one = [1, 1, a.image[2]];
                let y = like(&|image| image == one);
                let b = self.activations[y].quantization;
                let a = a.quantization;
                self.push(Multiply { a, b, output }, &[x, y], output)
            }
            5 => {
                let parts = [x, like(&|image| image[..2] == a.image[..2]), x];
                let parts = &parts[..random.range(2, 3)];
                let inputs = parts.iter().map(|i| self.activations[*i].quantization);
                let inputs = inputs.collect();
                self.push(Concat { inputs, output }, parts, output)
            }
            6 => {
                let pool = BytesMaxPool {
                    kernel: [2, 3],
                    stride: [1, 2],
                    padding: [1, 1, 0, 1],
                };
                self.push(pool, &[x], a.quantization)
            }
            7 => {
                let input = a.quantization;
                self.push(Pool { input, output }, &[x], output)
            }
            _ => {
                let [height, width, channels] = a.image;
                let name = format!("node.{}", self.nodes.len());
                let move_axis = AxisOp::Move(2, 3);
                let outlet = self.model.wire_node(name, move_axis, &[a.outlet])?[0];
                self.nodes.push(Node::Transposed(x));
                self.activations.push(Activation {
                    outlet,
                    image: [width, height, channels],
                    ..a
                });
                let row = std::array::from_fn(|_| random.next() as u8);
                self.push(ByteTable { rows: vec![row] }, &[last + 1], output)
            }
        }
    }

    fn conv(&mut self, random: &mut Random, x: usize, depthwise: bool) -> TractResult<()> {
        let Activation {
            image,
            quantization,
            ..
        } = self.activations[x];
        let kernel = [[1, 1], [3, 3], [2, 3]][random.range(0, 2)];
        let n = if depthwise {
            image[2]
        } else {
            [image[2], random.range(1, 40)][random.range(0, 1)]
        };
        let per_output = if depthwise { 1 } else { image[2] } * kernel[0] * kernel[1];
        let stride = random.range(1, 2);
        let output = random.quantization();
        let conv = Convolution {
            depthwise,
            channels: n,
            kernel,
            stride: [stride; 2],
            padding: std::array::from_fn(|side| kernel[side % 2] / 2),
            input: quantization,
            weights: random.weights(n * per_output).into_iter().collect(),
            weight_scales: vec![0.01 / (per_output as f32).sqrt()],
            bias: vec![],
            output,
        };
        self.push(conv, &[x], output)
    }

    /// Adds logits of the newest activation.
    fn head(&mut self, random: &mut Random) -> TractResult<()> {
        let Activation {
            image,
            quantization,
            ..
        } = *self.newest();
        let output = random.quantization();
        let input = quantization;
        self.push(
            Pool { input, output },
            &[self.activations.len() - 1],
            output,
        )?;
        let (inputs, outputs) = (image[2], random.range(1, 40));
        let head = Head {
            inputs,
            outputs,
            weights: random.weights(inputs * outputs).into_iter().collect(),
            input_zero_point: output.zero_point,
            bias: vec![],
            scales: vec![0.01],
        };
        self.push(head, &[self.activations.len() - 1], output)
    }

    fn input(&self, random: &mut Random) -> Content {
        let bytes = random.bytes(self.activations[0].image.iter().product());
        if self.floats {
            let floats = bytes.into_iter().map(|x| f32::from(x) / 16.0 - 8.0);
            Content::Floats(floats.collect())
        } else {
            Content::Bytes(bytes)
        }
    }

    /// What each activation is for this `input`.
    fn plain(&self, input: Content) -> TractResult<Vec<Content>> {
        let mut made = vec![input];
        for node in &self.nodes {
            made.push(match node {
                Node::Ours(kernel, inputs) => {
                    plain(kernel, inputs.iter().map(|input| &made[*input]))?
                }
                Node::Transposed(x) => {
                    let (Content::Bytes(bytes), [height, width, channels]) =
                        (&made[*x], self.activations[*x].image)
                    else {
                        bail!("floats are not transposed");
                    };
                    let at = |y, x| &bytes[(y * width + x) * channels..][..channels];
                    let columns = (0..width).flat_map(|x| (0..height).map(move |y| (y, x)));
                    Content::Bytes(columns.flat_map(|(y, x)| at(y, x)).copied().collect())
                }
            });
        }
        Ok(made)
    }
}

/// What `kernel` makes of `inputs`, whole and in memory of its own.
fn plain<'a>(kernel: &Kernel, inputs: impl Iterator<Item = &'a Content>) -> TractResult<Content> {
    let mut floats: &[f32] = &[];
    let mut slackened = vec![];
    for input in inputs {
        match input {
            Content::Bytes(bytes) => slackened.push([&bytes[..], &[0; SLACK]].concat()),
            Content::Floats(picture) => floats = picture,
        }
    }
    let inputs: Vec<&[u8]> = slackened.iter().map(|input| &input[..]).collect();
    Ok(match kernel {
        Kernel::Image(operator) => {
            let mut bytes = vec![0; operator.output_len()];
            let mut scratch = AlignedBytes::new(operator.scratch_len());
            operator.run(&inputs, &mut bytes, &mut scratch)?;
            Content::Bytes(bytes)
        }
        Kernel::Logits(operator) => {
            let mut logits = vec![0.0; operator.output_len()];
            let mut scratch = AlignedBytes::new(operator.scratch_len());
            operator.run(&inputs, &mut logits, &mut scratch)?;
            Content::Floats(logits)
        }
        Kernel::Quantize(quantize) => {
            let mut bytes = vec![0; quantize.len()];
            quantize.run(floats, &mut bytes)?;
            Content::Bytes(bytes)
        }
    })
}

/// The values as tract has them: those of images in NCHW.
fn tensor(
    content: &Content,
    [height, width, channels]: Image,
    shape: &[usize],
) -> TractResult<Tensor> {
    match content {
        Content::Floats(floats) => Tensor::from_shape(shape, floats),
        Content::Bytes(bytes) => {
            let plane = |c| bytes.iter().skip(c).step_by(channels).copied();
            let planes: Vec<u8> = (0..channels).flat_map(plane).collect();
            ensure!(
                planes.len() == height * width * channels,
                "an image of another size"
            );
            Tensor::from_shape(shape, &planes)
        }
    }
}

/// Compares the segments of `graph` with its operators, on one thread and on two.
fn check(graph: &Graph, random: &mut Random) -> TractResult<()> {
    let outlets = graph.model.output_outlets()?;
    let model = graph.model.clone().into_optimized()?;
    let Activation { image, outlet, .. } = graph.activations[0];
    let shape = &graph.model.outlet_fact(outlet)?.shape;
    let shape = shape.as_concrete().context("a shape of symbols")?;
    let inputs = [graph.input(random), graph.input(random)];
    for count in [1, 2] {
        let threads = Arc::new(Threads::new(count));
        let plan = TypedSimplePlan::new(gather(&model, &threads)?)?;
        // The second finds memory that the first has used.
        for input in &inputs {
            let made = graph.plain(input.clone())?;
            let found = plan.run(tvec!(tensor(input, image, shape)?.into_tvalue()))?;
            for (outlet, found) in outlets.iter().zip(found) {
                let output = graph.activations.iter().position(|a| a.outlet == *outlet);
                let output = output.context("an output that is no activation")?;
                let image = graph.activations[output].image;
                let right = tensor(&made[output], image, found.shape())?;
                let what = format!("{count} threads, activation {output}");
                assert!(*found == right, "{what} of {:?}", graph.nodes);
            }
        }
    }
    Ok(())
}

#[test]
fn segments_give_what_their_operators_give() -> TractResult<()> {
    let number = |name, default| std::env::var(name).map_or(Ok(default), |v| v.parse::<u64>());
    let cases = number("GRAFT_FUZZ_CASES", 300)?;
    let seed = number("GRAFT_FUZZ_SEED", 0)?;
    for case in seed..seed + cases {
        let mut random = Random(case);
        let graph = Graph::random(&mut random)?;
        check(&graph, &mut random).with_context(|| format!("in graph {case}"))?;
    }
    Ok(())
}

#[test]
fn a_quantized_picture_may_leave_the_segment() -> TractResult<()> {
    let mut random = Random(0);
    let mut graph = Graph::new(&mut random, [3, 4, 5], true)?;
    graph
        .model
        .select_output_outlets(&[graph.newest().outlet])?;
    check(&graph, &mut random)
}
