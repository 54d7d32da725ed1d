//! The transforms of tiles, vector by vector: every lane is a tile, or channel, of its own.
//!
//! Each is a matrix `M` with few entries other than 0, 1 and -1, applied from both sides: `M x Mᵀ`. All is written as loops and
//! functions that are always inlined: a closure may be left where vector instructions are not enabled.

use pulp::Simd;

use super::{BLOCK, KERNEL, STEP, TILE};

/// A matrix `M`, `[TO, FROM]`.
pub(super) trait Matrix<const FROM: usize, const TO: usize> {
    /// `M` times a vector.
    fn multiply<S: Simd>(simd: S, values: [S::f32s; FROM]) -> [S::f32s; TO];

    /// `M x Mᵀ`.
    #[inline(always)]
    fn transform<S: Simd>(simd: S, tile: [[S::f32s; FROM]; FROM]) -> [[S::f32s; TO]; TO] {
        let zero = simd.splat_f32s(0.0);
        let mut rows = [[zero; TO]; FROM];
        for (row, values) in rows.iter_mut().zip(tile) {
            *row = Self::multiply(simd, values);
        }
        let mut result = [[zero; TO]; TO];
        for column in 0..TO {
            let mut values = [zero; FROM];
            for (value, row) in values.iter_mut().zip(&rows) {
                *value = row[column];
            }
            for (row, value) in result.iter_mut().zip(Self::multiply(simd, values)) {
                row[column] = value;
            }
        }
        result
    }
}

/// `Bᵀ`: a tile of the input.
pub(super) struct Input;

impl Matrix<TILE, TILE> for Input {
    #[inline(always)]
    fn multiply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TILE]) -> [S::f32s; TILE] {
        [
            simd.sub_f32s(a, c),
            simd.add_f32s(b, c),
            simd.sub_f32s(c, b),
            simd.sub_f32s(b, d),
        ]
    }
}

/// `G`: a kernel.
pub(super) struct Kernel;

impl Matrix<KERNEL, TILE> for Kernel {
    #[inline(always)]
    fn multiply<S: Simd>(simd: S, [a, b, c]: [S::f32s; KERNEL]) -> [S::f32s; TILE] {
        let half = simd.splat_f32s(0.5);
        let ends = simd.mul_f32s(half, simd.add_f32s(a, c));
        let middle = simd.mul_f32s(half, b);
        [
            a,
            simd.add_f32s(ends, middle),
            simd.sub_f32s(ends, middle),
            c,
        ]
    }
}

/// `Aᵀ`: the output.
pub(super) struct Output;

impl Matrix<TILE, STEP> for Output {
    #[inline(always)]
    fn multiply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TILE]) -> [S::f32s; STEP] {
        [
            simd.add_f32s(a, simd.add_f32s(b, c)),
            simd.sub_f32s(simd.sub_f32s(b, c), d),
        ]
    }
}

/// `G` of F(3x3, 2x2): a tile of the output's gradient. The halves are left to [`KernelGradient`].
pub(super) struct Gradient;

impl Matrix<STEP, TILE> for Gradient {
    #[inline(always)]
    fn multiply<S: Simd>(simd: S, [a, b]: [S::f32s; STEP]) -> [S::f32s; TILE] {
        [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), b]
    }
}

/// `Aᵀ` of F(3x3, 2x2): the gradient by the kernel.
pub(super) struct KernelGradient;

impl Matrix<TILE, KERNEL> for KernelGradient {
    #[inline(always)]
    fn multiply<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TILE]) -> [S::f32s; KERNEL] {
        let half = simd.splat_f32s(0.5);
        let sum = simd.mul_f32s(half, simd.add_f32s(b, c));
        [
            simd.add_f32s(a, sum),
            simd.mul_f32s(half, simd.sub_f32s(b, c)),
            simd.sub_f32s(sum, d),
        ]
    }
}

/// Vector `index` of the pixels of a square at the beginning of `lines`.
#[inline(always)]
pub(super) fn load<S: Simd, const SIDE: usize>(
    simd: S,
    lines: &[[f32; BLOCK]],
    pitch: usize,
    index: usize,
) -> [[S::f32s; SIDE]; SIDE] {
    let mut square = [[simd.splat_f32s(0.0); SIDE]; SIDE];
    for (row, values) in square.iter_mut().enumerate() {
        for (value, pixel) in values.iter_mut().zip(&lines[row * pitch..][..SIDE]) {
            *value = S::as_simd_f32s(pixel).0[index];
        }
    }
    square
}

/// Writes a transformed tile as vector `index` of its points, `pitch` apart from the beginning of `points` on.
#[inline(always)]
pub(super) fn store<S: Simd>(
    tile: &[[S::f32s; TILE]; TILE],
    points: &mut [[f32; BLOCK]],
    pitch: usize,
    index: usize,
) {
    for (vector, values) in tile.as_flattened().iter().zip(points.chunks_mut(pitch)) {
        S::as_mut_simd_f32s(&mut values[0]).0[index] = *vector;
    }
}

/// Reads what [`store`] wrote.
#[inline(always)]
pub(super) fn restore<S: Simd>(
    simd: S,
    points: &[[f32; BLOCK]],
    pitch: usize,
    index: usize,
) -> [[S::f32s; TILE]; TILE] {
    let mut tile = [[simd.splat_f32s(0.0); TILE]; TILE];
    for (vector, values) in tile.as_flattened_mut().iter_mut().zip(points.chunks(pitch)) {
        *vector = S::as_simd_f32s(&values[0]).0[index];
    }
    tile
}

#[cfg(test)]
mod tests {
    use super::super::super::plain::Random;
    use super::super::POINTS;
    use super::*;

    fn square<const SIDE: usize>(random: &mut Random) -> [[f32; SIDE]; SIDE] {
        let values = random.values(SIDE * SIDE);
        std::array::from_fn(|row| std::array::from_fn(|column| values[row * SIDE + column]))
    }

    /// What a window of the tile at each place gives with the kernel.
    fn slide<const BY: usize, const TO: usize>(
        tile: &[[f32; TILE]; TILE],
        kernel: &[[f32; BY]; BY],
    ) -> [[f32; TO]; TO] {
        std::array::from_fn(|y| {
            std::array::from_fn(|x| {
                let products = (0..BY * BY).map(|tap| {
                    let (row, column) = (tap / BY, tap % BY);
                    kernel[row][column] * tile[y + row][x + column]
                });
                products.sum()
            })
        })
    }

    fn assert_near<const SIDE: usize>(ours: [[f32; SIDE]; SIDE], expected: [[f32; SIDE]; SIDE]) {
        for (ours, expected) in ours.as_flattened().iter().zip(expected.as_flattened()) {
            assert!(
                (ours - expected).abs() < 1e-5,
                "{ours}, expected {expected}"
            );
        }
    }

    fn product(left: [[f32; TILE]; TILE], right: [[f32; TILE]; TILE]) -> [[f32; TILE]; TILE] {
        let mut product = left;
        let points = product.as_flattened_mut().iter_mut();
        for (value, factor) in points.zip(right.as_flattened()).take(POINTS) {
            *value *= factor;
        }
        product
    }

    #[test]
    fn products_of_transforms_are_convolutions() {
        let simd = pulp::Scalar::new();
        let mut random = Random::new(1);
        for _ in 0..20 {
            let tile: [[f32; TILE]; TILE] = square(&mut random);
            let taps: [[f32; KERNEL]; KERNEL] = square(&mut random);
            let transformed = product(Input::transform(simd, tile), Kernel::transform(simd, taps));
            assert_near(Output::transform(simd, transformed), slide(&tile, &taps));
            let outputs: [[f32; STEP]; STEP] = square(&mut random);
            let transformed = product(
                Input::transform(simd, tile),
                Gradient::transform(simd, outputs),
            );
            assert_near(
                KernelGradient::transform(simd, transformed),
                slide(&tile, &outputs),
            );
        }
    }
}
