//! The training step of any convolution: which kernels make it.

use candle_core::Result;

use super::training::{InputGradient, Output, OutputGradient, Stored};
use super::{Geometry, dense, depthwise};

/// Weight `[out, in / groups, kh, kw]`; see [`Output`].
///
/// # Errors
/// A depthwise kernel or stride that there is not.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output: Output<'_>,
) -> Result<()> {
    if geometry.depthwise {
        return depthwise::forward_training(geometry, input, weight, output);
    }
    dense::forward_training(geometry, input, weight, output);
    Ok(())
}

/// Weight and its gradient (overwritten) as in [`forward`]; see [`OutputGradient`] and [`InputGradient`].
///
/// # Errors
/// As [`forward`].
pub(in crate::nn) fn backward(
    geometry: &Geometry,
    input: Stored<'_>,
    weight: &[f32],
    output_gradient: OutputGradient<'_>,
    weight_gradient: &mut [f32],
    input_gradient: Option<InputGradient<'_>>,
) -> Result<()> {
    let into = Some(weight_gradient);
    if geometry.depthwise {
        return depthwise::backward(
            geometry,
            input,
            weight,
            output_gradient,
            into,
            input_gradient,
        );
    }
    dense::backward(
        geometry,
        input,
        weight,
        output_gradient,
        into,
        input_gradient,
    );
    Ok(())
}
