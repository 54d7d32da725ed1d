//! Work on short rows, value by value, without an instruction for single values: the last piece of a row overlaps the one
//! before it.
//!
//! Every function is to be inlined where vector instructions are enabled.

/// `target = operation(left, right)`, all of one length.
#[inline(always)]
pub(super) fn combine(
    left: &[f32],
    right: &[f32],
    target: &mut [f32],
    operation: impl Fn(f32, f32) -> f32,
) {
    #[inline(always)]
    fn pieces<const N: usize>(
        left: &[f32],
        right: &[f32],
        target: &mut [f32],
        operation: impl Fn(f32, f32) -> f32,
    ) {
        for start in starts(target.len(), N) {
            let (left, right) = (piece::<N, _>(left, start), piece::<N, _>(right, start));
            let mut results = [0.0; N];
            for ((result, &left), &right) in results.iter_mut().zip(left).zip(right) {
                *result = operation(left, right);
            }
            target[start..][..N].copy_from_slice(&results);
        }
    }
    match target.len() {
        0..4 => pieces::<1>(left, right, target, operation),
        4..8 => pieces::<4>(left, right, target, operation),
        8..16 => pieces::<8>(left, right, target, operation),
        _ => pieces::<16>(left, right, target, operation),
    }
}

/// `target = operation(source)`, both of one length.
#[inline(always)]
pub(super) fn map(source: &[f32], target: &mut [f32], operation: impl Fn(f32) -> f32) {
    combine(source, source, target, |value, _| operation(value));
}

/// `[even, odd, even, odd...]` to evens and odds, both of one length.
#[inline(always)]
pub(super) fn split(
    source: &[f32],
    evens: &mut [f32],
    odds: &mut [f32],
    operation: impl Fn(f32) -> f32,
) {
    #[inline(always)]
    fn pieces<const N: usize>(
        source: &[[f32; 2]],
        evens: &mut [f32],
        odds: &mut [f32],
        operation: impl Fn(f32) -> f32,
    ) {
        for start in starts(evens.len(), N) {
            let pairs = piece::<N, _>(source, start);
            let (mut even_values, mut odd_values) = ([0.0; N], [0.0; N]);
            for ((even, odd), pair) in even_values.iter_mut().zip(&mut odd_values).zip(pairs) {
                *even = operation(pair[0]);
                *odd = operation(pair[1]);
            }
            evens[start..][..N].copy_from_slice(&even_values);
            odds[start..][..N].copy_from_slice(&odd_values);
        }
    }
    let (pairs, _) = source.as_chunks::<2>();
    match evens.len() {
        0..4 => pieces::<1>(pairs, evens, odds, operation),
        4..8 => pieces::<4>(pairs, evens, odds, operation),
        8..16 => pieces::<8>(pairs, evens, odds, operation),
        _ => pieces::<16>(pairs, evens, odds, operation),
    }
}

/// The inverse of [`split`].
#[inline(always)]
pub(super) fn join(evens: &[f32], odds: &[f32], target: &mut [f32]) {
    #[inline(always)]
    fn pieces<const N: usize>(evens: &[f32], odds: &[f32], target: &mut [[f32; 2]]) {
        for start in starts(target.len(), N) {
            let (evens, odds) = (piece::<N, _>(evens, start), piece::<N, _>(odds, start));
            let mut pairs = [[0.0; 2]; N];
            for ((pair, &even), &odd) in pairs.iter_mut().zip(evens).zip(odds) {
                *pair = [even, odd];
            }
            target[start..][..N].copy_from_slice(&pairs);
        }
    }
    let (pairs, _) = target.as_chunks_mut::<2>();
    match pairs.len() {
        0..4 => pieces::<1>(evens, odds, pairs),
        4..8 => pieces::<4>(evens, odds, pairs),
        8..16 => pieces::<8>(evens, odds, pairs),
        _ => pieces::<16>(evens, odds, pairs),
    }
}

/// Where the pieces of a row begin, none if it is empty; `length` is 0 or at least `piece`.
#[inline(always)]
fn starts(length: usize, piece: usize) -> impl Iterator<Item = usize> {
    let last = length.checked_sub(piece);
    (0..last.unwrap_or(0)).step_by(piece).chain(last)
}

#[inline(always)]
fn piece<const N: usize, T>(values: &[T], start: usize) -> &[T; N] {
    &values[start..].as_chunks::<N>().0[0]
}
