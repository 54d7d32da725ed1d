//! What passes between layers in a training step: a convolution's output as it was left, and what its readers apply.
//!
//! BatchNorm and activation are applied by whoever reads a value, forward and backward, so that a convolution's output is
//! written once, and neither the normalised values nor the gradient before BatchNorm are ever stored.
//!
//! Sums over a batch are made in parts that depend on the shape alone and added in a fixed order, so that a result is the
//! same to the bit for every number of threads.

/// Values `[n, c, h, w]` as stored; read, they are `clamp(value * scale[c] + shift[c], low, high)`.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Stored<'a> {
    pub(in crate::nn) values: &'a [f32],
    /// `[c]`.
    pub(in crate::nn) scale: &'a [f32],
    /// `[c]`.
    pub(in crate::nn) shift: &'a [f32],
    pub(in crate::nn) low: f32,
    pub(in crate::nn) high: f32,
}

/// The gradient of the loss by a convolution's output as stored, before BatchNorm:
/// `gradient * by_gradient[c] + value * by_value[c] + constant[c]`.
///
/// `gradient` and `values` are `[n, c, h, w]`; the gradient is what came to the BatchNorm's output, zero where the activation
/// lets none through.
#[derive(Clone, Copy)]
pub(in crate::nn) struct OutputGradient<'a> {
    pub(in crate::nn) gradient: &'a [f32],
    pub(in crate::nn) values: &'a [f32],
    /// `[c]`.
    pub(in crate::nn) by_gradient: &'a [f32],
    /// `[c]`.
    pub(in crate::nn) by_value: &'a [f32],
    /// `[c]`.
    pub(in crate::nn) constant: &'a [f32],
}

/// Where the gradient by a layer's input goes: of its [`Stored`] input as read, where the clamp lets it through (strictly
/// between `low` and `high`), else 0.
pub(in crate::nn) struct InputGradient<'a> {
    /// `[n, c, h, w]`.
    pub(in crate::nn) gradient: &'a mut [f32],
    /// Whether what is there stays and the new is added to it, because the input has several readers.
    pub(in crate::nn) add: bool,
    /// `[c]`: the new gradient, and it times `value - pivot[c]` of the input as stored, are added to these.
    pub(in crate::nn) sums: &'a mut [Sums],
    /// `[c]`.
    pub(in crate::nn) pivot: &'a [f32],
}

/// Where the output of a layer goes in a training step.
pub(in crate::nn) struct Output<'a> {
    /// `[n, c, h, w]`, overwritten.
    pub(in crate::nn) values: &'a mut [f32],
    /// `[c]`, overwritten: sums of `value - pivot[c]` and of its square, for the statistics of BatchNorm.
    pub(in crate::nn) sums: &'a mut [Sums],
    /// `[c]`: near the channel's mean, so that the variance loses no digits.
    pub(in crate::nn) pivot: &'a [f32],
}

/// Two sums of a channel over a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::nn) struct Sums {
    pub(in crate::nn) first: f64,
    pub(in crate::nn) second: f64,
}
