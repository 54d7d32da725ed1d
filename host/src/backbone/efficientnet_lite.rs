//! EfficientNet-Lite: MobileNetV2's blocks scaled as EfficientNet's, with ReLU6 and without squeeze-and-excite.
//!
//! Tan and Le 2019 (arXiv:1905.11946), and the TPU reference code's `efficientnet_lite_builder`. Tensor names are those of
//! the PyTorch port, or timm's.

use graft_shared::error::Result;

use super::blocks::{Block, Norms};
use super::builder::{Builder, Shape, Shift, scaled_channels};
use crate::nn::{Activation, Graph};

/// Channels of the stem and of the last convolution: they are not scaled.
const STEM_CHANNELS: usize = 32;
const HEAD_CHANNELS: usize = 1280;
const BATCH_NORM_EPSILON: f64 = 1e-3;
/// The tensor by which weights with timm's names are told.
const TIMM_STEM: &str = "conv_stem.weight";

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

/// Repeats of a stage; the first and the last stage are not deepened.
fn scaled_repeats(stage: usize, depth: f64) -> usize {
    let repeats = STAGES[stage].repeats;
    if stage == 0 || stage == STAGES.len() - 1 {
        repeats
    } else {
        (repeats as f64 * depth).ceil() as usize
    }
}

/// The graph; `width` scales the blocks' channels, `depth` the stages' repeats.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build(width: f64, depth: f64, builder: Builder) -> Result<Graph> {
    if builder.has(TIMM_STEM) {
        with_timms_names(width, depth, builder)
    } else {
        with_the_ports_names(width, depth, builder)
    }
}

fn with_timms_names(width: f64, depth: f64, mut builder: Builder) -> Result<Graph> {
    let norms = Norms(BATCH_NORM_EPSILON);
    let stem = Shape::dense(STEM_CHANNELS, 3, 2);
    norms.conv(
        &mut builder,
        "stem",
        "conv_stem",
        "bn1",
        stem,
        Activation::Relu6,
    )?;
    for (index, stage) in STAGES.iter().enumerate() {
        for repeat in 0..scaled_repeats(index, depth) {
            let block = Block {
                kernel: stage.kernel,
                stride: if repeat == 0 { stage.stride } else { 1 },
                expansion: stage.expansion as f64,
                channels: scaled_channels(stage.channels, width),
                activation: Activation::Relu6.into(),
                squeeze_and_excite: false,
            };
            block.append(&mut builder, norms, &format!("blocks.{index}.{repeat}"))?;
        }
    }
    let head = Shape::dense(HEAD_CHANNELS, 1, 1);
    norms.conv(
        &mut builder,
        "head",
        "conv_head",
        "bn2",
        head,
        Activation::Relu6,
    )?;
    builder.finish("classifier")
}

fn with_the_ports_names(width: f64, depth: f64, mut builder: Builder) -> Result<Graph> {
    builder.conv(
        "stem",
        "_conv_stem",
        batch_norm("_bn0"),
        Shape::dense(STEM_CHANNELS, 3, 2),
        Activation::Relu6,
    )?;
    let mut block = 0;
    for (index, stage) in STAGES.iter().enumerate() {
        let channels = scaled_channels(stage.channels, width);
        for repeat in 0..scaled_repeats(index, depth) {
            let stride = if repeat == 0 { stage.stride } else { 1 };
            inverted_residual(&mut builder, block, stage, stride, channels)?;
            block += 1;
        }
    }
    builder.conv(
        "head",
        "_conv_head",
        batch_norm("_bn1"),
        Shape::dense(HEAD_CHANNELS, 1, 1),
        Activation::Relu6,
    )?;
    builder.finish("_fc")
}

/// Expand, depthwise, project, and the input added where shapes allow.
fn inverted_residual(
    builder: &mut Builder,
    index: usize,
    stage: &Stage,
    stride: usize,
    channels: usize,
) -> Result<()> {
    let name = |part: &str| format!("blocks.{index}.{part}");
    let key = |part: &str| format!("_blocks.{index}.{part}");
    let input = builder.tip();
    let expanded = input.channels * stage.expansion;
    if stage.expansion != 1 {
        builder.conv(
            &name("expand"),
            &key("_expand_conv"),
            batch_norm(&key("_bn0")),
            Shape::dense(expanded, 1, 1),
            Activation::Relu6,
        )?;
    }
    builder.conv(
        &name("depthwise"),
        &key("_depthwise_conv"),
        batch_norm(&key("_bn1")),
        Shape::depthwise(expanded, stage.kernel, stride),
        Activation::Relu6,
    )?;
    builder.conv(
        &name("project"),
        &key("_project_conv"),
        batch_norm(&key("_bn2")),
        Shape::dense(channels, 1, 1),
        Activation::None,
    )?;
    if stride == 1 && input.channels == channels {
        builder.add(&name("add"), input, Activation::None);
    }
    Ok(())
}

fn batch_norm(prefix: &str) -> Shift<'_> {
    Shift::BatchNorm {
        prefix,
        epsilon: BATCH_NORM_EPSILON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_repeats_scale_as_published() {
        // Lite2: width 1.1, depth 1.2.
        let channels = STAGES.map(|stage| scaled_channels(stage.channels, 1.1));
        assert_eq!(channels, [16, 24, 48, 88, 120, 208, 352]);
        let repeats: Vec<usize> = (0..7).map(|stage| scaled_repeats(stage, 1.2)).collect();
        assert_eq!(repeats, [1, 3, 3, 4, 4, 5, 1]);
    }
}
