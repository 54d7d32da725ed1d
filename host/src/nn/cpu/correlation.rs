//! The weight gradient of a convolution: products of two matrices' rows, summed over all pixels of all images.
//!
//! Both matrices have neighbouring pixels side by side, so a few rows of each are multiplied vector by vector, all sums in
//! registers, and the lanes are added up at the end of a block of pixels that lies in the cache.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::columns::{Columns, Rows, SLACK, Source};
use super::scratch::Scratch;

/// Units of parallel work, about.
const TASKS: usize = 16;
/// Columns of a block, at most.
const BLOCK_COLUMNS: usize = 1024;
/// Rows of a block of either matrix, at most.
const BLOCK_ROWS: usize = 128;

/// How the work is divided, by the shape alone: each of `parts` of the images has its own sums of each block of rows.
struct Division {
    images: usize,
    images_per_part: usize,
    left_rows: usize,
    right_channels: usize,
    parts: usize,
    left_blocks: usize,
    right_blocks: usize,
}

/// Writes `left * rightᵀ`, `[left rows, right rows]`, to `output`.
pub(super) fn correlate<L: Source, R: Source>(
    left: &Columns<L>,
    right: &Columns<R>,
    images: usize,
    output: &mut [f32],
) {
    let left_blocks = left.channels.div_ceil(BLOCK_ROWS);
    let channels_per_block = (BLOCK_ROWS / right.taps()).max(1);
    let right_blocks = right.channels.div_ceil(channels_per_block);
    let parts = TASKS
        .div_ceil((left_blocks * right_blocks).max(1))
        .min(images.max(1));
    let images_per_part = images.div_ceil(parts).max(1);
    let division = Division {
        images,
        images_per_part,
        left_rows: left.channels.div_ceil(left_blocks.max(1)),
        right_channels: right.channels.div_ceil(right_blocks.max(1)),
        parts: images.div_ceil(images_per_part),
        left_blocks,
        right_blocks,
    };
    let right_rows = division.right_channels * right.taps();
    let block_len = division.left_rows * right_rows;
    if block_len == 0 {
        return;
    }
    let blocks = left_blocks * right_blocks;
    let mut partial = Scratch::new(division.parts * blocks * block_len);
    partial
        .par_chunks_exact_mut(block_len)
        .enumerate()
        .for_each(|(index, sums)| {
            Arch::new().dispatch(Block {
                left,
                right,
                division: &division,
                part: index / blocks,
                left_block: index % blocks / right_blocks,
                right_block: index % right_blocks,
                sums,
            });
        });
    let row_len = right.channels * right.taps();
    output
        .par_chunks_exact_mut(row_len)
        .enumerate()
        .for_each(|(row, output)| {
            let (block, row) = (row / division.left_rows, row % division.left_rows);
            for (right_block, output) in output.chunks_mut(right_rows).enumerate() {
                output.fill(0.0);
                for part in 0..division.parts {
                    let block = (part * left_blocks + block) * right_blocks + right_block;
                    let sums = &partial[block * block_len + row * right_rows..][..output.len()];
                    for (total, sum) in output.iter_mut().zip(sums) {
                        *total += sum;
                    }
                }
            }
        });
}

/// One part of the images, one block of either matrix's rows.
struct Block<'a, L, R> {
    left: &'a Columns<L>,
    right: &'a Columns<R>,
    division: &'a Division,
    part: usize,
    left_block: usize,
    right_block: usize,
    sums: &'a mut [f32],
}

impl<L: Source, R: Source> WithSimd for Block<'_, L, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, 5, 5>(simd);
        } else {
            self.run::<S, 3, 3>(simd);
        }
    }
}

impl<L: Source, R: Source> Block<'_, L, R> {
    #[inline(always)]
    fn run<S: Simd, const LEFT: usize, const RIGHT: usize>(self, simd: S) {
        let Block {
            left,
            right,
            division,
            part,
            left_block,
            right_block,
            sums,
        } = self;
        sums.fill(0.0);
        let cut = |index: usize, size: usize, end: usize| index * size..end.min((index + 1) * size);
        let left_channels = cut(left_block, division.left_rows, left.channels);
        let right_channels = cut(right_block, division.right_channels, right.channels);
        let images = cut(part, division.images_per_part, division.images);
        if left_channels.is_empty() || right_channels.is_empty() {
            return;
        }
        let right_rows = right_channels.len() * right.taps();
        let per_image = left.per_image();
        let group = (BLOCK_COLUMNS / per_image.max(1)).clamp(1, images.len().max(1));
        let blocks = (group * per_image).div_ceil(BLOCK_COLUMNS).max(1);
        let width = (group * per_image)
            .div_ceil(blocks)
            .next_multiple_of(S::F32_LANES);
        // Not a power of two, so that the rows do not compete for the same part of the cache.
        let pitch = width + S::F32_LANES;
        let left_len = left_channels.len().next_multiple_of(LEFT) * pitch + SLACK;
        let right_len = right_rows.next_multiple_of(RIGHT) * pitch + SLACK;
        let strip_len = right.strip_len(group * right_channels.len());
        let mut scratch = Scratch::new(left_len + right_len + strip_len);
        let (left_values, rest) = scratch.split_at_mut(left_len);
        let (right_values, strip) = rest.split_at_mut(right_len);
        let mut runs = Vec::new();
        let stride = division.right_channels * right.taps();
        for first in images.clone().step_by(group) {
            let images = first..images.end.min(first + group);
            right.prepare(simd, images.clone(), right_channels.clone(), strip);
            let columns = images.len() * per_image;
            for first in (0..columns).step_by(width) {
                let range = first..columns.min(first + width);
                let len = range.len();
                let channels = left_channels.clone();
                left.block(images.clone(), channels, range.clone(), &[], &mut runs)
                    .write(simd, &mut Pitched(left_values, pitch));
                clear_ends::<S>(left_values, left_channels.len(), len, pitch);
                let channels = right_channels.clone();
                right
                    .block(images.clone(), channels, range, strip, &mut runs)
                    .write(simd, &mut Pitched(right_values, pitch));
                clear_ends::<S>(right_values, right_rows, len, pitch);
                add_products::<S, LEFT, RIGHT>(
                    simd,
                    (left_values, left_channels.len()),
                    (right_values, right_rows),
                    (len.div_ceil(S::F32_LANES), pitch / S::F32_LANES),
                    sums,
                    stride,
                );
            }
        }
    }
}

/// Rows at a pitch.
struct Pitched<'a>(&'a mut [f32], usize);

impl Rows for Pitched<'_> {
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.0[row * self.1..]
    }

    #[inline(always)]
    fn written<S: Simd>(&mut self, _row: usize) {}
}

/// Zeros from each row's end to the end of its last vector.
fn clear_ends<S: Simd>(block: &mut [f32], rows: usize, len: usize, pitch: usize) {
    let end = len.next_multiple_of(S::F32_LANES);
    if end > len {
        for row in block.chunks_exact_mut(pitch).take(rows) {
            row[len..end].fill(0.0);
        }
    }
}

/// Adds the products of all pairs of rows to `sums`, whose rows are `stride` long.
#[inline(always)]
fn add_products<S: Simd, const LEFT: usize, const RIGHT: usize>(
    simd: S,
    (left, left_rows): (&[f32], usize),
    (right, right_rows): (&[f32], usize),
    (vectors, pitch): (usize, usize),
    sums: &mut [f32],
    stride: usize,
) {
    let (left, _) = S::as_simd_f32s(left);
    let (right, _) = S::as_simd_f32s(right);
    for left_row in (0..left_rows).step_by(LEFT) {
        let left: [&[S::f32s]; LEFT] = from_fn(|row| &left[(left_row + row) * pitch..][..vectors]);
        for right_row in (0..right_rows).step_by(RIGHT) {
            let right: [&[S::f32s]; RIGHT] =
                from_fn(|row| &right[(right_row + row) * pitch..][..vectors]);
            let products = multiply_rows(simd, left, right);
            for (row, products) in products.iter().enumerate().take(left_rows - left_row) {
                let at = (left_row + row) * stride + right_row;
                let sums = &mut sums[at..][..RIGHT.min(right_rows - right_row)];
                for (sum, &product) in sums.iter_mut().zip(products) {
                    *sum += simd.reduce_sum_f32s(product);
                }
            }
        }
    }
}

/// The products of `LEFT` rows with `RIGHT` rows, in lanes, all in registers.
#[inline(always)]
fn multiply_rows<S: Simd, const LEFT: usize, const RIGHT: usize>(
    simd: S,
    left: [&[S::f32s]; LEFT],
    right: [&[S::f32s]; RIGHT],
) -> [[S::f32s; RIGHT]; LEFT] {
    let len = left[0].len();
    let left = left.map(|row| &row[..len]);
    let right = right.map(|row| &row[..len]);
    let mut sums = [[simd.splat_f32s(0.0); RIGHT]; LEFT];
    for index in 0..len {
        let right: [S::f32s; RIGHT] = from_fn(|row| right[row][index]);
        for (sums, left) in sums.iter_mut().zip(&left) {
            let left = left[index];
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = simd.mul_add_f32s(left, right, *sum);
            }
        }
    }
    sums
}
