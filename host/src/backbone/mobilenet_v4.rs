//! MobileNetV4-Conv-S by timm's tensor names: Qin et al. 2024 (arXiv:2404.10518), table 11.

use graft_shared::error::Result;

use super::blocks::Norms;
use super::builder::{Builder, Shape, scaled_channels};
use crate::nn::{Activation, Graph};

const STEM_CHANNELS: usize = 32;
const LAST_CHANNELS: usize = 960;
const BOTTLENECK: usize = 1280;
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Convolutions of the first two stages: stage, place in it, kernel, stride, channels.
const FUSED: [(usize, usize, usize, usize, usize); 4] = [
    (0, 0, 3, 2, 32),
    (0, 1, 1, 1, 32),
    (1, 0, 3, 2, 96),
    (1, 1, 1, 1, 64),
];

/// A universal inverted bottleneck.
struct Bottleneck {
    /// Kernel of the depthwise convolution before the expansion, 0 where there is none.
    start: usize,
    /// Kernel of the depthwise convolution after it, 0 where there is none.
    middle: usize,
    expansion: f64,
}

const fn bottleneck(start: usize, middle: usize, expansion: f64) -> Bottleneck {
    Bottleneck {
        start,
        middle,
        expansion,
    }
}

/// Stages of bottlenecks with their channels; the first of each has stride 2.
const STAGES: [(usize, [Bottleneck; 6]); 2] = [
    (
        96,
        [
            bottleneck(5, 5, 3.0),
            bottleneck(0, 3, 2.0),
            bottleneck(0, 3, 2.0),
            bottleneck(0, 3, 2.0),
            bottleneck(0, 3, 2.0),
            bottleneck(3, 0, 4.0),
        ],
    ),
    (
        128,
        [
            bottleneck(3, 3, 6.0),
            bottleneck(5, 5, 4.0),
            bottleneck(0, 5, 4.0),
            bottleneck(0, 5, 3.0),
            bottleneck(0, 3, 4.0),
            bottleneck(0, 3, 4.0),
        ],
    ),
];

/// The graph.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build_conv_small(mut builder: Builder) -> Result<Graph> {
    let norms = Norms(BATCH_NORM_EPSILON);
    let relu = Activation::Relu;
    let stem = Shape::dense(STEM_CHANNELS, 3, 2);
    norms.conv(&mut builder, "stem", "conv_stem", "bn1", stem, relu)?;
    for (stage, place, kernel, stride, channels) in FUSED {
        let name = format!("blocks.{stage}.{place}");
        let (conv, norm) = (format!("{name}.conv"), format!("{name}.bn1"));
        let shape = Shape::dense(channels, kernel, stride);
        norms.conv(&mut builder, &name, &conv, &norm, shape, relu)?;
    }
    for (stage, (channels, bottlenecks)) in (2..).zip(&STAGES) {
        for (place, bottleneck) in bottlenecks.iter().enumerate() {
            let stride = if place == 0 { 2 } else { 1 };
            let name = format!("blocks.{stage}.{place}");
            bottleneck.append(&mut builder, norms, &name, stride, *channels)?;
        }
    }
    let last = Shape::dense(LAST_CHANNELS, 1, 1);
    norms.conv(
        &mut builder,
        "last",
        "blocks.4.0.conv",
        "blocks.4.0.bn1",
        last,
        relu,
    )?;
    builder.squeeze("pool");
    let head = Shape::dense(BOTTLENECK, 1, 1);
    norms.conv(&mut builder, "head", "conv_head", "norm_head", head, relu)?;
    builder.finish_pooled("classifier")
}

impl Bottleneck {
    /// Appends it, and the input added where shapes allow; the last depthwise convolution has the stride.
    fn append(
        &self,
        builder: &mut Builder,
        norms: Norms,
        name: &str,
        stride: usize,
        channels: usize,
    ) -> Result<()> {
        let input = builder.tip();
        let expanded = scaled_channels(input.channels, self.expansion);
        let (start_stride, middle_stride) = if self.middle > 0 {
            (1, stride)
        } else {
            (stride, 1)
        };
        let start = Shape::depthwise(input.channels, self.start, start_stride);
        let middle = Shape::depthwise(expanded, self.middle, middle_stride);
        let expand = Shape::dense(expanded, 1, 1);
        let project = Shape::dense(channels, 1, 1);
        for (part, there, shape, then) in [
            ("dw_start", self.start > 0, start, Activation::None),
            ("pw_exp", true, expand, Activation::Relu),
            ("dw_mid", self.middle > 0, middle, Activation::Relu),
            ("pw_proj", true, project, Activation::None),
        ] {
            if there {
                let part = format!("{name}.{part}");
                let (conv, norm) = (format!("{part}.conv"), format!("{part}.bn"));
                norms.conv(builder, &part, &conv, &norm, shape, then)?;
            }
        }
        if stride == 1 && input.channels == channels {
            builder.add(&format!("{name}.add"), input, Activation::None);
        }
        Ok(())
    }
}
