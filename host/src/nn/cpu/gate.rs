//! The way of a gradient through what is applied to a layer's input as it is read: masked, written or added, summed.

use candle_core::{Result, bail};
use pulp::Simd;

use super::training::{InputGradient, Stored, Sums};
use super::{Epilogue, Finish, channels};

/// Some channels' part of an [`InputGradient`].
pub(super) struct GradientPart<'a> {
    /// `[n][channels of the part, area]`.
    pub(super) planes: Vec<&'a mut [f32]>,
    pub(super) add: bool,
    /// Of the channels of the part.
    sums: &'a mut [Sums],
    /// Of all channels.
    pivot: &'a [f32],
}

/// # Errors
/// A gradient that is not for `len` values of that many channels.
pub(super) fn check(gradient: &InputGradient<'_>, len: usize, channels: usize) -> Result<()> {
    if gradient.gradient.len() != len
        || gradient.sums.len() != channels
        || gradient.pivot.len() != channels
    {
        bail!("an input's gradient does not fit its {len} values of {channels} channels");
    }
    Ok(())
}

/// The parts of `gradient` by tasks, see [`channels::split`].
pub(super) fn split(
    gradient: InputGradient<'_>,
    channels: usize,
    area: usize,
) -> impl Iterator<Item = GradientPart<'_>> {
    let sums = gradient.sums.chunks_mut(channels::per_task(channels));
    channels::split(gradient.gradient, channels, area)
        .into_iter()
        .zip(sums)
        .map(move |(planes, sums)| GradientPart {
            planes,
            add: gradient.add,
            sums,
            pivot: gradient.pivot,
        })
}

impl GradientPart<'_> {
    /// The way of channel `channel` of all.
    #[inline(always)]
    pub(super) fn gate<S: Simd>(&self, simd: S, input: &Stored<'_>, channel: usize) -> Gate<S> {
        Gate::new(simd, input, channel, self.pivot[channel])
    }

    /// Adds a gate's sums to those of the part's channel `index`.
    #[inline(always)]
    pub(super) fn close<S: Simd>(&mut self, index: usize, gate: Gate<S>) {
        let sums = &mut self.sums[index];
        sums.first += f64::from(gate.simd.reduce_sum_f32s(gate.first));
        sums.second += f64::from(gate.simd.reduce_sum_f32s(gate.second));
    }
}

/// What is applied to `input` when it is read.
#[inline(always)]
pub(super) fn read<S: Simd>(simd: S, input: &Stored<'_>, channel: usize) -> Finish<S> {
    let Stored {
        scale,
        shift,
        low,
        high,
        ..
    } = *input;
    Epilogue {
        scale,
        shift,
        low,
        high,
    }
    .channel(simd, channel)
}

/// As [`read`], value by value.
#[inline(always)]
pub(super) fn read_value(input: &Stored<'_>, channel: usize) -> impl Fn(f32) -> f32 + Copy {
    let (scale, shift) = (input.scale[channel], input.shift[channel]);
    let (low, high) = (input.low, input.high);
    // These comparisons are one instruction each, and let a NaN through.
    move |value| {
        let value = value.mul_add(scale, shift);
        let value = if low > value { low } else { value };
        if high < value { high } else { value }
    }
}

/// One channel's way, in vector registers. Its sums are exact enough for a few planes.
#[derive(Clone, Copy)]
pub(super) struct Gate<S: Simd> {
    simd: S,
    pub(super) read: Finish<S>,
    pivot: S::f32s,
    first: S::f32s,
    second: S::f32s,
}

impl<S: Simd> Gate<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, input: &Stored<'_>, channel: usize, pivot: f32) -> Gate<S> {
        Gate {
            simd,
            read: read(simd, input, channel),
            pivot: simd.splat_f32s(pivot),
            first: simd.splat_f32s(0.0),
            second: simd.splat_f32s(0.0),
        }
    }

    /// `gradients` of the input as read, at its stored `values`, to `output`, or added to it; all of one length.
    #[inline(always)]
    pub(super) fn pass(
        &mut self,
        gradients: &[f32],
        values: &[f32],
        output: &mut [f32],
        add: bool,
    ) {
        let simd = self.simd;
        let (gradients, gradient_rest) = S::as_simd_f32s(gradients);
        let (values, value_rest) = S::as_simd_f32s(values);
        let (outputs, output_rest) = S::as_mut_simd_f32s(output);
        for ((output, &gradient), &value) in outputs.iter_mut().zip(gradients).zip(values) {
            let gradient = self.mask(gradient, value);
            *output = if add {
                simd.add_f32s(*output, gradient)
            } else {
                gradient
            };
        }
        if !gradient_rest.is_empty() {
            let gradient = simd.partial_load_f32s(gradient_rest);
            let mut gradient = self.mask(gradient, simd.partial_load_f32s(value_rest));
            if add {
                gradient = simd.add_f32s(simd.partial_load_f32s(output_rest), gradient);
            }
            simd.partial_store_f32s(output_rest, gradient);
        }
    }

    /// The gradient where the clamp lets it through, added to the sums.
    #[inline(always)]
    pub(super) fn mask(&mut self, gradient: S::f32s, value: S::f32s) -> S::f32s {
        let simd = self.simd;
        let read = simd.mul_add_f32s(value, self.read.scale, self.read.shift);
        let passes = simd.and_m32s(
            simd.greater_than_f32s(read, self.read.low),
            simd.less_than_f32s(read, self.read.high),
        );
        let gradient = simd.select_f32s(passes, gradient, simd.splat_f32s(0.0));
        let difference = simd.sub_f32s(value, self.pivot);
        self.first = simd.add_f32s(self.first, gradient);
        self.second = simd.mul_add_f32s(gradient, difference, self.second);
        gradient
    }
}
