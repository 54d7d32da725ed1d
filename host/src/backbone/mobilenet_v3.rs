//! MobileNetV3, large and small, by timm's tensor names: Howard et al. 2019 (arXiv:1905.02244), tables 1 and 2.

use graft_shared::error::Result;
use serde::Deserialize;

use super::blocks::{Block, Norms, activated};
use super::builder::{Builder, Shape, Shift, scaled_channels};
use crate::nn::{Activation, Function, Graph};

const STEM_CHANNELS: usize = 16;
/// Widths below this leave the stem as it is.
const NARROW: f64 = 0.75;
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Table 1.
    Large,
    /// Table 2.
    Small,
}

/// One row of a table.
struct Row {
    stage: usize,
    kernel: usize,
    expansion: f64,
    channels: usize,
    squeeze_and_excite: bool,
    hard_swish: bool,
    stride: usize,
}

/// Stage (resolution or channels change), kernel, expansion, output channels, squeeze-and-excite, hard-swish, stride.
const fn row(
    stage: usize,
    kernel: usize,
    expansion: f64,
    channels: usize,
    squeeze_and_excite: bool,
    hard_swish: bool,
    stride: usize,
) -> Row {
    Row {
        stage,
        kernel,
        expansion,
        channels,
        squeeze_and_excite,
        hard_swish,
        stride,
    }
}

const LARGE: [Row; 15] = [
    row(0, 3, 1.0, 16, false, false, 1),
    row(1, 3, 4.0, 24, false, false, 2),
    row(1, 3, 3.0, 24, false, false, 1),
    row(2, 5, 3.0, 40, true, false, 2),
    row(2, 5, 3.0, 40, true, false, 1),
    row(2, 5, 3.0, 40, true, false, 1),
    row(3, 3, 6.0, 80, false, true, 2),
    row(3, 3, 2.5, 80, false, true, 1),
    row(3, 3, 2.3, 80, false, true, 1),
    row(3, 3, 2.3, 80, false, true, 1),
    row(4, 3, 6.0, 112, true, true, 1),
    row(4, 3, 6.0, 112, true, true, 1),
    row(5, 5, 6.0, 160, true, true, 2),
    row(5, 5, 6.0, 160, true, true, 1),
    row(5, 5, 6.0, 160, true, true, 1),
];

const SMALL: [Row; 11] = [
    row(0, 3, 1.0, 16, true, false, 2),
    row(1, 3, 4.5, 24, false, false, 2),
    row(1, 3, 3.67, 24, false, false, 1),
    row(2, 5, 4.0, 40, true, true, 2),
    row(2, 5, 6.0, 40, true, true, 1),
    row(2, 5, 6.0, 40, true, true, 1),
    row(3, 5, 3.0, 48, true, true, 1),
    row(3, 5, 3.0, 48, true, true, 1),
    row(4, 5, 6.0, 96, true, true, 2),
    row(4, 5, 6.0, 96, true, true, 1),
    row(4, 5, 6.0, 96, true, true, 1),
];

/// The graph; `width` scales all channels but those of the bottleneck.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build(size: Size, width: f64, mut builder: Builder) -> Result<Graph> {
    let (rows, last, bottleneck) = match size {
        Size::Large => (&LARGE[..], 960, 1280),
        Size::Small => (&SMALL[..], 576, 1024),
    };
    let norms = Norms(BATCH_NORM_EPSILON);
    let stem = if width < NARROW {
        STEM_CHANNELS
    } else {
        scaled_channels(STEM_CHANNELS, width)
    };
    let stem = Shape::dense(stem, 3, 2);
    norms.conv(
        &mut builder,
        "stem",
        "conv_stem",
        "bn1",
        stem,
        Function::HardSwish,
    )?;
    let (mut stage, mut repeat) = (0, 0);
    for row in rows {
        (stage, repeat) = if row.stage == stage {
            (stage, repeat + 1)
        } else {
            (row.stage, 1)
        };
        let block = Block {
            kernel: row.kernel,
            stride: row.stride,
            expansion: row.expansion,
            channels: scaled_channels(row.channels, width),
            activation: if row.hard_swish {
                Function::HardSwish.into()
            } else {
                Activation::Relu.into()
            },
            squeeze_and_excite: row.squeeze_and_excite,
        };
        block.append(
            &mut builder,
            norms,
            &format!("blocks.{stage}.{}", repeat - 1),
        )?;
    }
    let key = format!("blocks.{}.0", stage + 1);
    let (conv, norm) = (format!("{key}.conv"), format!("{key}.bn1"));
    let shape = Shape::dense(scaled_channels(last, width), 1, 1);
    norms.conv(
        &mut builder,
        "last",
        &conv,
        &norm,
        shape,
        Function::HardSwish,
    )?;
    builder.squeeze("pool");
    let shape = Shape::dense(bottleneck, 1, 1);
    let then = Function::HardSwish.into();
    activated(&mut builder, "head", "conv_head", Shift::Bias, shape, then)?;
    builder.finish_pooled("classifier")
}
