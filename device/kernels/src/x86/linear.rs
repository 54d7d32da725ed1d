//! The linear layer on one row: bound by the memory that its weights come from, so several streams of them at once.

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::vector::{Dot, Vector};
use crate::SLACK;
use crate::groups::{self, Row};
use crate::memory::AlignedBytes;
use crate::operator::Kernel;
use crate::operators;
use crate::packed::{Packed, cut, len_of, padded};

type V<S> = <<S as Set>::Wide as Dot>::V;

const UNIT: usize = operators::Linear::UNIT;

/// Units computed together.
const TOGETHER: usize = 4;

#[derive(Debug)]
pub(super) struct Linear<S: Set> {
    outputs: usize,
    inputs: usize,
    /// Groups of taps in a row.
    steps: usize,
    /// Unit x step x output within the unit x tap.
    weights: Packed,
    bias: Packed,
    scales: Packed,
    set: PhantomData<S>,
}

impl<S: Set> Linear<S> {
    pub(super) fn new(linear: &operators::Linear) -> Linear<S> {
        let taps = <S::Wide as Dot>::TAPS;
        let outputs = linear.scales.len();
        let steps = linear.inputs.div_ceil(taps);
        let weights = match taps {
            4 => units::<4>(linear),
            _ => units::<2>(linear),
        };
        Linear {
            outputs,
            inputs: linear.inputs,
            steps,
            weights: weights.into(),
            bias: Packed::integers(&padded(&linear.bias, UNIT)),
            scales: Packed::floats(&padded(&linear.scales, UNIT)),
            set: PhantomData,
        }
    }

    /// Bytes of scratch: the input as 16-bit integers, where the dot product takes those.
    fn pieces(&self) -> [usize; 1] {
        [match <S::Wide as Dot>::TAPS {
            4 => 0,
            _ => self.inputs * 2 + SLACK,
        }]
    }
}

/// Unit x group of inputs x output within the unit x tap.
fn units<const TAPS: usize>(linear: &operators::Linear) -> AlignedBytes {
    let weights = groups::whole::<TAPS>(&linear.weights, linear.inputs);
    let (taps, _) = weights.as_chunks::<TAPS>();
    let steps = linear.inputs.div_ceil(TAPS);
    let all: Vec<usize> = (0..steps).collect();
    let units = taps.chunks(steps * UNIT);
    let mut packed = AlignedBytes::with_capacity(units.len() * UNIT * steps * TAPS);
    for unit in units {
        let rows: Vec<Row<TAPS>> = unit.chunks_exact(steps).enumerate().collect();
        groups::pack(&rows, &all, UNIT, &mut packed);
    }
    packed
}

impl<S: Set> Kernel<f32> for Linear<S> {
    fn scratch_len(&self) -> usize {
        len_of(self.pieces())
    }

    fn granule(&self) -> usize {
        TOGETHER
    }

    fn run(&self, units: Range<usize>, inputs: &[&[u8]], logits: &mut [f32], scratch: &mut [u8]) {
        // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
        unsafe { S::linear(self, units, inputs[0], logits, scratch) }
    }
}

/// # Safety
/// The processor has the set; `input` is the whole input with its slack, `logits` the part of `units`, `scratch` as long as
/// `scratch_len`.
#[inline(always)]
pub(super) unsafe fn run<S: Set>(
    linear: &Linear<S>,
    units: Range<usize>,
    input: &[u8],
    logits: &mut [f32],
    scratch: &mut [u8],
) {
    let [words] = cut(scratch, linear.pieces());
    let input = if <S::Wide as Dot>::TAPS == 4 {
        input.as_ptr()
    } else {
        for at in (0..linear.inputs).step_by(2 * V::<S>::LANES) {
            // SAFETY: as for the caller: a vector overruns input and scratch by less than their slack.
            unsafe {
                let wide = V::<S>::widen_8_to_16(input.as_ptr().add(at));
                V::<S>::store(words.as_mut_ptr().add(2 * at), wide);
            }
        }
        words.as_ptr()
    };
    let last = linear.outputs.div_ceil(UNIT);
    let mut unit = units.start;
    while unit < units.end {
        let logits = &mut logits[(unit - units.start) * UNIT..];
        // SAFETY: as for the caller: `units` have weights, bias, scales and logits.
        unsafe {
            if unit + TOGETHER <= units.end && unit + TOGETHER < last {
                sum::<S, TOGETHER>(linear, unit, input, logits.as_mut_ptr());
                unit += TOGETHER;
            } else {
                let mut whole = [0.0; UNIT];
                sum::<S, 1>(linear, unit, input, whole.as_mut_ptr());
                let count = logits.len().min(UNIT);
                logits[..count].copy_from_slice(&whole[..count]);
                unit += 1;
            }
        }
    }
}

/// # Safety
/// As for [`run`]: there are `UNITS` whole units from `unit` on in all but the logits, and in these.
#[inline(always)]
unsafe fn sum<S: Set, const UNITS: usize>(
    linear: &Linear<S>,
    unit: usize,
    input: *const u8,
    logits: *mut f32,
) {
    /// Vectors of a unit, at most.
    const VECTORS: usize = 2;
    let vectors = UNIT / V::<S>::LANES;
    let (vector, weight) = (V::<S>::LANES, V::<S>::LANES * <S::Wide as Dot>::TAPS);
    let unit_len = linear.steps * vectors * weight;
    // SAFETY: as for the caller.
    unsafe {
        let weights = linear.weights.at::<u8>(unit * unit_len);
        let bias = linear.bias.at::<u8>(unit * UNIT * 4);
        let scales = linear.scales.at::<f32>(unit * UNIT);
        let mut sums = [[V::<S>::splat_32(0); VECTORS]; UNITS];
        for (u, sums) in sums.iter_mut().enumerate() {
            for (v, sums) in sums.iter_mut().enumerate().take(vectors) {
                *sums = V::<S>::load(bias.add((u * UNIT + v * vector) * 4));
            }
        }
        for step in 0..linear.steps {
            let x = input.add(step * 4).cast::<i32>().read_unaligned();
            let x = V::<S>::splat_32(x);
            for (u, sums) in sums.iter_mut().enumerate() {
                for (v, sums) in sums.iter_mut().enumerate().take(vectors) {
                    let at = u * unit_len + (step * vectors + v) * weight;
                    *sums = S::Wide::dot(*sums, x, S::Wide::load_bytes(weights.add(at)));
                }
            }
        }
        for (u, sums) in sums.into_iter().enumerate() {
            for (v, sums) in sums.into_iter().enumerate().take(vectors) {
                let at = u * UNIT + v * vector;
                let scales = V::<S>::load_floats(scales.add(at));
                let values = V::<S>::multiply(V::<S>::to_floats(sums), scales);
                V::<S>::store_floats(logits.add(at), values);
            }
        }
    }
}
