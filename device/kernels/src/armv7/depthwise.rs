//! Depthwise convolution of any kernel: at each output position, 16 channels at a time.

use std::ops::Range;

use super::assembly::{LIMITS, Taps, graft_armv7_taps};
use crate::arm::taps;
use crate::operator::Kernel;
use crate::operators::Depthwise;
use crate::packed::{Packed, cut, len_of, padded};
use crate::window::Window;

/// Channels of a block.
const BLOCK: usize = 16;

#[derive(Debug)]
pub(super) struct NeonDepthwise {
    window: Window,
    weights: Packed,
    bias: Packed,
    scales: Packed,
    input_zero_point: u8,
    output_zero_point: u8,
}

impl NeonDepthwise {
    pub(super) fn new(depthwise: &Depthwise) -> NeonDepthwise {
        NeonDepthwise {
            window: depthwise.window,
            weights: taps::pack(depthwise, BLOCK),
            bias: Packed::integers(&padded(&depthwise.bias, BLOCK)),
            scales: Packed::floats(&padded(&depthwise.requantize.scales, BLOCK)),
            input_zero_point: depthwise.input_zero_point,
            output_zero_point: depthwise.requantize.zero_point,
        }
    }

    /// Taps of the kernel.
    fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Bytes of scratch: a pixel of padding, where each tap looks.
    fn pieces(&self) -> [usize; 2] {
        let pixel = self.window.channels.next_multiple_of(BLOCK);
        [pixel, self.taps() * size_of::<*const u8>()]
    }
}

impl Kernel for NeonDepthwise {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], scratch: &mut [u8]) {
        let window = &self.window;
        let channels = window.channels;
        let line = window.width * channels;
        let [padding, taps] = cut(scratch, self.pieces());
        padding.fill(self.input_zero_point);
        let taps = taps.as_mut_ptr().cast::<*const u8>();
        let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
        let whole = channels / BLOCK * BLOCK;
        for ([y, x], output) in positions.zip(output.chunks_exact_mut(channels)) {
            let (top, left) = (y * window.stride[0], x * window.stride[1]);
            let mut tap = taps;
            for y in (top..top + window.kernel[0]).map(|y| y.wrapping_sub(window.top)) {
                let row = (y < window.height).then(|| &inputs[0][y * line..]);
                for x in (left..left + window.kernel[1]).map(|x| x.wrapping_sub(window.left)) {
                    let seen = match row {
                        Some(row) if x < window.width => row[x * channels..].as_ptr(),
                        _ => padding.as_ptr(),
                    };
                    // SAFETY: there is a place for each tap, on a cache line of its own.
                    unsafe {
                        tap.write(seen);
                        tap = tap.add(1);
                    }
                }
            }
            let (blocks, rest) = output.split_at_mut(whole);
            let mut last = [0; BLOCK];
            let last_len = if rest.is_empty() { 0 } else { BLOCK };
            for (output, first) in [(blocks, 0), (&mut last[..last_len], whole)] {
                if !output.is_empty() {
                    let taps = Taps {
                        taps,
                        count: self.taps(),
                        weights: self.weights.at(first * self.taps()),
                        bias: self.bias.at(first),
                        scales: self.scales.at(first),
                        zero_point: i32::from(self.output_zero_point),
                        output: output.as_mut_ptr(),
                        blocks: output.len() / BLOCK,
                        first,
                        limits: &LIMITS,
                    };
                    // SAFETY: the processor has NEON; pixels have slack or padding for the last block.
                    unsafe { graft_armv7_taps(&taps) };
                }
            }
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}
