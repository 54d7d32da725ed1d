//! The two passes in plain Rust: the specification.

use super::{HALF, PRECISION_BITS, Taps};

// Sums can't overflow: the weights of a tap add up to 2^22 within rounding, negative ones to at most an eighth of it,
// times 255 is below 2^31. Wrapping operations keep the overflow checks out of the inner loops.

/// One row: each pixel of `output` is the weighted sum of those of `row` beneath its tap.
pub(super) fn horizontal(row: &[u8], taps: &Taps, output: &mut [u8]) {
    for (pixel, (start, weights)) in output.as_chunks_mut::<3>().0.iter_mut().zip(taps.iter()) {
        let mut sums = [HALF; 3];
        let source = row[start * 3..].as_chunks::<3>().0;
        for (rgb, &weight) in source.iter().zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(rgb) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        *pixel = sums.map(to_u8);
    }
}

/// Columns that are summed side by side.
const SIDE_BY_SIDE: usize = 32;

/// One row: each byte of `output` is the weighted sum of the bytes at its place in the rows of `rows`, which are as long
/// as `output`.
#[inline(always)]
pub(super) fn vertical(rows: &[u8], weights: &[i32], output: &mut [u8]) {
    let length = output.len();
    let (chunks, rest) = output.as_chunks_mut::<SIDE_BY_SIDE>();
    for (index, chunk) in chunks.iter_mut().enumerate() {
        let mut sums = [HALF; SIDE_BY_SIDE];
        for (row, &weight) in rows.chunks_exact(length).zip(weights) {
            let values = &row.as_chunks::<SIDE_BY_SIDE>().0[index];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        *chunk = sums.map(to_u8);
    }
    let first = chunks.len() * SIDE_BY_SIDE;
    for (column, output) in (first..).zip(rest) {
        let values = rows.iter().skip(column).step_by(length);
        let products = values
            .zip(weights)
            .map(|(&value, &weight)| i32::from(value).wrapping_mul(weight));
        *output = to_u8(products.fold(HALF, i32::wrapping_add));
    }
}

/// Rounds a sum to u8.
#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
