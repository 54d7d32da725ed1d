//! The specification: every operator in plain Rust. Its results are what each instruction set has to give, to the bit.

use std::ops::Range;

use crate::operator::Kernel;
use crate::operators::{
    Add, AveragePool, Concat, Conv, Depthwise, Linear, MaxPool, Multiply, Padding, Table,
};
use crate::window::Window;

/// Channels summed at once.
const LANES: usize = 16;

/// Added to a small f32 and taken off again, it leaves the nearest integer, ties to even: 1.5 * 2^23.
const ROUNDING: f32 = 12_582_912.0;

/// `clamp(rne(value) + zero_point, 0, 255)`. Clamping first gives the same: rounding is monotone and keeps integers.
fn to_u8(value: f32, zero_point: u8) -> u8 {
    let zero_point = f32::from(zero_point);
    let integer = (value.clamp(-zero_point, 255.0 - zero_point) + ROUNDING) - ROUNDING;
    (integer + zero_point) as u8
}

/// Sum of products of two slices of one length; the caller has checked that the sum of all fits, so that wrapping on the way does not matter.
fn dot(x: &[u8], w: &[i8]) -> i32 {
    let mut sums = [0i32; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (w, w_rest) = w.as_chunks::<LANES>();
    for (x, w) in x.iter().zip(w) {
        for lane in 0..LANES {
            // |255 * -128| fits an i16.
            let product = i16::from(x[lane]).wrapping_mul(i16::from(w[lane]));
            sums[lane] = sums[lane].wrapping_add(i32::from(product));
        }
    }
    let rest = x_rest.iter().zip(w_rest);
    let rest = rest.map(|(x, w)| i32::from(*x) * i32::from(*w));
    sums.into_iter().chain(rest).fold(0, i32::wrapping_add)
}

/// The channels of the pixel under tap (`dy`, `dx`) at output (`y`, `x`), or none in the padding.
fn pixel<'a>(
    window: &Window,
    input: &'a [u8],
    [y, x]: [usize; 2],
    [dy, dx]: [usize; 2],
) -> Option<&'a [u8]> {
    let y = (y * window.stride[0] + dy).checked_sub(window.top)?;
    let x = (x * window.stride[1] + dx).checked_sub(window.left)?;
    let inside = y < window.height && x < window.width;
    inside.then(|| &input[(y * window.width + x) * window.channels..][..window.channels])
}

/// Dense convolution: what the kernel sees at an output position as one row of bytes, times the weights of each channel.
impl Kernel for Conv<'_> {
    fn scratch_len(&self) -> usize {
        self.depth()
    }

    fn run(
        &self,
        positions: Range<usize>,
        inputs: &[&[u8]],
        output: &mut [u8],
        scratch: &mut [u8],
    ) {
        let seen = &mut scratch[..self.depth()];
        for (position, output) in positions.zip(output.chunks_exact_mut(self.channels)) {
            let at = [
                position / self.window.out_width,
                position % self.window.out_width,
            ];
            let pixels = seen.chunks_exact_mut(self.window.channels);
            for (seen, tap) in pixels.zip(self.window.taps()) {
                match pixel(&self.window, inputs[0], at, tap) {
                    Some(pixel) => seen.copy_from_slice(pixel),
                    None => seen.fill(self.input_zero_point),
                }
            }
            for (c, output) in output.iter_mut().enumerate() {
                let weights = &self.weights[c * seen.len()..][..seen.len()];
                let sum = self.bias[c].wrapping_add(dot(seen, weights));
                let scale = self.requantize.scales[c];
                *output = to_u8(sum as f32 * scale, self.requantize.zero_point);
            }
        }
    }
}

/// Depthwise convolution, a few channels at a time.
impl Kernel for Depthwise {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let channels = self.window.channels;
        let positions = rows.flat_map(|y| (0..self.window.out_width).map(move |x| [y, x]));
        for (at, output) in positions.zip(output.chunks_exact_mut(channels)) {
            for (block, output) in output.chunks_mut(LANES).enumerate() {
                let first = block * LANES;
                let lanes = first..first + output.len();
                let mut sums = [0i32; LANES];
                sums[..output.len()].copy_from_slice(&self.bias[lanes.clone()]);
                let taps = self.window.taps().zip(self.weights.chunks_exact(channels));
                for (tap, weights) in taps {
                    let padding = [self.input_zero_point; LANES];
                    let pixel = match pixel(&self.window, inputs[0], at, tap) {
                        Some(pixel) => &pixel[lanes.clone()],
                        None => &padding[..output.len()],
                    };
                    for ((sum, x), w) in sums.iter_mut().zip(pixel).zip(&weights[lanes.clone()]) {
                        *sum = sum.wrapping_add(i32::from(*x) * i32::from(*w));
                    }
                }
                let scales = &self.requantize.scales[lanes];
                for ((output, sum), scale) in output.iter_mut().zip(sums).zip(scales) {
                    *output = to_u8(sum as f32 * scale, self.requantize.zero_point);
                }
            }
        }
    }
}

/// Linear layer on one row, to f32.
impl Kernel<f32> for Linear {
    fn run(&self, units: Range<usize>, inputs: &[&[u8]], logits: &mut [f32], _: &mut [u8]) {
        let input = &inputs[0][..self.inputs];
        for (c, logit) in (units.start * Linear::UNIT..).zip(logits) {
            let weights = &self.weights[c * self.inputs..][..self.inputs];
            let sum = self.bias[c].wrapping_add(dot(input, weights));
            *logit = sum as f32 * self.scales[c];
        }
    }
}

/// Residual add; the inner product is that of the second input.
impl Kernel for Add {
    fn run(&self, bytes: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let (a, b) = (&inputs[0][bytes.clone()], &inputs[1][bytes]);
        for ((y, a), b) in output.iter_mut().zip(a).zip(b) {
            let inner = f32::from(*b).mul_add(self.rb, self.fix);
            *y = to_u8(f32::from(*a).mul_add(self.ra, inner), 0);
        }
    }
}

/// Product of two activations; the second starts over after `period` bytes.
impl Kernel for Multiply {
    fn run(&self, units: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let [za, zb] = self.zero_points.map(i32::from);
        let unit = output.len() / units.len();
        let first = units.start * unit;
        let a = &inputs[0][first..];
        let b = inputs[1][..self.period].iter().cycle();
        for ((y, a), b) in output.iter_mut().zip(a).zip(b.skip(first % self.period)) {
            let product = (i32::from(*a) - za) * (i32::from(*b) - zb);
            *y = to_u8(product as f32 * self.scale, self.output_zero_point);
        }
    }
}

/// Mean of each window and channel, a few channels at a time.
impl Kernel for AveragePool {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let window = &self.window;
        let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
        for (at, output) in positions.zip(output.chunks_exact_mut(window.channels)) {
            for (block, output) in output.chunks_mut(LANES).enumerate() {
                let lanes = block * LANES..block * LANES + output.len();
                let mut sums = [0i32; LANES];
                let mut count = 0;
                for tap in window.taps() {
                    if let Some(pixel) = pixel(window, inputs[0], at, tap) {
                        count += 1;
                        for (sum, x) in sums.iter_mut().zip(&pixel[lanes.clone()]) {
                            *sum += i32::from(*x);
                        }
                    }
                }
                // Padding that counts adds the zero point, which is taken off again: it only divides.
                let offset = count * i32::from(self.input_zero_point);
                let scale = self.scale(match self.padding {
                    Padding::Counts => window.kernel[0] * window.kernel[1],
                    Padding::IsLeftOut => count as usize,
                });
                for (y, sum) in output.iter_mut().zip(sums) {
                    *y = to_u8((sum - offset) as f32 * scale, self.output_zero_point);
                }
            }
        }
    }
}

/// Largest byte of each window and channel.
impl Kernel for MaxPool {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let window = &self.window;
        let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
        for (at, output) in positions.zip(output.chunks_exact_mut(window.channels)) {
            output.fill(0);
            for tap in window.taps() {
                if let Some(pixel) = pixel(window, inputs[0], at, tap) {
                    for (largest, byte) in output.iter_mut().zip(pixel) {
                        *largest = (*largest).max(*byte);
                    }
                }
            }
        }
    }
}

/// The channels of each input in turn, position after position.
impl Kernel for Concat {
    fn run(&self, positions: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        for (position, mut output) in positions.zip(output.chunks_exact_mut(self.channels)) {
            for (part, input) in self.parts.iter().zip(inputs) {
                let input = &input[position * part.channels..][..part.channels];
                let (own, rest) = output.split_at_mut(part.channels);
                match &part.table {
                    Some(table) => {
                        for (y, x) in own.iter_mut().zip(input) {
                            *y = table[usize::from(*x)];
                        }
                    }
                    None => own.copy_from_slice(input),
                }
                output = rest;
            }
        }
    }
}

/// One lookup per byte, in the table of its channel.
impl Kernel for Table {
    fn run(&self, positions: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let input = &inputs[0][positions.start * self.channels..];
        // One row for all channels, or one for each.
        let channels = self.rows.len();
        for (y, x) in output
            .chunks_exact_mut(channels)
            .zip(input.chunks_exact(channels))
        {
            for ((y, x), row) in y.iter_mut().zip(x).zip(&self.rows) {
                *y = row[usize::from(*x)];
            }
        }
    }
}
