//! Operators on two bytes at the same place: residual add and product.

use std::arch::aarch64::*;
use std::ops::Range;

use super::vector::{LANES, store_first, to_bytes, zero_point};
use crate::operator::Kernel;
use crate::operators::{Add, Multiply};

/// Residual add.
#[derive(Debug)]
pub(super) struct NeonAdd(pub(super) Add);

impl Kernel for NeonAdd {
    fn run(&self, bytes: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let (a, b) = (&inputs[0][bytes.start..], &inputs[1][bytes.start..]);
        // SAFETY: every 64-bit ARM processor has the instructions; the inputs have slack for a vector behind them.
        unsafe { add(&self.0, a.as_ptr(), b.as_ptr(), output) };
    }
}

/// # Safety
/// `a` and `b` are readable for as many bytes as the output has, in whole vectors.
#[target_feature(enable = "neon")]
unsafe fn add(add: &Add, mut a: *const u8, mut b: *const u8, output: &mut [u8]) {
    let (ra, rb) = (vdupq_n_f32(add.ra), vdupq_n_f32(add.rb));
    let fix = vdupq_n_f32(add.fix);
    let zero_point = zero_point(0);
    for output in output.chunks_mut(LANES) {
        // SAFETY: the caller vouches for the inputs; the chunk has as many bytes as it says.
        unsafe {
            let (x, y) = (floats(vld1q_u8(a)), floats(vld1q_u8(b)));
            let sum = |i: usize| vfmaq_f32(vfmaq_f32(fix, y[i], rb), x[i], ra);
            let bytes = to_bytes([sum(0), sum(1), sum(2), sum(3)], zero_point);
            store_first(output.as_mut_ptr(), bytes, output.len());
            (a, b) = (a.add(LANES), b.add(LANES));
        }
    }
}

/// Bytes as numbers.
#[inline]
#[target_feature(enable = "neon")]
fn floats(bytes: uint8x16_t) -> [float32x4_t; 4] {
    let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
    [
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
        vcvtq_f32_u32(vmovl_high_u16(low)),
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
        vcvtq_f32_u32(vmovl_high_u16(high)),
    ]
}

/// Product of two activations.
#[derive(Debug)]
pub(super) struct NeonMultiply(pub(super) Multiply);

impl Kernel for NeonMultiply {
    fn run(&self, units: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let period = self.0.period;
        let mut first = units.start * (output.len() / units.len());
        let mut output = output;
        while !output.is_empty() {
            let at = first % period;
            let count = (period - at).min(output.len());
            let (now, later) = output.split_at_mut(count);
            let (a, b) = (&inputs[0][first..], &inputs[1][at..]);
            // SAFETY: every 64-bit ARM processor has the instructions; the inputs have slack for a vector behind them.
            unsafe { multiply(&self.0, a.as_ptr(), b.as_ptr(), now) };
            first += count;
            output = later;
        }
    }
}

/// # Safety
/// `a` and `b` are readable for as many bytes as the output has, in whole vectors.
#[target_feature(enable = "neon")]
unsafe fn multiply(multiply: &Multiply, mut a: *const u8, mut b: *const u8, output: &mut [u8]) {
    let [za, zb] = multiply.zero_points.map(|z| vdup_n_u8(z));
    let scale = vdupq_n_f32(multiply.scale);
    let zero_point = zero_point(multiply.output_zero_point);
    for output in output.chunks_mut(LANES) {
        // SAFETY: the caller vouches for the inputs; the chunk has as many bytes as it says.
        unsafe {
            let (x, y) = (vld1q_u8(a), vld1q_u8(b));
            let low = |v, z| vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(v), z));
            let high = |v, z| vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(v), z));
            let half = |x, y| {
                let products = [
                    vmull_s16(vget_low_s16(x), vget_low_s16(y)),
                    vmull_high_s16(x, y),
                ];
                products.map(|p| vmulq_f32(vcvtq_f32_s32(p), scale))
            };
            let [p, q] = half(low(x, za), low(y, zb));
            let [r, s] = half(high(x, za), high(y, zb));
            store_first(
                output.as_mut_ptr(),
                to_bytes([p, q, r, s], zero_point),
                output.len(),
            );
            (a, b) = (a.add(LANES), b.add(LANES));
        }
    }
}
