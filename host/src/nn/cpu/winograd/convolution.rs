//! The convolution of planes with transformed kernels.
//!
//! A task transforms some rows of tiles of its images, multiplies them by the kernels, point by point of the tiles, and turns
//! the products to pixels, all of it in the cache.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::product::{self, Finish, Task, Vectors, Weight, lane_sum};
use super::super::scratch::Scratch;
use super::super::training::Sums;
use super::super::transpose::transpose;
use super::planes::Planes;
use super::transform::{self, Input, Kernel, Matrix, Output};
use super::{BLOCK, KERNEL, POINTS, STEP, Size, Source, tiles};

/// Tiles that are transformed together, about: so many that reading the kernels does not count, so few that they stay in the
/// cache.
const TILES: usize = 64;

/// A convolution of stride 1.
pub(super) struct Convolution<'a, T> {
    pub(super) planes: Planes<T>,
    pub(super) weight: Weight<'a>,
    pub(super) output: Size,
}

impl<T: Source> Convolution<'_, T> {
    /// Writes planes `[images, rows of the weight, output]`; returns the rows' sums.
    pub(super) fn run<F: Finish>(
        &self,
        images: usize,
        finish: &F,
        output: &mut [f32],
    ) -> Vec<Sums> {
        let (rows, area) = (self.weight.rows, self.output.area());
        if output.is_empty() {
            return vec![Sums::default(); rows];
        }
        let kernels = Kernels::new(&self.weight);
        let group = TILES.div_ceil(tiles(self.output).area()).min(images);
        let groups = images.div_ceil(group);
        let rows_per_task = product::rows_per_task(rows, groups, BLOCK);
        let mut sums = vec![Sums::default(); groups * rows];
        product::tasks(output, &mut sums, (rows, area), group, rows_per_task)
            .into_par_iter()
            .for_each(|task| {
                Arch::new().dispatch(Run {
                    convolution: self,
                    kernels: &kernels,
                    finish,
                    task,
                });
            });
        product::total(&sums, rows)
    }
}

/// Transformed kernels, `[blocks of rows, POINTS, depth, BLOCK rows]`, the depth being all channels of whole blocks.
struct Kernels {
    values: Scratch,
    depth: usize,
}

impl Kernels {
    fn new(weight: &Weight<'_>) -> Kernels {
        let depth = weight.channels.next_multiple_of(BLOCK);
        let block_len = POINTS * depth * BLOCK;
        let mut values = Scratch::new(weight.rows.div_ceil(BLOCK) * block_len);
        values
            .par_chunks_exact_mut(block_len)
            .enumerate()
            .for_each(|(block, target)| {
                Arch::new().dispatch(TransformKernels {
                    weight,
                    first_row: block * BLOCK,
                    depth,
                    target,
                });
            });
        Kernels { values, depth }
    }

    fn block(&self, block: usize, point: usize) -> &[f32] {
        &self.values[(block * POINTS + point) * self.depth * BLOCK..][..self.depth * BLOCK]
    }
}

/// One block of rows.
struct TransformKernels<'a> {
    weight: &'a Weight<'a>,
    first_row: usize,
    depth: usize,
    target: &'a mut [f32],
}

impl WithSimd for TransformKernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let weight = self.weight;
        let rows = self.first_row..weight.rows.min(self.first_row + BLOCK);
        let mut taps = [[[0.0; BLOCK]; KERNEL]; KERNEL];
        for channel in 0..self.depth {
            if channel < weight.channels {
                for (lane, row) in rows.clone().enumerate() {
                    let values = &weight.values[row * weight.row + channel * weight.channel..];
                    let values = &values[..KERNEL * KERNEL];
                    for (tap, &at) in taps.as_flattened_mut().iter_mut().zip(&weight.taps) {
                        tap[lane] = values[at];
                    }
                }
            } else {
                taps = Default::default();
            }
            for index in 0..BLOCK / S::F32_LANES {
                let kernel = transform::load(simd, taps.as_flattened(), KERNEL, index);
                let points = Kernel::transform(simd, kernel);
                let (target, _) = self.target.as_chunks_mut::<BLOCK>();
                transform::store::<S>(&points, &mut target[channel..], self.depth, index);
            }
        }
    }
}

/// Some rows of tiles, `[POINTS][blocks, tiles, BLOCK]` with a gap after each point, without which all of them would
/// compete for the same lines of the cache.
#[derive(Clone, Copy)]
struct Layout {
    tiles: usize,
    point: usize,
}

impl Layout {
    fn new(blocks: usize, tiles: usize) -> Layout {
        Layout {
            tiles,
            point: blocks * tiles + 1,
        }
    }

    /// In blocks of channels of a tile.
    fn len(self) -> usize {
        POINTS * self.point
    }

    /// Where a tile's point is.
    #[inline(always)]
    fn at(self, point: usize, block: usize, tile: usize) -> usize {
        point * self.point + block * self.tiles + tile
    }
}

/// One task.
struct Run<'a, T, F> {
    convolution: &'a Convolution<'a, T>,
    kernels: &'a Kernels,
    finish: &'a F,
    task: Task<'a>,
}

impl<T: Source, F: Finish> WithSimd for Run<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 8, 2, 1>(simd),
            8 => self.run::<S, 6, 1, 2>(simd),
            4 => self.run::<S, 4, 1, 4>(simd),
            _ => self.run::<S, 1, 1, BLOCK>(simd),
        }
    }
}

impl<T: Source, F: Finish> Run<'_, T, F> {
    /// `ROWS` tiles by `BLOCKS` blocks of `VECTORS` vectors are summed in registers.
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const BLOCKS: usize, const VECTORS: usize>(
        mut self,
        simd: S,
    ) {
        let planes = &self.convolution.planes;
        let tiles = tiles(self.convolution.output);
        let padded = Size {
            height: tiles.height * STEP + KERNEL - 1,
            width: tiles.width * STEP + KERNEL - 1,
        };
        let plane_len = padded.area();
        let images = self.task.images.clone();
        let (inputs, outputs) = (planes.blocks(), self.task.sums.len().div_ceil(BLOCK));
        let tile_rows = images.len() * tiles.height;
        let chunks = (tile_rows * tiles.width).div_ceil(TILES);
        let rows_per_chunk = tile_rows.div_ceil(chunks);
        let most_tiles = (rows_per_chunk * tiles.width).next_multiple_of(ROWS);
        let (layout, product_layout) = (
            Layout::new(inputs, most_tiles),
            Layout::new(outputs, most_tiles),
        );
        let pixels_len = (rows_per_chunk.min(tiles.height) * STEP + 1) * padded.width;
        let lens = [
            images.len() * inputs * plane_len,
            layout.len(),
            product_layout.len(),
            pixels_len,
        ];
        let mut scratch = Scratch::new(lens.iter().sum::<usize>() * BLOCK);
        let (scratch, _) = scratch.as_chunks_mut::<BLOCK>();
        let (strip, rest) = scratch.split_at_mut(lens[0]);
        let (transformed, rest) = rest.split_at_mut(lens[1]);
        let (products, pixels) = rest.split_at_mut(lens[2]);
        let mut sums = vec![[simd.splat_f32s(0.0); 2]; outputs * BLOCK];

        for (index, plane) in strip.chunks_exact_mut(plane_len).enumerate() {
            let (image, block) = (images.start + index / inputs, index % inputs);
            planes.write(simd, image, block, padded, plane);
        }
        for first in (0..tile_rows).step_by(rows_per_chunk) {
            let rows = first..tile_rows.min(first + rows_per_chunk);
            for block in 0..inputs {
                let mut tile = 0;
                for row in rows.clone() {
                    let (image, y) = (row / tiles.height, row % tiles.height);
                    let plane = &strip[(image * inputs + block) * plane_len..][..plane_len];
                    let lines = &plane[y * STEP * padded.width..];
                    for x in 0..tiles.width {
                        let target = &mut transformed[layout.at(0, block, tile)..];
                        for index in 0..BLOCK / S::F32_LANES {
                            let pixels =
                                transform::load(simd, &lines[x * STEP..], padded.width, index);
                            let points = Input::transform(simd, pixels);
                            transform::store::<S>(&points, target, layout.point, index);
                        }
                        tile += 1;
                    }
                }
            }
            let count = rows.len() * tiles.width;
            let first_block = self.task.first_row / BLOCK;
            for point in 0..POINTS {
                for block in (0..outputs).step_by(BLOCKS) {
                    for tile in (0..count).step_by(ROWS) {
                        let left = &transformed[layout.at(point, 0, tile)..];
                        if block + BLOCKS <= outputs {
                            let kernels: [_; BLOCKS] = std::array::from_fn(|index| {
                                self.kernels.block(first_block + block + index, point)
                            });
                            let sums = multiply::<S, ROWS, BLOCKS, VECTORS>(
                                simd,
                                left,
                                layout.tiles,
                                kernels,
                            );
                            for (index, sums) in sums.iter().enumerate() {
                                let at = product_layout.at(point, block + index, tile);
                                write::<S, ROWS, VECTORS>(sums, &mut products[at..]);
                            }
                        } else {
                            for block in block..outputs {
                                let kernels = [self.kernels.block(first_block + block, point)];
                                let [sums] = multiply::<S, ROWS, 1, VECTORS>(
                                    simd,
                                    left,
                                    layout.tiles,
                                    kernels,
                                );
                                let at = product_layout.at(point, block, tile);
                                write::<S, ROWS, VECTORS>(&sums, &mut products[at..]);
                            }
                        }
                    }
                }
            }
            let mut row = rows.start;
            while row < rows.end {
                let (image, y) = (row / tiles.height, row % tiles.height);
                let count = (rows.end - row).min(tiles.height - y);
                let first_tile = (row - rows.start) * tiles.width;
                for block in 0..outputs {
                    self.finish_rows(
                        simd,
                        (image, block, y..y + count),
                        &products[product_layout.at(0, block, first_tile)..],
                        product_layout.point,
                        pixels,
                        &mut sums,
                    );
                }
                row += count;
            }
        }
        for (total, [first, second]) in self.task.sums.iter_mut().zip(&sums) {
            *total = Sums {
                first: lane_sum::<S>(first),
                second: lane_sum::<S>(second),
            };
        }
    }

    /// Turns the products of some rows of tiles of an image to the pixels of a block of channels.
    #[inline(always)]
    fn finish_rows<S: Simd>(
        &mut self,
        simd: S,
        (image, block, tile_rows): (usize, usize, Range<usize>),
        products: &[[f32; BLOCK]],
        pitch: usize,
        pixels: &mut [[f32; BLOCK]],
        sums: &mut [[S::f32s; 2]],
    ) {
        let Size { height, width } = self.convolution.output;
        let tiles = tiles(self.convolution.output);
        let first_line = tile_rows.start * STEP;
        let lines = (tile_rows.end * STEP).min(height) - first_line;
        for (row, _) in tile_rows.clone().enumerate() {
            for column in 0..tiles.width {
                let tile = row * tiles.width + column;
                for index in 0..BLOCK / S::F32_LANES {
                    let points = transform::restore(simd, &products[tile..], pitch, index);
                    let outputs = Output::transform(simd, points);
                    for (line, outputs) in outputs.iter().enumerate() {
                        for (x, &vector) in outputs.iter().enumerate() {
                            let (y, x) = (row * STEP + line, column * STEP + x);
                            if y < lines && x < width {
                                let pixel = &mut pixels[y * width + x];
                                S::as_mut_simd_f32s(pixel).0[index] = vector;
                            }
                        }
                    }
                }
            }
        }
        let area = height * width;
        let first_row = block * BLOCK;
        let rows = first_row..self.task.sums.len().min(first_row + BLOCK);
        let pixels = &pixels[..lines * width];
        for (index, pixels) in pixels.chunks(BLOCK).enumerate() {
            let mut square = [[0.0; BLOCK]; BLOCK];
            square[..pixels.len()].copy_from_slice(pixels);
            transpose(&mut square);
            let offset = first_line * width + index * BLOCK;
            for (values, row) in square.iter().zip(rows.clone()) {
                let channel = self.task.first_row + row;
                let plane =
                    (self.task.images.start + image) * self.convolution.weight.rows + channel;
                let beside = self
                    .finish
                    .beside()
                    .map(|beside| &beside[plane * area + offset..][..pixels.len()]);
                let output = &mut self.task.output[image][row * area + offset..][..pixels.len()];
                finish_line(
                    simd,
                    self.finish,
                    channel,
                    values,
                    beside,
                    output,
                    &mut sums[row],
                );
            }
        }
    }
}

/// Writes a block's products to the tiles that they are of.
#[inline(always)]
fn write<S: Simd, const ROWS: usize, const VECTORS: usize>(
    sums: &[[S::f32s; VECTORS]; ROWS],
    tiles: &mut [[f32; BLOCK]],
) {
    for (tile, sums) in tiles[..ROWS].iter_mut().zip(sums) {
        for (value, sum) in S::as_mut_simd_f32s(tile).0.iter_mut().zip(sums) {
            *value = *sum;
        }
    }
}

/// `ROWS` tiles times `BLOCKS` blocks of kernels, over all channels in order; blocks of a tile's channels are `pitch` apart.
#[inline(always)]
fn multiply<S: Simd, const ROWS: usize, const BLOCKS: usize, const VECTORS: usize>(
    simd: S,
    tiles: &[[f32; BLOCK]],
    pitch: usize,
    kernels: [&[f32]; BLOCKS],
) -> [[[S::f32s; VECTORS]; ROWS]; BLOCKS] {
    let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; ROWS]; BLOCKS];
    let depth = kernels[0].len() / BLOCK;
    let kernels = kernels.map(|kernels| {
        let (vectors, _) = S::as_simd_f32s(kernels);
        let (channels, _) = vectors.as_chunks::<VECTORS>();
        &channels.as_chunks::<BLOCK>().0[..depth / BLOCK]
    });
    for block in 0..depth / BLOCK {
        let Some(tiles) = tiles[block * pitch..].first_chunk::<ROWS>() else {
            break;
        };
        let kernels = kernels.map(|kernels| &kernels[block]);
        for channel in 0..BLOCK {
            for (row, tile) in tiles.iter().enumerate() {
                let value = simd.splat_f32s(tile[channel]);
                for (sums, kernels) in sums.iter_mut().zip(kernels) {
                    for (sum, &kernel) in sums[row].iter_mut().zip(&kernels[channel]) {
                        *sum = simd.mul_add_f32s(value, kernel, *sum);
                    }
                }
            }
        }
    }
    sums
}

/// Finishes some neighbouring pixels of a channel.
#[inline(always)]
fn finish_line<S: Simd, F: Finish>(
    simd: S,
    finish: &F,
    channel: usize,
    products: &[f32; BLOCK],
    beside: Option<&[f32]>,
    output: &mut [f32],
    sums: &mut [S::f32s; 2],
) {
    let shared = finish.channel(simd, channel);
    let (products, _) = S::as_simd_f32s(products);
    for (index, output) in output.chunks_mut(S::F32_LANES).enumerate() {
        let product = products[index];
        let load = |values: &[f32]| {
            if values.len() == S::F32_LANES {
                S::as_simd_f32s(values).0[0]
            } else {
                simd.partial_load_f32s(values)
            }
        };
        let vectors = Vectors {
            product,
            beside: beside.map_or(product, |beside| {
                load(&beside[index * S::F32_LANES..][..output.len()])
            }),
            before: if finish.adds() { load(output) } else { product },
        };
        let mask = (output.len() < S::F32_LANES)
            .then(|| simd.mask_between_m32s(0, output.len() as u32).mask());
        let value = finish.finish(simd, shared, vectors, mask, sums);
        match S::as_mut_simd_f32s(output).0.first_mut() {
            Some(whole) => *whole = value,
            None => simd.partial_store_f32s(output, value),
        }
    }
}
