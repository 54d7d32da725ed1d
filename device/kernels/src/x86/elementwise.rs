//! Operators on bytes at the same place: the residual add, the product of two activations.

use std::marker::PhantomData;
use std::ops::Range;

use super::Set;
use super::vector::{Dot, Vector, spread};
use crate::operator::Kernel;
use crate::operators;

type V<S> = <<S as Set>::Wide as Dot>::V;

#[derive(Debug)]
pub(super) struct Add<S: Set> {
    add: operators::Add,
    set: PhantomData<S>,
}

#[derive(Debug)]
pub(super) struct Multiply<S: Set> {
    multiply: operators::Multiply,
    set: PhantomData<S>,
}

impl<S: Set> Add<S> {
    pub(super) fn new(add: operators::Add) -> Add<S> {
        let set = PhantomData;
        Add { add, set }
    }
}

impl<S: Set> Multiply<S> {
    pub(super) fn new(multiply: operators::Multiply) -> Multiply<S> {
        let set = PhantomData;
        Multiply { multiply, set }
    }
}

impl<S: Set> Kernel for Add<S> {
    fn granule(&self) -> usize {
        4 * V::<S>::LANES
    }

    fn run(&self, bytes: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
        unsafe {
            S::add(
                self,
                &inputs[0][bytes.start..],
                &inputs[1][bytes.start..],
                output,
            )
        }
    }
}

impl<S: Set> Kernel for Multiply<S> {
    fn run(&self, units: Range<usize>, inputs: &[&[u8]], output: &mut [u8], _: &mut [u8]) {
        let first = units.start * (output.len() / units.len());
        // Bytes, or positions of as many bytes as the second input has: it never starts over within a row.
        let (b, row) = match self.multiply.period {
            period if units.len() == output.len() && period > 1 => {
                (&inputs[1][first..], output.len())
            }
            period => (inputs[1], period),
        };
        let a = inputs[0][first..].chunks(row);
        for (output, a) in output.chunks_mut(row).zip(a) {
            // SAFETY: this kernel is only made for a set that the processor has; the operator checked the lengths.
            unsafe { S::multiply(self, a, b, output) }
        }
    }
}

/// # Safety
/// The processor has the set; behind as many bytes as `output` has, the inputs have their slack.
#[inline(always)]
pub(super) unsafe fn add<S: Set>(add: &Add<S>, a: &[u8], b: &[u8], output: &mut [u8]) {
    // SAFETY: as for the caller: vectors overrun the inputs by less than their slack.
    unsafe {
        let ra = V::<S>::splat_float(add.add.ra);
        let rb = V::<S>::splat_float(add.add.rb);
        let fix = V::<S>::splat_float(add.add.fix);
        for at in (0..output.len()).step_by(4 * V::<S>::LANES) {
            let a = spread::<V<S>>(V::<S>::load(a.as_ptr().add(at)));
            let b = spread::<V<S>>(V::<S>::load(b.as_ptr().add(at)));
            let mut sums = [V::<S>::splat_32(0); 4];
            for i in 0..4 {
                let inner = V::<S>::multiply_add(V::<S>::to_floats(b[i]), rb, fix);
                let sum = V::<S>::multiply_add(V::<S>::to_floats(a[i]), ra, inner);
                sums[i] = V::<S>::from_floats(sum);
            }
            let low = V::<S>::pack_32(sums[0], sums[1]);
            let high = V::<S>::pack_32(sums[2], sums[3]);
            store::<V<S>>(output, at, V::<S>::pack_16(low, high));
        }
    }
}

/// # Safety
/// As for [`add`].
#[inline(always)]
pub(super) unsafe fn multiply<S: Set>(
    multiply: &Multiply<S>,
    a: &[u8],
    b: &[u8],
    output: &mut [u8],
) {
    let multiply = &multiply.multiply;
    let [za, zb] = multiply.zero_points.map(|z| -i32::from(z));
    // SAFETY: as for the caller: vectors overrun the inputs by less than their slack.
    unsafe {
        let (za, zb) = (V::<S>::splat_32(za), V::<S>::splat_32(zb));
        let scale = V::<S>::splat_float(multiply.scale);
        let zero_point = V::<S>::splat_16(i16::from(multiply.output_zero_point));
        for at in (0..output.len()).step_by(4 * V::<S>::LANES) {
            let a = spread::<V<S>>(V::<S>::load(a.as_ptr().add(at)));
            let b = spread::<V<S>>(V::<S>::load(b.as_ptr().add(at)));
            let mut products = [V::<S>::splat_32(0); 4];
            for i in 0..4 {
                let a = V::<S>::to_floats(V::<S>::add_32(a[i], za));
                let b = V::<S>::to_floats(V::<S>::add_32(b[i], zb));
                // The first product is an integer below 2^24: exact.
                let product = V::<S>::multiply(V::<S>::multiply(a, b), scale);
                products[i] = V::<S>::from_floats(product);
            }
            let low = V::<S>::pack_32(products[0], products[1]);
            let high = V::<S>::pack_32(products[2], products[3]);
            let bytes = V::<S>::pack_16(
                V::<S>::add_saturating_16(low, zero_point),
                V::<S>::add_saturating_16(high, zero_point),
            );
            store::<V<S>>(output, at, bytes);
        }
    }
}

/// Stores as many bytes as `output` has from `at` on.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
unsafe fn store<V: Vector>(output: &mut [u8], at: usize, bytes: V) {
    let left = output.len() - at;
    // SAFETY: `left` bytes follow.
    unsafe {
        let to = output.as_mut_ptr().add(at);
        if left >= 4 * V::LANES {
            V::store(to, bytes);
        } else {
            V::store_first(to, bytes, left);
        }
    }
}
