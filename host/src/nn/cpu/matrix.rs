//! Matrix product with an epilogue: the core of pointwise, dense and fully connected layers.
//!
//! The right-hand matrix is taken in panels of a few vectors' width, packed so that the inner loop reads memory in order;
//! the left-hand one (the weight) is packed once in tiles of a few rows. One tile times one panel stays in registers
//! (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Epilogue;

/// The right-hand matrix, `[depth, columns]`.
pub(in crate::nn) trait Columns: Sync {
    /// Copies columns `first..` of row `row` to `panel`, as many as fit and exist.
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]);
}

/// A right-hand matrix stored by columns: `[columns, depth]` in memory.
pub(in crate::nn) struct Transposed<'a> {
    pub(in crate::nn) data: &'a [f32],
    pub(in crate::nn) depth: usize,
}

impl Columns for Transposed<'_> {
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]) {
        let columns = self.data.chunks_exact(self.depth.max(1)).skip(first);
        for (value, column) in panel.iter_mut().zip(columns) {
            *value = column[row];
        }
    }
}

/// A left-hand matrix `[rows, depth]`, cut in tiles of a few rows: `[tiles, depth, rows per tile]`.
pub(in crate::nn) struct PackedWeight {
    tiles: Vec<f32>,
    depth: usize,
    rows_per_tile: usize,
    rows: usize,
}

impl PackedWeight {
    pub(in crate::nn) fn new(weight: &[f32], rows: usize, depth: usize) -> PackedWeight {
        let rows_per_tile = Arch::new().dispatch(RowsPerTile);
        let tile_len = rows_per_tile * depth;
        let mut tiles = vec![0.0; rows.div_ceil(rows_per_tile) * tile_len];
        for (row, values) in weight.chunks_exact(depth.max(1)).take(rows).enumerate() {
            let tile = &mut tiles[row / rows_per_tile * tile_len..][..tile_len];
            for (column, &value) in tile.chunks_exact_mut(rows_per_tile).zip(values) {
                column[row % rows_per_tile] = value;
            }
        }
        PackedWeight {
            tiles,
            depth,
            rows_per_tile,
            rows,
        }
    }

    /// Rows of one unit of parallel work: all of them where `images` alone keep the threads busy.
    pub(in crate::nn) fn rows_per_task(&self, images: usize) -> usize {
        const SMALLEST: usize = 64;
        let wanted = (2 * rayon::current_num_threads()).div_ceil(images.max(1));
        self.rows
            .div_ceil(wanted)
            .max(SMALLEST)
            .next_multiple_of(self.rows_per_tile)
    }

    /// Writes rows `first_row..` of the product, `[rows, columns]`, to `output`, as many as it holds.
    ///
    /// `first_row` must be the beginning of a tile.
    pub(in crate::nn) fn multiply(
        &self,
        right: &impl Columns,
        columns: usize,
        epilogue: &Epilogue<'_>,
        first_row: usize,
        output: &mut [f32],
    ) {
        Arch::new().dispatch(Multiply {
            weight: self,
            right,
            columns,
            epilogue,
            first_row,
            output,
        });
    }

    /// The product for each image, `[images, rows, columns]`; `right` gives an image's matrix.
    pub(in crate::nn) fn multiply_images<'a, C: Columns + 'a>(
        &self,
        images: usize,
        right: impl Fn(usize) -> C + Sync,
        columns: usize,
        epilogue: &Epilogue<'_>,
    ) -> Vec<f32> {
        let image_len = self.rows * columns;
        let mut output = vec![0.0; images * image_len];
        if output.is_empty() {
            return output;
        }
        let rows_per_task = self.rows_per_task(images);
        output
            .par_chunks_mut(image_len)
            .enumerate()
            .for_each(|(image, output)| {
                let right = right(image);
                output
                    .par_chunks_mut(rows_per_task * columns)
                    .enumerate()
                    .for_each(|(task, output)| {
                        self.multiply(&right, columns, epilogue, task * rows_per_task, output);
                    });
            });
        output
    }
}

/// Rows of a tile: what the registers hold beside the panel.
pub(super) struct RowsPerTile;

impl WithSimd for RowsPerTile {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        if S::REGISTER_COUNT >= 32 { 8 } else { 4 }
    }
}

struct Multiply<'a, C> {
    weight: &'a PackedWeight,
    right: &'a C,
    columns: usize,
    epilogue: &'a Epilogue<'a>,
    first_row: usize,
    output: &'a mut [f32],
}

impl<C: Columns> WithSimd for Multiply<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            multiply::<S, C, 8, 2>(simd, self);
        } else {
            multiply::<S, C, 4, 3>(simd, self);
        }
    }
}

#[inline(always)]
fn multiply<S: Simd, C: Columns, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    job: Multiply<'_, C>,
) {
    let Multiply {
        weight,
        right,
        columns,
        epilogue,
        first_row,
        output,
    } = job;
    let depth = weight.depth;
    let width = VECTORS * S::F32_LANES;
    let (tiles, _) = weight.tiles.as_chunks::<ROWS>();
    let tiles = &tiles[first_row / ROWS * depth..];
    let mut panel = vec![0.0; depth * width];
    for first in (0..columns).step_by(width) {
        let present = width.min(columns - first);
        for (row, values) in panel.chunks_exact_mut(width).enumerate() {
            right.copy_row(row, first, &mut values[..present]);
        }
        let (vectors, _) = S::as_simd_f32s(&panel);
        let (vectors, _) = vectors.as_chunks::<VECTORS>();
        for (index, (tile, output)) in tiles
            .chunks_exact(depth.max(1))
            .zip(output.chunks_mut(ROWS * columns))
            .enumerate()
        {
            let sums = multiply_tile(simd, tile, vectors);
            for (row, (sums, output)) in sums
                .iter()
                .zip(output.chunks_exact_mut(columns))
                .enumerate()
            {
                let finish = epilogue.channel(simd, first_row + index * ROWS + row);
                let output = &mut output[first..first + present];
                let (whole, rest) = S::as_mut_simd_f32s(output);
                for (value, &sum) in whole.iter_mut().zip(sums) {
                    *value = finish.apply(sum);
                }
                if let Some(&sum) = sums.get(whole.len()) {
                    simd.partial_store_f32s(rest, finish.apply(sum));
                }
            }
        }
    }
}

/// `[ROWS, depth]` times `[depth, VECTORS vectors]`, all sums in registers.
#[inline(always)]
pub(super) fn multiply_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    tile: &[[f32; ROWS]],
    panel: &[[S::f32s; VECTORS]],
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (weights, values) in tile.iter().zip(panel) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = simd.mul_add_f32s(weight, value, *sum);
            }
        }
    }
    sums
}
