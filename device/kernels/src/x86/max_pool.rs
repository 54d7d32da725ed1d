//! The largest byte of each window, as many channels at a time as a vector has bytes.

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::vector::{Dot, Vector};
use crate::operator::Kernel;
use crate::operators;

type V<S> = <<S as Set>::Wide as Dot>::V;

#[derive(Debug)]
pub(super) struct MaxPool<S: Set> {
    pool: operators::MaxPool,
    set: PhantomData<S>,
}

impl<S: Set> MaxPool<S> {
    pub(super) fn new(pool: operators::MaxPool) -> MaxPool<S> {
        let set = PhantomData;
        MaxPool { pool, set }
    }
}

impl<S: Set> Kernel for MaxPool<S> {
    fn run(&self, rows: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
        unsafe { S::max_pool(self, rows, inputs[0], output) }
    }
}

/// # Safety
/// The processor has the set; `input` is the whole input with its slack, `output` the part of `rows`.
#[inline(always)]
pub(super) unsafe fn run<S: Set>(
    pool: &MaxPool<S>,
    rows: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let window = &pool.pool.window;
    let channels = window.channels;
    let bytes = 4 * V::<S>::LANES;
    let positions = rows.flat_map(|y| (0..window.out_width).map(move |x| [y, x]));
    for ([y, x], output) in positions.zip(output.chunks_exact_mut(channels)) {
        let inside = |at: usize, stride: usize, before: usize, kernel: usize, size: usize| {
            let end = (at * stride + kernel).saturating_sub(before).min(size);
            (at * stride).saturating_sub(before)..end
        };
        let rows = inside(
            y,
            window.stride[0],
            window.top,
            window.kernel[0],
            window.height,
        );
        let columns = inside(
            x,
            window.stride[1],
            window.left,
            window.kernel[1],
            window.width,
        );
        for first in (0..channels).step_by(bytes) {
            // SAFETY: as for the caller: the window lies inside the picture, vectors overrun it by less than its slack.
            unsafe {
                let mut largest = V::<S>::splat_8(0);
                for row in rows.clone() {
                    let mut at = input
                        .as_ptr()
                        .add((row * window.width + columns.start) * channels + first);
                    for _ in columns.clone() {
                        largest = V::<S>::max_8(largest, V::<S>::load(at));
                        at = at.wrapping_add(channels);
                    }
                }
                let to = output.as_mut_ptr().add(first);
                if channels - first >= bytes {
                    V::<S>::store(to, largest);
                } else {
                    V::<S>::store_first(to, largest, channels - first);
                }
            }
        }
    }
}
