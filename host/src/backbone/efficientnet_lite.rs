//! EfficientNet-Lite: MobileNetV2's blocks scaled as EfficientNet's, with ReLU6 and without squeeze-and-excite.
//!
//! Tan and Le 2019 (arXiv:1905.11946), and the TPU reference code's `efficientnet_lite_builder`. Tensor names are those of
//! the PyTorch port. Every convolution is padded as TensorFlow's SAME.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use graft_shared::error::{Context, Error, Result};

use crate::nn::{Activation, BatchNorm, Conv, Graph, Linear, Node, Op, Padding};

/// How a member of the family is scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaling {
    /// Factor on the blocks' channels.
    width: f64,
    /// Factor on the repeats of each stage but the first and the last.
    depth: f64,
}

/// The smallest: 4.7 million parameters, 407 million multiply-adds at 224 pixels.
pub(super) const LITE0: Scaling = Scaling {
    width: 1.0,
    depth: 1.0,
};

/// Channels of the stem and of the last convolution: they are not scaled.
const STEM_CHANNELS: usize = 32;
const HEAD_CHANNELS: usize = 1280;
const CLASSES: usize = 1000;
const BATCH_NORM_EPSILON: f64 = 1e-3;

/// Blocks of one shape in a row; the first has the stride and changes the channels.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    channels: usize,
}

const STAGES: [Stage; 7] = [
    Stage {
        repeats: 1,
        kernel: 3,
        stride: 1,
        expansion: 1,
        channels: 16,
    },
    Stage {
        repeats: 2,
        kernel: 3,
        stride: 2,
        expansion: 6,
        channels: 24,
    },
    Stage {
        repeats: 2,
        kernel: 5,
        stride: 2,
        expansion: 6,
        channels: 40,
    },
    Stage {
        repeats: 3,
        kernel: 3,
        stride: 2,
        expansion: 6,
        channels: 80,
    },
    Stage {
        repeats: 3,
        kernel: 5,
        stride: 1,
        expansion: 6,
        channels: 112,
    },
    Stage {
        repeats: 4,
        kernel: 5,
        stride: 2,
        expansion: 6,
        channels: 192,
    },
    Stage {
        repeats: 1,
        kernel: 3,
        stride: 1,
        expansion: 6,
        channels: 320,
    },
];

impl Scaling {
    /// Scaled to a multiple of 8, never more than a tenth down.
    fn channels(self, channels: usize) -> usize {
        let scaled = channels as f64 * self.width;
        let rounded = ((scaled + 4.0) as usize / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * scaled {
            rounded + 8
        } else {
            rounded
        }
    }

    fn repeats(self, repeats: usize) -> usize {
        (repeats as f64 * self.depth).ceil() as usize
    }
}

/// The graph for square inputs of `input_size` pixels, with the weights of a checkpoint.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build(
    scaling: Scaling,
    tensors: &HashMap<String, Tensor>,
    input_size: usize,
) -> Result<Graph> {
    let mut builder = Builder {
        tensors,
        nodes: vec![Node {
            name: "input".into(),
            op: Op::Input,
            inputs: Vec::new(),
        }],
        channels: 3,
        size: input_size,
    };
    builder.conv(
        "stem",
        "_conv_stem",
        "_bn0",
        Shape::dense(STEM_CHANNELS, 3, 2),
        Activation::Relu6,
    )?;

    let last_stage = STAGES.len() - 1;
    let mut block = 0;
    for (index, stage) in STAGES.iter().enumerate() {
        let channels = scaling.channels(stage.channels);
        let repeats = if index == 0 || index == last_stage {
            stage.repeats
        } else {
            scaling.repeats(stage.repeats)
        };
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            builder.block(block, stage, stride, channels)?;
            block += 1;
        }
    }

    builder.conv(
        "head",
        "_conv_head",
        "_bn1",
        Shape::dense(HEAD_CHANNELS, 1, 1),
        Activation::Relu6,
    )?;
    builder.push("pool", Op::GlobalAveragePool);
    let classifier = Linear {
        weight: builder.tensor("_fc.weight", &[CLASSES, HEAD_CHANNELS])?,
        bias: builder.tensor("_fc.bias", &[CLASSES])?,
    };
    builder.push("classifier", Op::Linear(classifier));
    Ok(Graph {
        nodes: builder.nodes,
    })
}

/// Shape of a convolution.
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    kernel: usize,
    stride: usize,
    depthwise: bool,
}

impl Shape {
    fn dense(channels: usize, kernel: usize, stride: usize) -> Shape {
        Shape {
            channels,
            kernel,
            stride,
            depthwise: false,
        }
    }

    fn depthwise(channels: usize, kernel: usize, stride: usize) -> Shape {
        Shape {
            channels,
            kernel,
            stride,
            depthwise: true,
        }
    }
}

/// The graph so far, and what its last node puts out.
struct Builder<'a> {
    tensors: &'a HashMap<String, Tensor>,
    nodes: Vec<Node>,
    channels: usize,
    size: usize,
}

impl Builder<'_> {
    /// Inverted residual block: expand, depthwise, project, and the input added where shapes allow.
    fn block(&mut self, index: usize, stage: &Stage, stride: usize, channels: usize) -> Result<()> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let key = |part: &str| format!("_blocks.{index}.{part}");
        let (input, input_channels) = (self.nodes.len() - 1, self.channels);
        let expanded = input_channels * stage.expansion;
        if stage.expansion != 1 {
            self.conv(
                &name("expand"),
                &key("_expand_conv"),
                &key("_bn0"),
                Shape::dense(expanded, 1, 1),
                Activation::Relu6,
            )?;
        }
        self.conv(
            &name("depthwise"),
            &key("_depthwise_conv"),
            &key("_bn1"),
            Shape::depthwise(expanded, stage.kernel, stride),
            Activation::Relu6,
        )?;
        self.conv(
            &name("project"),
            &key("_project_conv"),
            &key("_bn2"),
            Shape::dense(channels, 1, 1),
            Activation::None,
        )?;
        if stride == 1 && input_channels == channels {
            let project = self.nodes.len() - 1;
            self.nodes.push(Node {
                name: name("add"),
                op: Op::Add,
                inputs: vec![project, input],
            });
        }
        Ok(())
    }

    /// Appends a convolution with BatchNorm that reads the last node.
    fn conv(
        &mut self,
        name: &str,
        key: &str,
        batch_norm: &str,
        shape: Shape,
        activation: Activation,
    ) -> Result<()> {
        let Shape {
            channels,
            kernel,
            stride,
            depthwise,
        } = shape;
        let (groups, group_channels) = if depthwise {
            (channels, 1)
        } else {
            (1, self.channels)
        };
        let statistic = |part: &str| self.tensor(&format!("{batch_norm}.{part}"), &[channels]);
        let conv = Conv {
            weight: self.tensor(
                &format!("{key}.weight"),
                &[channels, group_channels, kernel, kernel],
            )?,
            bias: None,
            batch_norm: Some(BatchNorm {
                weight: statistic("weight")?,
                bias: statistic("bias")?,
                mean: statistic("running_mean")?,
                variance: statistic("running_var")?,
                epsilon: BATCH_NORM_EPSILON,
            }),
            stride,
            padding: Padding::same(self.size, self.size, kernel, stride),
            groups,
            activation,
        };
        self.channels = channels;
        self.size = self.size.div_ceil(stride);
        self.push(name, Op::Conv(conv));
        Ok(())
    }

    /// Appends a node that reads the last one.
    fn push(&mut self, name: &str, op: Op) {
        self.nodes.push(Node {
            name: name.into(),
            op,
            inputs: vec![self.nodes.len() - 1],
        });
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self
            .tensors
            .get(name)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn channels_and_repeats_scale_as_published() {
        // Lite2: width 1.1, depth 1.2.
        let lite2 = Scaling {
            width: 1.1,
            depth: 1.2,
        };
        let channels: Vec<usize> = STAGES
            .iter()
            .map(|stage| lite2.channels(stage.channels))
            .collect();
        assert_eq!(channels, [16, 24, 48, 88, 120, 208, 352]);
        let repeats: Vec<usize> = STAGES
            .iter()
            .map(|stage| lite2.repeats(stage.repeats))
            .collect();
        assert_eq!(repeats[1..6], [3, 3, 4, 4, 5]);
    }

    #[test]
    fn missing_and_misshapen_tensors_are_named() {
        let mut tensors = HashMap::new();
        let error = build(LITE0, &tensors, 224).unwrap_err();
        assert!(
            error.report().contains("`_conv_stem.weight`"),
            "{}",
            error.report()
        );
        let stem = Tensor::zeros((32, 3, 5, 5), DType::F32, &candle_core::Device::Cpu).unwrap();
        tensors.insert("_conv_stem.weight".into(), stem);
        let error = build(LITE0, &tensors, 224).unwrap_err();
        assert!(
            error.report().contains("[32, 3, 5, 5]"),
            "{}",
            error.report()
        );
    }
}
