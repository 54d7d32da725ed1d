//! The weight gradient of a convolution: products of two matrices' rows, summed over all pixels of all images.
//!
//! Both matrices have neighbouring pixels side by side, so a few rows of each are multiplied vector by vector, all sums in
//! registers, and the lanes are added up at the end of a block of pixels that lies in the cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::columns::{Columns, Rows, SLACK, Source};
use super::scratch::Scratch;

/// Units of parallel work, about.
const TASKS: usize = 16;
/// Columns of a block, at most.
const BLOCK_COLUMNS: usize = 1024;
/// Rows of a block of either matrix, at most.
const BLOCK_ROWS: usize = 192;
/// Blocks of the right-hand matrix that share one of the left-hand one, at most.
const RIGHT_BLOCKS: usize = 6;

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

impl Division {
    fn new<L: Source, R: Source>(left: &Columns<L>, right: &Columns<R>, images: usize) -> Division {
        let most_parts = (images * left.per_image() / BLOCK_COLUMNS).clamp(1, images.max(1));
        let left_blocks = left.channels.div_ceil(BLOCK_ROWS).max(1);
        let smallest = (BLOCK_ROWS / right.taps().max(1)).max(1);
        let right_channels = right
            .channels
            .div_ceil(TASKS.div_ceil(left_blocks * most_parts))
            .clamp(smallest, smallest * RIGHT_BLOCKS);
        let right_blocks = right.channels.div_ceil(right_channels).max(1);
        let parts = TASKS.div_ceil(left_blocks * right_blocks).min(most_parts);
        let images_per_part = images.div_ceil(parts).max(1);
        Division {
            images,
            images_per_part,
            left_rows: left.channels.div_ceil(left_blocks),
            right_channels: right.channels.div_ceil(right_blocks),
            parts: images.div_ceil(images_per_part),
            left_blocks,
            right_blocks,
        }
    }
}

/// Writes `left * rightᵀ`, `[left rows, right rows]`, to `output`.
pub(super) fn correlate<L: Source, R: Source>(
    left: &Columns<L>,
    right: &Columns<R>,
    images: usize,
    output: &mut [f32],
) {
    let division = Division::new(left, right, images);
    let (left_blocks, right_blocks) = (division.left_blocks, division.right_blocks);
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
            self.run::<S, 4, 6>(simd);
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
        let block_channels = (BLOCK_ROWS / right.taps()).clamp(1, right_channels.len());
        let block_rows = block_channels * right.taps();
        let per_image = left.per_image();
        let group = (BLOCK_COLUMNS / per_image.max(1)).clamp(1, images.len().max(1));
        let blocks = (group * per_image).div_ceil(BLOCK_COLUMNS).max(1);
        let width = (group * per_image)
            .div_ceil(blocks)
            .next_multiple_of(S::F32_LANES);
        let left_len = left_channels.len().next_multiple_of(LEFT) * width;
        let right_len = block_rows.next_multiple_of(RIGHT) * width;
        let line_len = width + SLACK;
        let strip_len = right.strip_len(group * right_channels.len());
        let mut scratch = Scratch::new(left_len + right_len + line_len + strip_len);
        let (left_values, rest) = scratch.split_at_mut(left_len);
        let (right_values, rest) = rest.split_at_mut(right_len);
        let (line, strip) = rest.split_at_mut(line_len);
        let mut runs = Vec::new();
        let stride = division.right_channels * right.taps();
        for first in images.clone().step_by(group) {
            let images = first..images.end.min(first + group);
            right.prepare(simd, images.clone(), right_channels.clone(), strip);
            let columns = images.len() * per_image;
            for first in (0..columns).step_by(width) {
                let range = first..columns.min(first + width);
                let vectors = range.len().div_ceil(S::F32_LANES);
                let channels = left_channels.clone();
                left.block(images.clone(), channels, range.clone(), &[], &mut runs)
                    .write(
                        simd,
                        &mut Tiles::<LEFT> {
                            line: &mut *line,
                            columns: range.len(),
                            values: &mut *left_values,
                        },
                    );
                for first in right_channels.clone().step_by(block_channels) {
                    let channels = first..right_channels.end.min(first + block_channels);
                    let rows = channels.len() * right.taps();
                    let first_row = (channels.start - right_channels.start) * right.taps();
                    right
                        .block(
                            images.clone(),
                            right_channels.clone(),
                            range.clone(),
                            strip,
                            &mut runs,
                        )
                        .channels(channels)
                        .write(
                            simd,
                            &mut Tiles::<RIGHT> {
                                line: &mut *line,
                                columns: range.len(),
                                values: &mut *right_values,
                            },
                        );
                    add_products::<S, LEFT, RIGHT>(
                        simd,
                        (left_values, left_channels.len()),
                        (right_values, rows),
                        vectors,
                        &mut sums[first_row..],
                        stride,
                    );
                }
            }
        }
    }
}

/// Tiles of a few rows, `[tiles, vectors, ROWS]`, the lanes beyond the columns zero.
struct Tiles<'a, const ROWS: usize> {
    line: &'a mut [f32],
    columns: usize,
    values: &'a mut [f32],
}

impl<const ROWS: usize> Rows for Tiles<'_, ROWS> {
    #[inline(always)]
    fn row(&mut self, _row: usize) -> &mut [f32] {
        self.line
    }

    #[inline(always)]
    fn written<S: Simd>(&mut self, row: usize) {
        let end = self.columns.next_multiple_of(S::F32_LANES);
        self.line[self.columns..end].fill(0.0);
        let (line, _) = S::as_simd_f32s(&self.line[..end]);
        let (values, _) = S::as_mut_simd_f32s(self.values);
        let (values, _) = values.as_chunks_mut::<ROWS>();
        let tile = &mut values[row / ROWS * line.len()..][..line.len()];
        for (vectors, value) in tile.iter_mut().zip(line) {
            vectors[row % ROWS] = *value;
        }
    }
}

/// Adds the products of all pairs of rows to `sums`, whose rows are `stride` long.
#[inline(always)]
fn add_products<S: Simd, const LEFT: usize, const RIGHT: usize>(
    simd: S,
    (left, left_rows): (&[f32], usize),
    (right, right_rows): (&[f32], usize),
    vectors: usize,
    sums: &mut [f32],
    stride: usize,
) {
    let left = S::as_simd_f32s(left).0.as_chunks::<LEFT>().0;
    let right = S::as_simd_f32s(right).0.as_chunks::<RIGHT>().0;
    for (left_row, left) in (0..left_rows)
        .step_by(LEFT)
        .zip(left.chunks_exact(vectors.max(1)))
    {
        for (right_row, right) in (0..right_rows)
            .step_by(RIGHT)
            .zip(right.chunks_exact(vectors.max(1)))
        {
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
    left: &[[S::f32s; LEFT]],
    right: &[[S::f32s; RIGHT]],
) -> [[S::f32s; RIGHT]; LEFT] {
    let mut sums = [[simd.splat_f32s(0.0); RIGHT]; LEFT];
    for (left, right) in left.iter().zip(right) {
        for (sums, &left) in sums.iter_mut().zip(left) {
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(left, right, *sum);
            }
        }
    }
    sums
}
