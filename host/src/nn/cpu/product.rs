//! Weight times columns with an epilogue: a convolution forward, and its input gradient.
//!
//! Panels of a few vectors' width are filled on the way and stay in the cache while all tiles of the weight pass by; one
//! tile times one panel stays in registers (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
//! multiplication"). Small planes of several images share a panel.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use super::columns::{Columns, Lines, Run, SLACK, Source, load};
use super::matrix::{RowsPerTile, multiply_tile};
use super::scratch::Scratch;
use super::training::{InputGradient, Stored, Sums};

/// Where the elements of a left-hand matrix are in a weight: row `r`, channel `c`, tap `t` at
/// `r * row + c * channel + taps[t]`.
pub(super) struct Weight<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) row: usize,
    pub(super) channels: usize,
    pub(super) channel: usize,
    pub(super) taps: &'a [usize],
}

/// `[tiles, channels * taps, rows per tile]`.
struct Tiles {
    values: Scratch,
    rows: usize,
    depth: usize,
    rows_per_tile: usize,
}

impl Tiles {
    fn new(weight: &Weight<'_>) -> Tiles {
        let rows_per_tile = Arch::new().dispatch(RowsPerTile);
        let depth = weight.channels * weight.taps.len();
        let tile_len = rows_per_tile * depth;
        let mut values = Scratch::new(weight.rows.div_ceil(rows_per_tile) * tile_len);
        values
            .par_chunks_mut(tile_len.max(1))
            .enumerate()
            .for_each(|(index, tile)| {
                let first = index * rows_per_tile;
                let rows = rows_per_tile.min(weight.rows - first);
                let mut lines = tile.chunks_exact_mut(rows_per_tile);
                for channel in 0..weight.channels {
                    for (tap, line) in weight.taps.iter().zip(&mut lines) {
                        let at = first * weight.row + channel * weight.channel + tap;
                        let elements = weight.values[at..].iter().step_by(weight.row.max(1));
                        for (value, element) in line.iter_mut().zip(elements.take(rows)) {
                            *value = *element;
                        }
                        line[rows..].fill(0.0);
                    }
                }
            });
        Tiles {
            values,
            rows: weight.rows,
            depth,
            rows_per_tile,
        }
    }
}

/// What follows a product in the same pass.
pub(super) trait Finish: Sync {
    type Channel<S: Simd>: Copy;

    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Self::Channel<S>;

    /// Turns a vector of products to what is written, given what was there; `at` tells where in the planes the lanes are.
    /// Adds to the sums of the channel, lanes outside `mask` excepted.
    fn finish<S: Simd>(
        &self,
        simd: S,
        channel: Self::Channel<S>,
        product: S::f32s,
        before: S::f32s,
        at: Lanes,
        mask: S::m32s,
        sums: &mut [S::f32s; 2],
    ) -> S::f32s;
}

/// Places of a vector's lanes.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    offset: usize,
    step: usize,
    count: usize,
}

impl Lanes {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, values: &[f32]) -> S::f32s {
        if self.step == 1 && self.count == S::F32_LANES {
            return load(simd, values, self.offset);
        }
        if self.step == 1 {
            return simd.partial_load_f32s(&values[self.offset..][..self.count]);
        }
        let mut vector = simd.splat_f32s(0.0);
        let lanes = bytemuck::cast_slice_mut(std::slice::from_mut(&mut vector));
        let values = values[self.offset..].iter().step_by(self.step);
        for (lane, &value) in lanes.iter_mut().zip(values).take(self.count) {
            *lane = value;
        }
        vector
    }

    #[inline(always)]
    fn store<S: Simd>(self, simd: S, values: &mut [f32], vector: S::f32s) {
        let values = &mut values[self.offset..];
        if self.step == 1 {
            let values = &mut values[..self.count];
            match S::as_mut_simd_f32s(values).0.first_mut() {
                Some(whole) => *whole = vector,
                None => simd.partial_store_f32s(values, vector),
            }
            return;
        }
        let lanes: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&vector));
        let values = values.iter_mut().step_by(self.step);
        for (value, &lane) in values.zip(lanes).take(self.count) {
            *value = lane;
        }
    }
}

/// Forward: the product as it is, and sums of its difference from the pivot and of the square.
pub(super) struct Store<'a> {
    pub(super) pivot: &'a [f32],
}

impl Finish for Store<'_> {
    type Channel<S: Simd> = S::f32s;

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> S::f32s {
        simd.splat_f32s(self.pivot[channel])
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        simd: S,
        pivot: S::f32s,
        product: S::f32s,
        _before: S::f32s,
        _at: Lanes,
        mask: S::m32s,
        [first, second]: &mut [S::f32s; 2],
    ) -> S::f32s {
        let difference = simd.sub_f32s(product, pivot);
        let difference = simd.select_f32s(mask, difference, simd.splat_f32s(0.0));
        *first = simd.add_f32s(*first, difference);
        *second = simd.mul_add_f32s(difference, difference, *second);
        product
    }
}

/// Backward: the product where the input's clamp lets it through, added or not to what was there, and its sums.
pub(super) struct Mask<'a> {
    pub(super) input: Stored<'a>,
    pub(super) pivot: &'a [f32],
    pub(super) add: bool,
}

/// Scale, shift and pivot of an input channel.
#[derive(Clone, Copy)]
pub(super) struct Passing<S: Simd>(S::f32s, S::f32s, S::f32s);

impl Finish for Mask<'_> {
    type Channel<S: Simd> = Passing<S>;

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Passing<S> {
        Passing(
            simd.splat_f32s(self.input.scale[channel]),
            simd.splat_f32s(self.input.shift[channel]),
            simd.splat_f32s(self.pivot[channel]),
        )
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        simd: S,
        Passing(scale, shift, pivot): Passing<S>,
        product: S::f32s,
        before: S::f32s,
        at: Lanes,
        mask: S::m32s,
        [first, second]: &mut [S::f32s; 2],
    ) -> S::f32s {
        let stored = at.load(simd, self.input.values);
        let value = simd.mul_add_f32s(stored, scale, shift);
        let above = simd.less_than_f32s(simd.splat_f32s(self.input.low), value);
        let below = simd.less_than_f32s(value, simd.splat_f32s(self.input.high));
        let mask = simd.and_m32s(mask, simd.and_m32s(above, below));
        let gradient = simd.select_f32s(mask, product, simd.splat_f32s(0.0));
        *first = simd.add_f32s(*first, gradient);
        *second = simd.mul_add_f32s(gradient, simd.sub_f32s(stored, pivot), *second);
        if self.add {
            simd.add_f32s(gradient, before)
        } else {
            gradient
        }
    }
}

/// Adds the sums of an input's gradient to the caller's.
pub(super) fn add_sums(target: &mut InputGradient<'_>, sums: &[Sums]) {
    for (total, sum) in target.sums.iter_mut().zip(sums) {
        total.first += sum.first;
        total.second += sum.second;
    }
}

/// Images whose columns are computed together: as few as fill the vectors but for a sixteenth.
fn images_per_group(images: usize, per_image: usize) -> usize {
    const LANES: usize = 16;
    (1..images.max(1))
        .find(|group| {
            let columns = group * per_image;
            let wasted = columns.next_multiple_of(LANES) - columns;
            wasted * LANES <= columns
        })
        .unwrap_or(images.max(1))
}

/// A group of images and of rows.
struct Task<'a> {
    images: Range<usize>,
    first_row: usize,
    /// For each image the rows' planes.
    output: Vec<&'a mut [f32]>,
    sums: &'a mut [Sums],
}

/// Weight times columns, to planes `[images, rows, area]`, at the places that `lines` gives; returns the rows' sums.
pub(super) fn multiply<T: Source, F: Finish>(
    weight: &Weight<'_>,
    columns: &Columns<T>,
    finish: &F,
    lines: Lines,
    output: &mut [f32],
    area: usize,
) -> Vec<Sums> {
    const SMALLEST: usize = 64;
    const TASKS: usize = 16;
    let tiles = Tiles::new(weight);
    let image_len = tiles.rows * area;
    let mut totals = vec![Sums::default(); tiles.rows];
    if output.is_empty() || lines.per_image() == 0 {
        return totals;
    }
    let images = output.len() / image_len;
    let group = images_per_group(images, lines.per_image());
    let groups = images.div_ceil(group);
    let rows_per_task = tiles
        .rows
        .div_ceil(TASKS.div_ceil(groups))
        .max(SMALLEST)
        .next_multiple_of(tiles.rows_per_tile);
    let row_groups = tiles.rows.div_ceil(rows_per_task);

    let mut sums = vec![Sums::default(); groups * tiles.rows];
    let mut tasks = Vec::with_capacity(groups * row_groups);
    for ((index, output), sums) in output
        .chunks_mut(group * image_len)
        .enumerate()
        .zip(sums.chunks_mut(tiles.rows))
    {
        let first = tasks.len();
        for (row_group, sums) in sums.chunks_mut(rows_per_task).enumerate() {
            tasks.push(Task {
                images: index * group..images.min((index + 1) * group),
                first_row: row_group * rows_per_task,
                output: Vec::with_capacity(group),
                sums,
            });
        }
        for image in output.chunks_mut(image_len) {
            for (task, rows) in tasks[first..]
                .iter_mut()
                .zip(image.chunks_mut(rows_per_task * area))
            {
                task.output.push(rows);
            }
        }
    }
    tasks.into_par_iter().for_each(|task| {
        Arch::new().dispatch(Multiply {
            tiles: &tiles,
            columns,
            finish,
            lines,
            area,
            task,
        });
    });
    for sums in sums.chunks(tiles.rows) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            total.first += sum.first;
            total.second += sum.second;
        }
    }
    totals
}

struct Multiply<'a, T, F> {
    tiles: &'a Tiles,
    columns: &'a Columns<T>,
    finish: &'a F,
    lines: Lines,
    area: usize,
    task: Task<'a>,
}

impl<T: Source, F: Finish> WithSimd for Multiply<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            run::<S, T, F, 8, 2>(simd, self);
        } else {
            run::<S, T, F, 4, 3>(simd, self);
        }
    }
}

#[inline(always)]
fn run<S: Simd, T: Source, F: Finish, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    job: Multiply<'_, T, F>,
) {
    let Multiply {
        tiles,
        columns,
        lines,
        mut task,
        finish,
        area,
    } = job;
    let width = VECTORS * S::F32_LANES;
    let channels = 0..columns.channels;
    let rows = task.sums.len();
    let panel_len = (tiles.depth * width + SLACK).next_multiple_of(SLACK);
    let sums_len = rows.next_multiple_of(ROWS) * 2 * S::F32_LANES;
    let strip_len = columns.strip_len(task.images.len() * columns.channels);
    let mut scratch = Scratch::new(panel_len + sums_len + strip_len);
    let (panel, rest) = scratch.split_at_mut(panel_len);
    let (sums, strip) = rest.split_at_mut(sums_len);
    sums.fill(0.0);
    let (sums, _) = S::as_mut_simd_f32s(sums);
    let (sums, _) = sums.as_chunks_mut::<2>();
    columns.prepare(simd, task.images.clone(), channels.clone(), strip);

    let (mut runs, mut places) = (Vec::new(), Vec::new());
    let total = task.images.len() * lines.per_image();
    let mut first = 0;
    while first < total {
        let present = width.min(total - first);
        let range = first..first + present;
        lines.runs(range.clone(), &mut places);
        let pitch = if present <= S::F32_LANES {
            S::F32_LANES
        } else {
            width
        };
        columns.fill(
            simd,
            task.images.clone(),
            channels.clone(),
            range,
            strip,
            &mut runs,
            panel,
            pitch,
        );
        let job = Panel {
            tiles,
            finish,
            lines,
            area,
            places: &places,
        };
        if present <= S::F32_LANES {
            job.run::<S, ROWS, 1>(simd, panel, &mut task, sums);
        } else {
            job.run::<S, ROWS, VECTORS>(simd, panel, &mut task, sums);
        }
        first += present;
    }
    for (total, [first, second]) in task.sums.iter_mut().zip(sums) {
        *total = Sums {
            first: lane_sum::<S>(first),
            second: lane_sum::<S>(second),
        };
    }
}

fn lane_sum<S: Simd>(vector: &S::f32s) -> f64 {
    let lanes: &[f32] = bytemuck::cast_slice(std::slice::from_ref(vector));
    lanes.iter().copied().map(f64::from).sum()
}

struct Panel<'a, F> {
    tiles: &'a Tiles,
    finish: &'a F,
    lines: Lines,
    area: usize,
    places: &'a [Run],
}

impl<F: Finish> Panel<'_, F> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        panel: &[f32],
        task: &mut Task<'_>,
        sums: &mut [[S::f32s; 2]],
    ) {
        let depth = self.tiles.depth;
        let rows = task.sums.len();
        let image_channels = self.tiles.rows;
        let (vectors, _) = S::as_simd_f32s(panel);
        let vectors = &vectors.as_chunks::<VECTORS>().0[..depth];
        let (tiles, _) = self.tiles.values.as_chunks::<ROWS>();
        for tile_row in (0..rows).step_by(ROWS) {
            let tile = &tiles[(task.first_row + tile_row) / ROWS * depth..][..depth];
            let products = multiply_tile(simd, tile, vectors);
            for (row, products) in products.iter().enumerate().take(rows - tile_row) {
                let row = tile_row + row;
                let products: &[f32] = bytemuck::cast_slice(products);
                let channel = task.first_row + row;
                let affine = self.finish.channel(simd, channel);
                let mut totals = sums[row];
                for place in self.places {
                    let output = &mut task.output[place.image][row * self.area..][..self.area];
                    let plane =
                        ((task.images.start + place.image) * image_channels + channel) * self.area;
                    let mut done = 0;
                    while done < place.len {
                        let count = S::F32_LANES.min(place.len - done);
                        let at = Lanes {
                            offset: place.offset + done * self.lines.step,
                            step: self.lines.step,
                            count,
                        };
                        let product = load(simd, products, place.column + done);
                        let before = at.load(simd, output);
                        let beside = Lanes {
                            offset: plane + at.offset,
                            ..at
                        };
                        let mask = simd.mask_between_m32s(0, count as u32).mask();
                        let value = self.finish.finish(
                            simd,
                            affine,
                            product,
                            before,
                            beside,
                            mask,
                            &mut totals,
                        );
                        at.store(simd, output, value);
                        done += S::F32_LANES;
                    }
                }
                sums[row] = totals;
            }
        }
    }
}
