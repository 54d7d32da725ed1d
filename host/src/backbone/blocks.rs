//! The block that mobile networks share, by timm's tensor names: expand, depthwise, squeeze-and-excite, project.
//!
//! Sandler et al. 2018 (arXiv:1801.04381), figure 3; Howard et al. 2019 (arXiv:1905.02244), section 5.3.

use graft_shared::error::Result;

use super::builder::{Builder, Shape, Shift, scaled_channels};
use crate::nn::{Activation, Function};

/// Share of the channels that a squeeze keeps.
const SQUEEZED: f64 = 0.25;

/// What follows a convolution: in the same pass, or as a function of its own.
#[derive(Clone, Copy)]
pub(super) enum Nonlinearity {
    Clamp(Activation),
    Function(Function),
}

impl From<Activation> for Nonlinearity {
    fn from(activation: Activation) -> Self {
        Nonlinearity::Clamp(activation)
    }
}

impl From<Function> for Nonlinearity {
    fn from(function: Function) -> Self {
        Nonlinearity::Function(function)
    }
}

/// A network's convolutions with BatchNorm of one epsilon.
#[derive(Clone, Copy)]
pub(super) struct Norms(pub(super) f64);

impl Norms {
    /// Appends the convolution `<key>.weight`, the BatchNorm `<norm>.*` and what follows.
    pub(super) fn conv(
        self,
        builder: &mut Builder,
        name: &str,
        key: &str,
        norm: &str,
        shape: Shape,
        then: impl Into<Nonlinearity>,
    ) -> Result<()> {
        let shift = Shift::BatchNorm {
            prefix: norm,
            epsilon: self.0,
        };
        activated(builder, name, key, shift, shape, then.into())
    }
}

/// Appends the convolution with the tensor `<key>.weight` and what follows.
pub(super) fn activated(
    builder: &mut Builder,
    name: &str,
    key: &str,
    shift: Shift,
    shape: Shape,
    then: Nonlinearity,
) -> Result<()> {
    match then {
        Nonlinearity::Clamp(activation) => builder.conv(name, key, shift, shape, activation),
        Nonlinearity::Function(function) => {
            builder.conv(name, key, shift, shape, Activation::None)?;
            builder.function(&format!("{name}.activation"), function);
            Ok(())
        }
    }
}

/// An inverted residual; a depthwise separable convolution where it does not expand.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Of the depthwise convolution.
    pub(super) kernel: usize,
    /// Of the depthwise convolution.
    pub(super) stride: usize,
    /// Factor on the input's channels inside the block.
    pub(super) expansion: f64,
    /// Of the output.
    pub(super) channels: usize,
    /// What follows the first two convolutions; nothing follows the projection.
    pub(super) activation: Nonlinearity,
    /// Whether channels are weighted by what is seen of them all.
    pub(super) squeeze_and_excite: bool,
}

impl Block {
    /// Appends the block with the tensors `<key>.*`, and the input added where shapes allow.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub(super) fn append(self, builder: &mut Builder, norms: Norms, key: &str) -> Result<()> {
        let Block {
            kernel,
            stride,
            expansion,
            channels,
            activation,
            squeeze_and_excite,
        } = self;
        let part = |part: &str| format!("{key}.{part}");
        let input = builder.tip();
        let expands = expansion != 1.0;
        let expanded = if expands {
            scaled_channels(input.channels, expansion)
        } else {
            input.channels
        };
        // Tensors are numbered and called by what the block has.
        let (depthwise_norm, project, project_norm) = if expands {
            let (name, conv, norm) = (part("expand"), part("conv_pw"), part("bn1"));
            let expand = Shape::dense(expanded, 1, 1);
            norms.conv(builder, &name, &conv, &norm, expand, activation)?;
            (part("bn2"), part("conv_pwl"), part("bn3"))
        } else {
            (part("bn1"), part("conv_pw"), part("bn2"))
        };
        let (name, conv) = (part("depthwise"), part("conv_dw"));
        let depthwise = Shape::depthwise(expanded, kernel, stride);
        norms.conv(
            builder,
            &name,
            &conv,
            &depthwise_norm,
            depthwise,
            activation,
        )?;
        if squeeze_and_excite {
            excite(builder, &part("se"))?;
        }
        let (name, shape) = (part("project"), Shape::dense(channels, 1, 1));
        norms.conv(
            builder,
            &name,
            &project,
            &project_norm,
            shape,
            Activation::None,
        )?;
        if stride == 1 && input.channels == channels {
            builder.add(&part("add"), input, Activation::None);
        }
        Ok(())
    }
}

/// Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507) with a hard sigmoid.
fn excite(builder: &mut Builder, key: &str) -> Result<()> {
    let part = |part: &str| format!("{key}.{part}");
    let image = builder.tip();
    builder.squeeze(&part("squeeze"));
    for (name, key, channels, then) in [
        (
            part("reduce"),
            part("conv_reduce"),
            scaled_channels(image.channels, SQUEEZED),
            Activation::Relu.into(),
        ),
        (
            part("expand"),
            part("conv_expand"),
            image.channels,
            Function::HardSigmoid.into(),
        ),
    ] {
        let shape = Shape::dense(channels, 1, 1);
        activated(builder, &name, &key, Shift::Bias, shape, then)?;
    }
    builder.multiply_channels(&part("excite"), image);
    Ok(())
}
