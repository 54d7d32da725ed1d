//! The transforms of tiles, vector by vector: every lane is a tile, or channel, of its own.
//!
//! Each is a matrix `M` with few entries other than 0, 1 and -1, applied from both sides: `M x Mᵀ`.

use pulp::Simd;

use super::{KERNEL, STEP, TILE};

/// `M x Mᵀ`, where `line` is `M` times a vector.
#[inline(always)]
fn on_both_sides<V: Copy, const FROM: usize, const TO: usize>(
    tile: [[V; FROM]; FROM],
    line: impl Fn([V; FROM]) -> [V; TO],
) -> [[V; TO]; TO] {
    let rows = tile.map(&line);
    let columns: [[V; TO]; TO] =
        std::array::from_fn(|column| line(std::array::from_fn(|row| rows[row][column])));
    std::array::from_fn(|row| std::array::from_fn(|column| columns[column][row]))
}

/// `Bᵀ d B`: a tile of the input.
#[inline(always)]
pub(super) fn input<S: Simd>(simd: S, tile: [[S::f32s; TILE]; TILE]) -> [[S::f32s; TILE]; TILE] {
    on_both_sides(tile, |[a, b, c, d]| {
        [
            simd.sub_f32s(a, c),
            simd.add_f32s(b, c),
            simd.sub_f32s(c, b),
            simd.sub_f32s(b, d),
        ]
    })
}

/// `G g Gᵀ`: a kernel.
#[inline(always)]
pub(super) fn kernel<S: Simd>(
    simd: S,
    kernel: [[S::f32s; KERNEL]; KERNEL],
) -> [[S::f32s; TILE]; TILE] {
    let half = simd.splat_f32s(0.5);
    on_both_sides(kernel, |[a, b, c]| {
        let (ends, middle) = (
            simd.mul_f32s(half, simd.add_f32s(a, c)),
            simd.mul_f32s(half, b),
        );
        [
            a,
            simd.add_f32s(ends, middle),
            simd.sub_f32s(ends, middle),
            c,
        ]
    })
}

/// `Aᵀ m A`: the output.
#[inline(always)]
pub(super) fn output<S: Simd>(simd: S, tile: [[S::f32s; TILE]; TILE]) -> [[S::f32s; STEP]; STEP] {
    on_both_sides(tile, |[a, b, c, d]| {
        [
            simd.add_f32s(a, simd.add_f32s(b, c)),
            simd.sub_f32s(simd.sub_f32s(b, c), d),
        ]
    })
}

/// `G g Gᵀ` of F(3x3, 2x2): a tile of the output's gradient. The halves are left to [`kernel_gradient`].
#[inline(always)]
pub(super) fn gradient<S: Simd>(simd: S, tile: [[S::f32s; STEP]; STEP]) -> [[S::f32s; TILE]; TILE] {
    on_both_sides(tile, |[a, b]| {
        [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), b]
    })
}

/// `Aᵀ m A` of F(3x3, 2x2): the gradient by the kernel.
#[inline(always)]
pub(super) fn kernel_gradient<S: Simd>(
    simd: S,
    tile: [[S::f32s; TILE]; TILE],
) -> [[S::f32s; KERNEL]; KERNEL] {
    let half = simd.splat_f32s(0.5);
    on_both_sides(tile, |[a, b, c, d]| {
        let sum = simd.mul_f32s(half, simd.add_f32s(b, c));
        [
            simd.add_f32s(a, sum),
            simd.mul_f32s(half, simd.sub_f32s(b, c)),
            simd.sub_f32s(sum, d),
        ]
    })
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
            let transformed = product(input(simd, tile), kernel(simd, taps));
            assert_near(output(simd, transformed), slide(&tile, &taps));
            let outputs: [[f32; STEP]; STEP] = square(&mut random);
            let transformed = product(input(simd, tile), gradient(simd, outputs));
            assert_near(kernel_gradient(simd, transformed), slide(&tile, &outputs));
        }
    }
}
