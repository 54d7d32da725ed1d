//! The gradient by the kernels: products of transformed tiles of the input and of the output's gradient, summed over all tiles.
//!
//! Some images at a time are transformed, then each point of the tiles adds its products to its own sums, so that no sum is
//! shared between tasks.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::scratch::Scratch;
use super::planes::Planes;
use super::transform::{self, Gradient, Input, KernelGradient, Matrix};
use super::{BLOCK, KERNEL, POINTS, STEP, Size, Source, TILE, tiles};

/// Tiles of a unit, at least: what loading and storing the sums is shared by.
const FEWEST_TILES: usize = 64;
/// Values that are transformed at a time, about.
const TRANSFORMED: usize = 2 << 20;

/// How the images are divided, by the shape alone.
struct Division {
    images: usize,
    images_per_unit: usize,
    units_per_group: usize,
    tiles: Size,
    input_blocks: usize,
    output_blocks: usize,
}

impl Division {
    /// Values of a block of a unit, `[POINTS, tiles, BLOCK]`.
    fn block_len(&self) -> usize {
        POINTS * self.unit_tiles() * BLOCK
    }

    fn unit_tiles(&self) -> usize {
        self.images_per_unit * self.tiles.area()
    }

    fn blocks(&self) -> usize {
        self.input_blocks + self.output_blocks
    }
}

/// Writes the gradient by the kernels, `[out, in, 3, 3]`.
pub(super) fn correlate<T: Source, G: Source>(
    input: &Planes<T>,
    gradient: &Planes<G>,
    images: usize,
    target: &mut [f32],
) {
    let tiles = tiles(gradient.size);
    let mut division = Division {
        images,
        images_per_unit: FEWEST_TILES
            .div_ceil(tiles.area().max(1))
            .min(images.max(1)),
        units_per_group: 1,
        tiles,
        input_blocks: input.blocks(),
        output_blocks: gradient.blocks(),
    };
    let unit_len = division.blocks() * division.block_len();
    let units = images.div_ceil(division.images_per_unit);
    division.units_per_group = (TRANSFORMED / unit_len.max(1)).clamp(1, units.max(1));
    let division = &division;

    let sums_len = POINTS * BLOCK * division.input_blocks * BLOCK;
    let mut sums = Scratch::new(division.output_blocks * sums_len);
    sums.par_chunks_mut(sums_len)
        .for_each(|sums| sums.fill(0.0));
    let mut transformed = Scratch::new(division.units_per_group * unit_len);
    for first_unit in (0..units).step_by(division.units_per_group) {
        let group = (units - first_unit).min(division.units_per_group);
        transformed[..group * unit_len]
            .par_chunks_exact_mut(division.block_len())
            .enumerate()
            .for_each(|(index, target)| {
                let unit = first_unit + index / division.blocks();
                let first = unit * division.images_per_unit;
                Arch::new().dispatch(Transform {
                    input,
                    gradient,
                    division,
                    images: first..images.min(first + division.images_per_unit),
                    block: index % division.blocks(),
                    target,
                });
            });
        sums.par_chunks_exact_mut(sums_len / POINTS)
            .enumerate()
            .for_each(|(index, sums)| {
                Arch::new().dispatch(Add {
                    transformed: &transformed[..group * unit_len],
                    division,
                    first_unit,
                    block: index / POINTS,
                    point: index % POINTS,
                    sums,
                });
            });
    }
    let row_len = input.channels * KERNEL * KERNEL;
    target
        .par_chunks_exact_mut(row_len)
        .enumerate()
        .for_each(|(row, target)| {
            Arch::new().dispatch(Collect {
                sums: &sums[row / BLOCK * sums_len..][..sums_len],
                row: row % BLOCK,
                target,
            });
        });
}

/// One block of channels of a unit: of the input, or after those of the gradient.
struct Transform<'a, T, G> {
    input: &'a Planes<T>,
    gradient: &'a Planes<G>,
    division: &'a Division,
    images: std::ops::Range<usize>,
    block: usize,
    target: &'a mut [f32],
}

impl<T: Source, G: Source> WithSimd for Transform<'_, T, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let inputs = self.division.input_blocks;
        let (input, gradient) = (self.input, self.gradient);
        if self.block < inputs {
            self.run::<S, _, Input, TILE>(simd, input, self.block);
        } else {
            self.run::<S, _, Gradient, STEP>(simd, gradient, self.block - inputs);
        }
    }
}

impl<T: Source, G: Source> Transform<'_, T, G> {
    /// Tiles of `SIDE` rows and columns.
    #[inline(always)]
    fn run<S: Simd, P: Source, M: Matrix<SIDE, TILE>, const SIDE: usize>(
        &mut self,
        simd: S,
        planes: &Planes<P>,
        block: usize,
    ) {
        let tiles = self.division.tiles;
        let padded = Size {
            height: (tiles.height - 1) * STEP + SIDE,
            width: (tiles.width - 1) * STEP + SIDE,
        };
        let mut plane = Scratch::new(padded.area() * BLOCK);
        let (plane, _) = plane.as_chunks_mut::<BLOCK>();
        let (target, _) = self.target.as_chunks_mut::<BLOCK>();
        let unit_tiles = self.division.unit_tiles();
        let mut tile = 0;
        for image in self.images.clone() {
            planes.write(simd, image, block, padded, plane);
            for y in 0..tiles.height {
                let lines = &plane[y * STEP * padded.width..];
                for x in 0..tiles.width {
                    let pixels = &lines[x * STEP..];
                    for index in 0..BLOCK / S::F32_LANES {
                        let pixels = transform::load(simd, pixels, padded.width, index);
                        let points = M::transform(simd, pixels);
                        transform::store::<S>(&points, &mut target[tile..], unit_tiles, index);
                    }
                    tile += 1;
                }
            }
        }
    }
}

/// One point of one block of output channels: adds to sums `[BLOCK, input channels]`.
struct Add<'a> {
    transformed: &'a [f32],
    division: &'a Division,
    first_unit: usize,
    block: usize,
    point: usize,
    sums: &'a mut [f32],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 8, 2, 1>(simd),
            8 => self.run::<S, 4, 1, 2>(simd),
            4 => self.run::<S, 4, 1, 4>(simd),
            _ => self.run::<S, 1, 1, BLOCK>(simd),
        }
    }
}

impl Add<'_> {
    /// `ROWS` output channels by `BLOCKS` blocks of `VECTORS` vectors of input channels are summed in registers.
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const BLOCKS: usize, const VECTORS: usize>(self, simd: S) {
        /// Tiles whose values stay in the first level of the cache.
        const TILES: usize = 128;
        let division = self.division;
        let (inputs, unit_tiles) = (division.input_blocks, division.unit_tiles());
        let units = self
            .transformed
            .chunks_exact(division.blocks() * division.block_len());
        for (unit, values) in units.enumerate() {
            let first = (self.first_unit + unit) * division.images_per_unit;
            let images = division.images_per_unit.min(division.images - first);
            let count = images * division.tiles.area();
            let (values, _) = values.as_chunks::<BLOCK>();
            let block =
                |block: usize| &values[(block * POINTS + self.point) * unit_tiles..][..count];
            for first in (0..count).step_by(TILES) {
                let tiles = first..count.min(first + TILES);
                let left = &block(inputs + self.block)[tiles.clone()];
                for input in (0..inputs).step_by(BLOCKS) {
                    for row in (0..BLOCK).step_by(ROWS) {
                        let sums = &mut self.sums[(row * inputs + input) * BLOCK..];
                        if input + BLOCKS <= inputs {
                            let right: [_; BLOCKS] =
                                std::array::from_fn(|index| &block(input + index)[tiles.clone()]);
                            add::<S, ROWS, BLOCKS, VECTORS>(simd, left, row, right, sums, inputs);
                        } else {
                            for (index, input) in (input..inputs).enumerate() {
                                let right = [&block(input)[tiles.clone()]];
                                let sums = &mut sums[index * BLOCK..];
                                add::<S, ROWS, 1, VECTORS>(simd, left, row, right, sums, inputs);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of `ROWS` channels of `left`, from `row` on, with `BLOCKS` blocks of channels; rows of the sums are
/// `pitch` blocks apart.
#[inline(always)]
fn add<S: Simd, const ROWS: usize, const BLOCKS: usize, const VECTORS: usize>(
    simd: S,
    left: &[[f32; BLOCK]],
    row: usize,
    right: [&[[f32; BLOCK]]; BLOCKS],
    target: &mut [f32],
    pitch: usize,
) {
    let right = right.map(|right| {
        let (vectors, _) = S::as_simd_f32s(right.as_flattened());
        &vectors.as_chunks::<VECTORS>().0[..left.len()]
    });
    let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; BLOCKS]; ROWS];
    for (tile, left) in left.iter().enumerate() {
        let Some(left) = left[row..].first_chunk::<ROWS>() else {
            break;
        };
        let right = right.map(|right| right[tile]);
        for (sums, &left) in sums.iter_mut().zip(left) {
            let left = simd.splat_f32s(left);
            for (sums, right) in sums.iter_mut().zip(&right) {
                for (sum, &right) in sums.iter_mut().zip(right) {
                    *sum = simd.mul_add_f32s(left, right, *sum);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let target = &mut target[row * pitch * BLOCK..][..BLOCKS * BLOCK];
        let (target, _) = S::as_mut_simd_f32s(target);
        for (value, &sum) in target.iter_mut().zip(sums.as_flattened()) {
            *value = simd.add_f32s(*value, sum);
        }
    }
}

/// The kernels of one output channel, of sums `[POINTS, BLOCK, input channels]`.
struct Collect<'a> {
    sums: &'a [f32],
    row: usize,
    target: &'a mut [f32],
}

impl WithSimd for Collect<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.sums.len() / (POINTS * BLOCK);
        let (kernels, _) = self.target.as_chunks_mut::<{ KERNEL * KERNEL }>();
        let (sums, _) = self.sums.as_chunks::<BLOCK>();
        let (row, pitch) = (self.row * width / BLOCK, width);
        for (index, kernels) in kernels.chunks_mut(S::F32_LANES).enumerate() {
            let (block, index) = (index * S::F32_LANES / BLOCK, index % (BLOCK / S::F32_LANES));
            let points = transform::restore(simd, &sums[row + block..], pitch, index);
            let taps = KernelGradient::transform(simd, points);
            let values: &[f32] = pulp::bytemuck::cast_slice(taps.as_flattened());
            for (lane, kernel) in kernels.iter_mut().enumerate() {
                for (tap, value) in kernel.iter_mut().enumerate() {
                    *value = values[tap * S::F32_LANES + lane];
                }
            }
        }
    }
}
