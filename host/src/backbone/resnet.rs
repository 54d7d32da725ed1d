//! ResNet by the tensor names of torchvision and timm: He et al. 2015 (arXiv:1512.03385), the stride in the 3x3
//! convolution.

use graft_shared::error::{Error, Result};

use super::blocks::Norms;
use super::builder::{Builder, Shape};
use crate::nn::{Activation, Graph, Padding, Pool, PoolKind};

const STEM_CHANNELS: usize = 64;
const BATCH_NORM_EPSILON: f64 = 1e-5;
/// A bottleneck block puts out this many times the channels inside.
const EXPANSION: usize = 4;

/// The graph with that many layers: 18, 34 or 50.
///
/// # Errors
/// Another number of layers; a tensor that is missing or has another shape.
pub(super) fn build(layers: usize, mut builder: Builder) -> Result<Graph> {
    let (blocks, bottleneck) = match layers {
        18 => ([2, 2, 2, 2], false),
        34 => ([3, 4, 6, 3], false),
        50 => ([3, 4, 6, 3], true),
        _ => return Err(Error::new(format!("there is no ResNet of {layers} layers"))),
    };
    let norms = Norms(BATCH_NORM_EPSILON);
    let stem = Shape::dense(STEM_CHANNELS, 7, 2);
    norms.conv(&mut builder, "stem", "conv1", "bn1", stem, Activation::Relu)?;
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: 3,
        stride: 2,
        padding: Padding::symmetric(1),
    };
    builder.pool("maxpool", pool);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let key = format!("layer{}.{block}", stage + 1);
            residual(
                &mut builder,
                norms,
                &key,
                STEM_CHANNELS << stage,
                stride,
                bottleneck,
            )?;
        }
    }
    builder.finish("fc")
}

/// Two convolutions, or three with fewer channels inside; the input, brought to the output's shape by a convolution where it
/// must be, is added before the last ReLU.
fn residual(
    builder: &mut Builder,
    norms: Norms,
    key: &str,
    channels: usize,
    stride: usize,
    bottleneck: bool,
) -> Result<()> {
    let part = |part: &str| format!("{key}.{part}");
    let input = builder.tip();
    let shapes = if bottleneck {
        vec![
            Shape::dense(channels, 1, 1),
            Shape::dense(channels, 3, stride),
            Shape::dense(channels * EXPANSION, 1, 1),
        ]
    } else {
        vec![
            Shape::dense(channels, 3, stride),
            Shape::dense(channels, 3, 1),
        ]
    };
    for (index, &shape) in shapes.iter().enumerate() {
        let (conv, norm) = (
            part(&format!("conv{}", index + 1)),
            part(&format!("bn{}", index + 1)),
        );
        let then = if index + 1 < shapes.len() {
            Activation::Relu
        } else {
            Activation::None
        };
        norms.conv(builder, &conv, &conv, &norm, shape, then)?;
    }
    let output = builder.tip();
    let mut shortcut = input;
    if stride != 1 || input.channels != output.channels {
        builder.go_to(input);
        let (conv, norm) = (part("downsample.0"), part("downsample.1"));
        let shape = Shape::dense(output.channels, 1, stride);
        norms.conv(
            builder,
            &part("downsample"),
            &conv,
            &norm,
            shape,
            Activation::None,
        )?;
        shortcut = builder.tip();
        builder.go_to(output);
    }
    builder.add(&part("add"), shortcut, Activation::Relu);
    Ok(())
}
