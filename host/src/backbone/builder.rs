//! Builds a backbone's graph layer by layer and takes the weights from named tensors.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use graft_shared::error::{Context, Error, Result};

use super::registry::PaddingRule;
use crate::nn::{Activation, BatchNorm, Conv, Function, Graph, Linear, Node, Op, Padding, Pool};

/// Tensors of a weights file, by name.
pub(super) trait Tensors {
    /// The dimensions of a tensor, `None` where there is no such tensor.
    fn dims(&self, name: &str) -> Option<Vec<usize>>;

    /// The tensor of that name and shape, f32.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor>;
}

impl Tensors for HashMap<String, Tensor> {
    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        HashMap::get(self, name).map(|tensor| tensor.dims().to_vec())
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = HashMap::get(self, name)
            .ok_or_else(|| Error::new(format!("the weights have no tensor `{name}`")))?;
        if tensor.dims() != shape {
            return Err(Error::new(format!(
                "tensor `{name}` is {:?}, the architecture needs {shape:?}",
                tensor.dims()
            )));
        }
        tensor
            .to_dtype(DType::F32)
            .and_then(|tensor| tensor.contiguous())
            .with_context(|| format!("tensor `{name}`"))
    }
}

/// Shape of a convolution. The input's channels are those of the layer before.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    channels: usize,
    kernel: [usize; 2],
    stride: usize,
    depthwise: bool,
    padded: bool,
}

impl Shape {
    /// Every output channel reads all input channels.
    pub(super) fn dense(channels: usize, kernel: usize, stride: usize) -> Shape {
        Shape {
            channels,
            kernel: [kernel; 2],
            stride,
            depthwise: false,
            padded: true,
        }
    }

    /// As [`Shape::dense`] with a kernel of any `height` and `width`, and stride 1.
    pub(super) fn rectangular(channels: usize, height: usize, width: usize) -> Shape {
        Shape {
            kernel: [height, width],
            ..Shape::dense(channels, 1, 1)
        }
    }

    /// Every output channel reads the input channel of its index.
    pub(super) fn depthwise(channels: usize, kernel: usize, stride: usize) -> Shape {
        Shape {
            depthwise: true,
            ..Shape::dense(channels, kernel, stride)
        }
    }

    /// Without zeros around the input.
    pub(super) fn unpadded(self) -> Shape {
        Shape {
            padded: false,
            ..self
        }
    }
}

/// What is added to a convolution's sums.
#[derive(Clone, Copy)]
pub(super) enum Shift<'a> {
    /// A bias, BatchNorm being folded already: the tensor `<convolution>.bias`.
    Bias,
    /// BatchNorm: the tensors `<prefix>.weight`, `.bias`, `.running_mean` and `.running_var`.
    BatchNorm { prefix: &'a str, epsilon: f64 },
}

/// Channels scaled by `width` to a multiple of 8, never more than a tenth down: `_make_divisible` of the MobileNetV2
/// reference code.
pub(super) fn scaled_channels(channels: usize, width: f64) -> usize {
    let scaled = channels as f64 * width;
    let rounded = ((scaled + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * scaled {
        rounded + 8
    } else {
        rounded
    }
}

/// A node that others may read.
#[derive(Clone, Copy)]
pub(super) struct Tip {
    node: usize,
    /// Channels of its output.
    pub(super) channels: usize,
    /// Height and width of its output, in pixels.
    size: usize,
}

/// The graph so far, and the node that the next one reads.
pub(super) struct Builder<'a> {
    tensors: &'a dyn Tensors,
    padding: PaddingRule,
    nodes: Vec<Node>,
    tip: Tip,
}

impl<'a> Builder<'a> {
    /// A graph for RGB inputs `[n, 3, input_size, input_size]`.
    pub(super) fn new(tensors: &'a dyn Tensors, input_size: usize, padding: PaddingRule) -> Self {
        let input = Node {
            name: "input".into(),
            op: Op::Input,
            inputs: Vec::new(),
        };
        Builder {
            tensors,
            padding,
            nodes: vec![input],
            tip: Tip {
                node: 0,
                channels: 3,
                size: input_size,
            },
        }
    }

    /// The node that the next one reads: the last one, unless [`Builder::go_to`] said otherwise.
    pub(super) fn tip(&self) -> Tip {
        self.tip
    }

    /// Has the next node read `tip`.
    pub(super) fn go_to(&mut self, tip: Tip) {
        self.tip = tip;
    }

    /// Whether the weights have a tensor of that name.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.tensors.dims(tensor).is_some()
    }

    /// Appends a convolution with the tensor `<key>.weight`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub(super) fn conv(
        &mut self,
        name: &str,
        key: &str,
        shift: Shift,
        shape: Shape,
        activation: Activation,
    ) -> Result<()> {
        let Shape {
            channels,
            kernel,
            stride,
            depthwise,
            padded,
        } = shape;
        let (groups, group_channels) = if depthwise {
            (channels, 1)
        } else {
            (1, self.tip.channels)
        };
        let per_channel =
            |key: &str, part: &str| self.tensors.get(&format!("{key}.{part}"), &[channels]);
        let (bias, batch_norm) = match shift {
            Shift::Bias => (Some(per_channel(key, "bias")?), None),
            Shift::BatchNorm { prefix, epsilon } => {
                let norm = BatchNorm {
                    weight: per_channel(prefix, "weight")?,
                    bias: per_channel(prefix, "bias")?,
                    mean: per_channel(prefix, "running_mean")?,
                    variance: per_channel(prefix, "running_var")?,
                    epsilon,
                };
                (None, Some(norm))
            }
        };
        let padding = if padded {
            self.padding(kernel, stride)
        } else {
            Padding::default()
        };
        let conv = Conv {
            weight: self.tensors.get(
                &format!("{key}.weight"),
                &[channels, group_channels, kernel[0], kernel[1]],
            )?,
            bias,
            batch_norm,
            stride,
            padding,
            groups,
            activation,
        };
        self.push(name, Op::Conv(conv));
        self.tip.channels = channels;
        self.slide(kernel[0], stride, padding);
        Ok(())
    }

    /// Appends the sum of the tip and an earlier node (the residual connection).
    pub(super) fn add(&mut self, name: &str, earlier: Tip, activation: Activation) {
        let inputs = vec![self.tip.node, earlier.node];
        self.push_reading(name, Op::Add(activation), inputs);
    }

    /// Appends an activation function.
    pub(super) fn function(&mut self, name: &str, function: Function) {
        self.push(name, Op::Function(function));
    }

    /// Appends a pool with a window that slides over the tip.
    pub(super) fn pool(&mut self, name: &str, pool: Pool) {
        self.push(name, Op::Pool(pool));
        self.slide(pool.kernel, pool.stride, pool.padding);
    }

    /// Appends the mean of each channel, an image of one pixel.
    pub(super) fn squeeze(&mut self, name: &str) {
        self.push(name, Op::Squeeze);
        self.tip.size = 1;
    }

    /// Appends the product of `image` and the tip, which has one pixel.
    pub(super) fn multiply_channels(&mut self, name: &str, image: Tip) {
        let inputs = vec![image.node, self.tip.node];
        self.push_reading(name, Op::MultiplyChannels, inputs);
        self.tip.size = image.size;
    }

    /// Appends the channels of `parts` side by side; they have one height and width.
    pub(super) fn concat(&mut self, name: &str, parts: &[Tip]) {
        let inputs = parts.iter().map(|part| part.node).collect();
        self.push_reading(name, Op::Concat, inputs);
        self.tip.channels = parts.iter().map(|part| part.channels).sum();
        self.tip.size = parts.first().map_or(0, |part| part.size);
    }

    /// Ends the graph with the mean of each channel, and [`Builder::classify`].
    ///
    /// # Errors
    /// A classifier that does not fit the channels.
    pub(super) fn finish(mut self, key: &str) -> Result<Graph> {
        self.push("pool", Op::GlobalAveragePool);
        self.classify(key)
    }

    /// Ends the graph where the tip is an image of one pixel, and with [`Builder::classify`].
    ///
    /// # Errors
    /// A classifier that does not fit the channels.
    pub(super) fn finish_pooled(mut self, key: &str) -> Result<Graph> {
        self.push("flatten", Op::Flatten);
        self.classify(key)
    }

    /// Appends the classifier `<key>.weight` (`[classes, channels]` or the same with two dimensions of 1 after it) and
    /// `<key>.bias` where the weights have one.
    fn classify(mut self, key: &str) -> Result<Graph> {
        let weight = format!("{key}.weight");
        if let Some(dims) = self.tensors.dims(&weight) {
            let classes = dims.first().copied().unwrap_or(0);
            let shape = [classes, self.tip.channels, 1, 1];
            let shape = if dims.len() == 4 {
                &shape[..]
            } else {
                &shape[..2]
            };
            let weight = self
                .tensors
                .get(&weight, shape)?
                .flatten_from(1)
                .context("the classifier's weight")?;
            let bias = self.tensors.get(&format!("{key}.bias"), &[classes])?;
            self.push("classifier", Op::Linear(Linear { weight, bias }));
        }
        Ok(Graph { nodes: self.nodes })
    }

    /// Zeros around the tip by the network's rule; by TensorFlow's they depend on its size.
    fn padding(&self, [height, width]: [usize; 2], stride: usize) -> Padding {
        match self.padding {
            PaddingRule::Same => {
                let size = self.tip.size;
                let vertical = Padding::same(size, size, height, stride);
                let horizontal = Padding::same(size, size, width, stride);
                Padding {
                    top: vertical.top,
                    bottom: vertical.bottom,
                    ..horizontal
                }
            }
            PaddingRule::Symmetric => Padding {
                top: height / 2,
                left: width / 2,
                bottom: height / 2,
                right: width / 2,
            },
        }
    }

    /// The tip's size after a window of `kernel` rows has slid over it; planes stay square.
    fn slide(&mut self, kernel: usize, stride: usize, padding: Padding) {
        let padded = self.tip.size + padding.top + padding.bottom;
        self.tip.size = padded.saturating_sub(kernel) / stride.max(1) + 1;
    }

    /// Appends a node that reads the tip.
    fn push(&mut self, name: &str, op: Op) {
        self.push_reading(name, op, vec![self.tip.node]);
    }

    /// Appends a node, which becomes the tip.
    fn push_reading(&mut self, name: &str, op: Op, inputs: Vec<usize>) {
        self.tip.node = self.nodes.len();
        self.nodes.push(Node {
            name: name.into(),
            op,
            inputs,
        });
    }
}

/// Weights for tests: whatever tensor an architecture asks for is there.
#[cfg(test)]
pub(super) mod testing {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;

    use super::*;
    use crate::nn::testing::pseudo_random;

    /// Small pseudo-random tensors of every name, each kept; a classifier of 1,000 classes unless it is left out.
    #[derive(Default)]
    pub(in super::super) struct Anything {
        pub(in super::super) without_classifier: bool,
        pub(in super::super) asked_for: RefCell<HashMap<String, Tensor>>,
    }

    impl Tensors for Anything {
        fn dims(&self, _: &str) -> Option<Vec<usize>> {
            (!self.without_classifier).then(|| vec![1000, 0])
        }

        fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
            let fan_in: usize = shape.iter().skip(1).product();
            let seed = self.asked_for.borrow().len() as u64 + 1;
            let tensor = (pseudo_random(shape, seed) * (1.0 / (fan_in as f64).sqrt())).unwrap();
            let positive = name.ends_with("running_var");
            let tensor = if positive {
                tensor.ones_like().unwrap()
            } else {
                tensor
            };
            self.asked_for
                .borrow_mut()
                .insert(name.into(), tensor.clone());
            Ok(tensor)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn missing_and_misshapen_tensors_are_named() {
        let stem = |tensors: &HashMap<String, Tensor>| {
            Builder::new(tensors, 32, PaddingRule::Same)
                .conv(
                    "stem",
                    "first",
                    Shift::Bias,
                    Shape::dense(8, 3, 2),
                    Activation::Relu6,
                )
                .map_err(|error| error.report())
        };
        let mut tensors = HashMap::new();
        let report = stem(&tensors).unwrap_err();
        assert!(report.contains("`first.bias`"), "{report}");
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("first.bias".into(), zeros(&[8]));
        tensors.insert("first.weight".into(), zeros(&[8, 3, 5, 5]));
        let report = stem(&tensors).unwrap_err();
        assert!(
            report.contains("[8, 3, 5, 5]") && report.contains("[8, 3, 3, 3]"),
            "{report}"
        );
        tensors.insert("first.weight".into(), zeros(&[8, 3, 3, 3]));
        stem(&tensors).unwrap();
    }

    #[test]
    fn a_classifier_may_be_a_matrix_a_convolution_or_absent() {
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let nodes = |tensors: &HashMap<String, Tensor>| {
            Builder::new(tensors, 8, PaddingRule::Same)
                .finish("head")
                .map(|graph| graph.nodes.len())
                .map_err(|error| error.report())
        };
        let mut tensors = HashMap::new();
        assert_eq!(nodes(&tensors), Ok(2));
        tensors.insert("head.bias".to_owned(), zeros(&[5]));
        for dims in [&[5, 3][..], &[5, 3, 1, 1]] {
            tensors.insert("head.weight".to_owned(), zeros(dims));
            assert_eq!(nodes(&tensors), Ok(3));
        }
        for dims in [&[5, 4][..], &[5, 3, 1, 2], &[6, 3], &[5], &[]] {
            tensors.insert("head.weight".to_owned(), zeros(dims));
            assert!(nodes(&tensors).is_err(), "{dims:?}");
        }
    }
}
