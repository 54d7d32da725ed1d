//! The low-frequency coefficients of a block -> a smaller block of samples.
//!
//! Of the 8 x 8 coefficients F that the inverse discrete cosine transform of ITU-T T.81, A.3.3, takes, those of the
//! lowest X horizontal and Y vertical frequencies are the transform of a block of X x Y samples, but for their scale
//! ("DCT scaling", as libjpeg calls it; Dugad and Ahuja, "A fast scheme for image size change in the compressed domain",
//! IEEE TCSVT 11, 2001):
//!
//! ```text
//! sample(x, y) = 128 + 1/8 sum over u < X, v < Y of F(u, v) b(X, u, x) b(Y, v, y)
//! b(N, 0, n)   = 1
//! b(N, k, n)   = sqrt(2) cos((2n + 1) k pi / 2N)
//! ```
//!
//! With 8 x 8 that is T.81's transform; with 1 x 1 the mean of the block. Here it is computed in fixed point: columns
//! first, rounded to 4 bits after the point, then rows. Sums wrap: no coefficients that come from samples are that large.

/// Bits after the point of b.
const BASIS_BITS: u32 = 12;

/// Bits after the point between columns and rows.
const COLUMN_BITS: u32 = 4;

/// Half of what rows are shifted by, and the 128 of the formula.
const ROW_START: i32 = (128 << ROW_SHIFT) + (1 << (ROW_SHIFT - 1));

/// What rows are shifted by: the eighth of the formula, too.
const ROW_SHIFT: u32 = BASIS_BITS + COLUMN_BITS + 3;

/// What columns are shifted by.
const COLUMN_SHIFT: u32 = BASIS_BITS - COLUMN_BITS;

/// Writes the samples of a block of that width and height, each 1, 2, 4 or 8 and at most twice the other, to the
/// beginnings of rows that begin `stride` apart.
///
/// `block` has 8 x 8 coefficients; those of higher frequencies than the block has are not read.
#[inline(always)]
pub(super) fn inverse_dct(
    (width, height): (usize, usize),
    block: &[i32; 64],
    output: &mut [u8],
    stride: usize,
) {
    match (width, height) {
        (1, 1) => transform::<1, 1>(block, output, stride),
        (1, 2) => transform::<1, 2>(block, output, stride),
        (2, 1) => transform::<2, 1>(block, output, stride),
        (2, 2) => transform::<2, 2>(block, output, stride),
        (2, 4) => transform::<2, 4>(block, output, stride),
        (4, 2) => transform::<4, 2>(block, output, stride),
        (4, 4) => transform::<4, 4>(block, output, stride),
        (4, 8) => transform::<4, 8>(block, output, stride),
        (8, 4) => transform::<8, 4>(block, output, stride),
        _ => transform::<8, 8>(block, output, stride),
    }
}

/// Every sample of a block whose first coefficient is the only one: what the transform would give.
#[inline(always)]
pub(super) fn flat(first: i32) -> u8 {
    let column = first.wrapping_shl(COLUMN_BITS);
    to_sample(column.wrapping_shl(BASIS_BITS).wrapping_add(ROW_START))
}

#[inline(always)]
fn to_sample(sum: i32) -> u8 {
    (sum >> ROW_SHIFT).clamp(0, 255) as u8
}

/// sqrt(2) cos(i pi / 16) for i from 0 to 8.
const COSINES: [i32; 9] = [5_793, 5_681, 5_352, 4_816, 4_096, 3_218, 2_217, 1_130, 0];

/// The basis of N samples: b(N, k, n) at `[k][n]`.
const fn basis<const N: usize>() -> [[i32; N]; N] {
    let mut basis = [[1 << BASIS_BITS; N]; N];
    let mut k = 1;
    while k < N {
        let mut n = 0;
        while n < N {
            // In units of pi / 16, of which the circle has 32.
            let angle = (2 * n + 1) * k * (8 / N) % 32;
            let angle = if angle > 16 { 32 - angle } else { angle };
            basis[k][n] = if angle > 8 {
                -COSINES[16 - angle]
            } else {
                COSINES[angle]
            };
            n += 1;
        }
        k += 1;
    }
    basis
}

#[inline(always)]
fn transform<const X: usize, const Y: usize>(block: &[i32; 64], output: &mut [u8], stride: usize) {
    let (across, down) = (const { basis::<X>() }, const { basis::<Y>() });
    let mut columns = [[1_i32 << (COLUMN_SHIFT - 1); X]; Y];
    for v in 0..Y {
        for y in 0..Y {
            for u in 0..X {
                let product = block[v * 8 + u].wrapping_mul(down[v][y]);
                columns[y][u] = columns[y][u].wrapping_add(product);
            }
        }
    }
    let mut rows = [[ROW_START; Y]; X];
    for u in 0..X {
        let column: [i32; Y] = std::array::from_fn(|y| columns[y][u] >> COLUMN_SHIFT);
        for x in 0..X {
            for y in 0..Y {
                let product = column[y].wrapping_mul(across[u][x]);
                rows[x][y] = rows[x][y].wrapping_add(product);
            }
        }
    }
    let samples: [[u8; X]; Y] =
        std::array::from_fn(|y| std::array::from_fn(|x| to_sample(rows[x][y])));
    for (samples, output) in samples.iter().zip(output.chunks_mut(stride)) {
        output[..X].copy_from_slice(samples);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::f64::consts::{PI, SQRT_2};

    use super::*;

    /// The formula of the module's page.
    fn exact(block: &[i32; 64], width: usize, height: usize, x: usize, y: usize) -> f64 {
        let basis = |size: usize, k: usize, n: usize| match k {
            0 => 1.0,
            _ => SQRT_2 * ((2 * n + 1) as f64 * k as f64 * PI / (2 * size) as f64).cos(),
        };
        let sum: f64 = (0..height)
            .flat_map(|v| (0..width).map(move |u| (u, v)))
            .map(|(u, v)| f64::from(block[v * 8 + u]) * basis(width, u, x) * basis(height, v, y))
            .sum();
        (128.0 + sum / 8.0).clamp(0.0, 255.0)
    }

    #[test]
    fn near_the_formula_and_equal_where_flat() {
        let mut state = 1_u32;
        let mut random = |most: i32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as i32 % (2 * most + 1) - most
        };
        for (width, height) in (0..4).flat_map(|x| (0..4).map(move |y| (1 << x, 1 << y))) {
            if width > 2 * height || height > 2 * width {
                continue;
            }
            for most in [0, 40, 300] {
                for _ in 0..200 {
                    let mut block = [0; 64].map(|_: i32| random(most));
                    block[0] = random(1_200);
                    let mut samples = vec![0; 10 * height];
                    inverse_dct((width, height), &block, &mut samples, 10);
                    for (index, &sample) in samples.iter().enumerate() {
                        let (x, y) = (index % 10, index / 10);
                        if x >= width {
                            assert_eq!(sample, 0);
                            continue;
                        }
                        let exact = exact(&block, width, height, x, y);
                        assert!(
                            (exact - f64::from(sample)).abs() < 0.65,
                            "{exact}, {sample}"
                        );
                        if most == 0 {
                            assert_eq!(sample, flat(block[0]));
                        }
                    }
                }
            }
        }
    }
}
