//! MobileNet, versions 1 and 2, at any width, BatchNorm folded into weights and biases.
//!
//! Version 1: Howard et al. 2017 (arXiv:1704.04861), depthwise separable convolutions. Version 2: Sandler et al. 2018
//! (arXiv:1801.04381), inverted residuals; the projection has no activation. Every convolution is padded as TensorFlow's
//! SAME, every activation is ReLU6. Tensors: `stem`, `blocks.<i>.<part>` (`dw` and `pw`, or `expand`, `dw` and `project`),
//! `last` (version 2) and, where there is one, the classifier `head`; of each `.weight` (OIHW) and `.bias`.

use graft_shared::error::Result;

use super::builder::{Builder, Shape, Shift, Tensors, scaled_channels};
use crate::nn::{Activation, Graph};

const STEM_CHANNELS: usize = 32;
/// Channels of version 2's last convolution; only widths above 1 change them.
const LAST_CHANNELS: usize = 1280;

/// Version 1: stride and channels of each depthwise separable block.
const V1_BLOCKS: [(usize, usize); 13] = [
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
];

/// Blocks of one shape in a row; the first has the stride and changes the channels.
struct Stage {
    expansion: usize,
    channels: usize,
    repeats: usize,
    stride: usize,
}

const fn stage(expansion: usize, channels: usize, repeats: usize, stride: usize) -> Stage {
    Stage {
        expansion,
        channels,
        repeats,
        stride,
    }
}

/// Version 2: table 2 of the paper.
const V2_STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1),
    stage(6, 24, 2, 2),
    stage(6, 32, 3, 2),
    stage(6, 64, 4, 2),
    stage(6, 96, 3, 1),
    stage(6, 160, 3, 2),
    stage(6, 320, 1, 1),
];

/// Version 1 for square inputs of `input_size` pixels.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_v1(width: f64, tensors: &dyn Tensors, input_size: usize) -> Result<Graph> {
    // Version 1 cuts the fraction off; at the published widths nothing else would change.
    let scaled = |channels: usize| ((channels as f64 * width) as usize).max(8);
    let mut builder = Builder::new(tensors, input_size);
    let stem = Shape::dense(scaled(STEM_CHANNELS), 3, 2);
    conv(&mut builder, "stem", "stem", stem, Activation::Relu6)?;
    for (block, &(stride, channels)) in V1_BLOCKS.iter().enumerate() {
        let depthwise = Shape::depthwise(builder.channels(), 3, stride);
        let pointwise = Shape::dense(scaled(channels), 1, 1);
        for (part, key, shape) in [
            ("depthwise", "dw", depthwise),
            ("pointwise", "pw", pointwise),
        ] {
            let name = format!("blocks.{block}.{part}");
            let key = format!("blocks.{block}.{key}");
            conv(&mut builder, &name, &key, shape, Activation::Relu6)?;
        }
    }
    builder.finish("head")
}

/// Version 2 for square inputs of `input_size` pixels.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_v2(width: f64, tensors: &dyn Tensors, input_size: usize) -> Result<Graph> {
    let mut builder = Builder::new(tensors, input_size);
    let stem = Shape::dense(scaled_channels(STEM_CHANNELS, width), 3, 2);
    conv(&mut builder, "stem", "stem", stem, Activation::Relu6)?;
    let mut block = 0;
    for stage in &V2_STAGES {
        for repeat in 0..stage.repeats {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            let channels = scaled_channels(stage.channels, width);
            inverted_residual(&mut builder, block, stage.expansion, stride, channels)?;
            block += 1;
        }
    }
    let last = Shape::dense(scaled_channels(LAST_CHANNELS, width.max(1.0)), 1, 1);
    conv(&mut builder, "last", "last", last, Activation::Relu6)?;
    builder.finish("head")
}

/// Expand, depthwise, project, and the input added where shapes allow.
fn inverted_residual(
    builder: &mut Builder,
    block: usize,
    expansion: usize,
    stride: usize,
    channels: usize,
) -> Result<()> {
    let part = |part: &str| format!("blocks.{block}.{part}");
    let (input, input_channels) = (builder.last(), builder.channels());
    let expanded = input_channels * expansion;
    if expansion != 1 {
        let expand = Shape::dense(expanded, 1, 1);
        let name = part("expand");
        conv(builder, &name, &name, expand, Activation::Relu6)?;
    }
    let depthwise = Shape::depthwise(expanded, 3, stride);
    conv(
        builder,
        &part("depthwise"),
        &part("dw"),
        depthwise,
        Activation::Relu6,
    )?;
    let project = Shape::dense(channels, 1, 1);
    let name = part("project");
    conv(builder, &name, &name, project, Activation::None)?;
    if stride == 1 && input_channels == channels {
        builder.add(&part("add"), input);
    }
    Ok(())
}

fn conv(
    builder: &mut Builder,
    name: &str,
    key: &str,
    shape: Shape,
    activation: Activation,
) -> Result<()> {
    builder.conv(name, key, Shift::Bias, shape, activation)
}
