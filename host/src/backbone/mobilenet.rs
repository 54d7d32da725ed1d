//! MobileNet, versions 1 and 2, at any width.
//!
//! Version 1: Howard et al. 2017 (arXiv:1704.04861), depthwise separable convolutions. Version 2: Sandler et al. 2018
//! (arXiv:1801.04381), inverted residuals; the projection has no activation. Every activation is ReLU6. With BatchNorm
//! folded in, the tensors are `stem`, `blocks.<i>.<part>` (`dw` and `pw`, or `expand`, `dw` and `project`), `last`
//! (version 2) and, where there is one, the classifier `head`; of each `.weight` (OIHW) and `.bias`. Version 2 can also be
//! had by timm's names.

use graft_shared::error::Result;

use super::blocks::{Block, Norms};
use super::builder::{Builder, Shape, Shift, scaled_channels};
use crate::nn::{Activation, Graph};

const STEM_CHANNELS: usize = 32;
/// Channels of version 2's last convolution; only widths above 1 change them.
const LAST_CHANNELS: usize = 1280;
/// BatchNorm's, in timm's training.
const TIMM_EPSILON: f64 = 1e-5;

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

/// Version 1.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_v1(width: f64, mut builder: Builder) -> Result<Graph> {
    // Version 1 cuts the fraction off; at the published widths nothing else would change.
    let scaled = |channels: usize| ((channels as f64 * width) as usize).max(8);
    let stem = Shape::dense(scaled(STEM_CHANNELS), 3, 2);
    conv(&mut builder, "stem", "stem", stem, Activation::Relu6)?;
    for (block, &(stride, channels)) in V1_BLOCKS.iter().enumerate() {
        let depthwise = Shape::depthwise(builder.tip().channels, 3, stride);
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

/// Version 2.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_v2(width: f64, mut builder: Builder) -> Result<Graph> {
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

/// Version 2 by timm's names. A network that is deepened (`depth` on the repeats of each stage but the first and the last)
/// keeps the channels of stem and last convolution.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_v2_timm(width: f64, depth: f64, mut builder: Builder) -> Result<Graph> {
    let norms = Norms(TIMM_EPSILON);
    let (stem, last) = if depth > 1.0 {
        (STEM_CHANNELS, LAST_CHANNELS)
    } else {
        (
            scaled_channels(STEM_CHANNELS, width),
            scaled_channels(LAST_CHANNELS, width.max(1.0)),
        )
    };
    let stem = Shape::dense(stem, 3, 2);
    norms.conv(
        &mut builder,
        "stem",
        "conv_stem",
        "bn1",
        stem,
        Activation::Relu6,
    )?;
    for (index, stage) in V2_STAGES.iter().enumerate() {
        let deepened = (stage.repeats as f64 * depth).ceil() as usize;
        let at_an_end = index == 0 || index + 1 == V2_STAGES.len();
        for repeat in 0..if at_an_end { stage.repeats } else { deepened } {
            let block = Block {
                kernel: 3,
                stride: if repeat == 0 { stage.stride } else { 1 },
                expansion: stage.expansion as f64,
                channels: scaled_channels(stage.channels, width),
                activation: Activation::Relu6.into(),
                squeeze_and_excite: false,
            };
            block.append(&mut builder, norms, &format!("blocks.{index}.{repeat}"))?;
        }
    }
    let last = Shape::dense(last, 1, 1);
    norms.conv(
        &mut builder,
        "last",
        "conv_head",
        "bn2",
        last,
        Activation::Relu6,
    )?;
    builder.finish("classifier")
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
    let input = builder.tip();
    let expanded = input.channels * expansion;
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
    if stride == 1 && input.channels == channels {
        builder.add(&part("add"), input, Activation::None);
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
