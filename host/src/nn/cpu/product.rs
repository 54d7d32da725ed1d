//! Weight times columns with an epilogue: a convolution forward, and its input gradient.
//!
//! Panels of a few vectors' width are filled on the way and stay in the cache while all tiles of the weight pass by; one
//! tile times one panel stays in registers (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
//! multiplication"). Small planes of several images share a panel.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use super::columns::{Columns, Lines, Rows, Run, SLACK, Source, load};
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
    pub(super) taps: Vec<usize>,
}

/// `[tiles, channels * taps, rows per tile]`.
struct Tiles {
    values: Scratch,
    rows: usize,
    depth: usize,
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
        }
    }
}

/// What follows a product in the same pass.
pub(super) trait Finish: Sync {
    type Channel<S: Simd>: Copy;

    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Self::Channel<S>;

    /// Planes of the output's shape that are read beside it.
    fn beside(&self) -> Option<&[f32]>;

    /// Whether what was in the output is read.
    fn adds(&self) -> bool;

    /// Turns a vector of products to what is written, given what is beside it and what was there before, and adds to the
    /// sums of the channel, lanes outside `mask` excepted.
    fn finish<S: Simd>(
        &self,
        simd: S,
        channel: Self::Channel<S>,
        vectors: Vectors<S>,
        mask: Option<S::m32s>,
        sums: &mut [S::f32s; 2],
    ) -> S::f32s;
}

/// What an output vector is made of.
#[derive(Clone, Copy)]
pub(super) struct Vectors<S: Simd> {
    pub(super) product: S::f32s,
    pub(super) beside: S::f32s,
    pub(super) before: S::f32s,
}

/// Places of a vector's lanes, not all of them neighbours or not all of them there.
#[derive(Clone, Copy)]
struct Lanes {
    offset: usize,
    step: usize,
    count: usize,
}

impl Lanes {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, values: &[f32]) -> S::f32s {
        let values = &values[self.offset..];
        if self.step == 1 {
            return simd.partial_load_f32s(&values[..self.count]);
        }
        let mut lanes = [0.0; SLACK];
        for (lane, values) in lanes[..self.count].iter_mut().zip(values.chunks(self.step)) {
            *lane = values[0];
        }
        load(simd, &lanes, 0)
    }

    #[inline(always)]
    fn store<S: Simd>(self, simd: S, values: &mut [f32], vector: S::f32s) {
        let values = &mut values[self.offset..];
        if self.step == 1 {
            simd.partial_store_f32s(&mut values[..self.count], vector);
            return;
        }
        let lanes: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&vector));
        let targets = values.chunks_mut(self.step);
        for (lane, target) in lanes[..self.count].iter().zip(targets) {
            target[0] = *lane;
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
    fn beside(&self) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    fn adds(&self) -> bool {
        false
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        simd: S,
        pivot: S::f32s,
        Vectors { product, .. }: Vectors<S>,
        mask: Option<S::m32s>,
        [first, second]: &mut [S::f32s; 2],
    ) -> S::f32s {
        let mut difference = simd.sub_f32s(product, pivot);
        if let Some(mask) = mask {
            difference = simd.select_f32s(mask, difference, simd.splat_f32s(0.0));
        }
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

/// Scale, shift, pivot and bounds of an input channel.
#[derive(Clone, Copy)]
pub(super) struct Passing<S: Simd> {
    scale: S::f32s,
    shift: S::f32s,
    pivot: S::f32s,
    low: S::f32s,
    high: S::f32s,
}

impl Finish for Mask<'_> {
    type Channel<S: Simd> = Passing<S>;

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Passing<S> {
        Passing {
            scale: simd.splat_f32s(self.input.scale[channel]),
            shift: simd.splat_f32s(self.input.shift[channel]),
            pivot: simd.splat_f32s(self.pivot[channel]),
            low: simd.splat_f32s(self.input.low),
            high: simd.splat_f32s(self.input.high),
        }
    }

    #[inline(always)]
    fn beside(&self) -> Option<&[f32]> {
        Some(self.input.values)
    }

    #[inline(always)]
    fn adds(&self) -> bool {
        self.add
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        simd: S,
        channel: Passing<S>,
        vectors: Vectors<S>,
        mask: Option<S::m32s>,
        [first, second]: &mut [S::f32s; 2],
    ) -> S::f32s {
        let value = simd.mul_add_f32s(vectors.beside, channel.scale, channel.shift);
        let mut passes = simd.and_m32s(
            simd.less_than_f32s(channel.low, value),
            simd.less_than_f32s(value, channel.high),
        );
        if let Some(mask) = mask {
            passes = simd.and_m32s(passes, mask);
        }
        let gradient = simd.select_f32s(passes, vectors.product, simd.splat_f32s(0.0));
        *first = simd.add_f32s(*first, gradient);
        let difference = simd.sub_f32s(vectors.beside, channel.pivot);
        *second = simd.mul_add_f32s(gradient, difference, *second);
        if self.add {
            simd.add_f32s(gradient, vectors.before)
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

/// Rows of one unit of parallel work, at least.
const FEWEST_ROWS: usize = 64;

/// Images whose columns are computed together: as few as fill the vectors but for a fortieth.
fn images_per_group(images: usize, per_image: usize) -> usize {
    const LANES: usize = 16;
    (1..images.max(1))
        .find(|group| {
            let columns = group * per_image;
            let wasted = columns.next_multiple_of(LANES) - columns;
            wasted * 40 <= columns
        })
        .unwrap_or(images.max(1))
}

/// Rows of one unit of parallel work: a row's sums do not depend on the rows beside it, so these may be divided by the number
/// of threads. Every group of rows reads the columns anew.
pub(super) fn rows_per_task(rows: usize, groups: usize, rows_per_tile: usize) -> usize {
    let wanted = (2 * rayon::current_num_threads()).div_ceil(groups);
    rows.div_ceil(wanted)
        .max(FEWEST_ROWS)
        .next_multiple_of(rows_per_tile)
}

/// A group of images and of rows.
pub(super) struct Task<'a> {
    pub(super) images: Range<usize>,
    pub(super) first_row: usize,
    /// For each image the rows' planes.
    pub(super) output: Vec<&'a mut [f32]>,
    pub(super) sums: &'a mut [Sums],
}

/// A product and the pixels of the output that it gives.
pub(super) struct Part<'a, T> {
    pub(super) weight: Weight<'a>,
    pub(super) columns: Columns<T>,
    pub(super) lines: Lines,
}

/// Weight times columns, to planes `[images, rows, area]`, part after part for each image; returns the rows' sums.
pub(super) fn multiply<T: Source, F: Finish>(
    parts: &[Part<'_, T>],
    finish: &F,
    output: &mut [f32],
    area: usize,
) -> Vec<Sums> {
    let Some(first) = parts.first() else {
        return Vec::new();
    };
    let tiles: Vec<Tiles> = parts.iter().map(|part| Tiles::new(&part.weight)).collect();
    let (rows, rows_per_tile) = (first.weight.rows, Arch::new().dispatch(RowsPerTile));
    if output.is_empty() {
        return vec![Sums::default(); rows];
    }
    let images = output.len() / (rows * area);
    let group = images_per_group(images, first.lines.per_image());
    let groups = images.div_ceil(group);
    let rows_per_task = rows_per_task(rows, groups, rows_per_tile);
    let mut sums = vec![Sums::default(); groups * rows];
    tasks(output, &mut sums, (rows, area), group, rows_per_task)
        .into_par_iter()
        .for_each(|task| {
            Arch::new().dispatch(Multiply {
                parts,
                tiles: &tiles,
                finish,
                area,
                task,
            });
        });
    total(&sums, rows)
}

/// Cuts planes `[images, rows, area]` to tasks of so many images and rows; `sums` are `[groups of images, rows]`.
pub(super) fn tasks<'a>(
    output: &'a mut [f32],
    sums: &'a mut [Sums],
    (rows, area): (usize, usize),
    images_per_task: usize,
    rows_per_task: usize,
) -> Vec<Task<'a>> {
    let image_len = rows * area;
    let images = output.len() / image_len;
    let mut tasks = Vec::new();
    for ((index, output), sums) in output
        .chunks_mut(images_per_task * image_len)
        .enumerate()
        .zip(sums.chunks_mut(rows))
    {
        let first = tasks.len();
        for (row_group, sums) in sums.chunks_mut(rows_per_task).enumerate() {
            tasks.push(Task {
                images: index * images_per_task..images.min((index + 1) * images_per_task),
                first_row: row_group * rows_per_task,
                output: Vec::with_capacity(images_per_task),
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
    tasks
}

/// The rows' sums over all groups of images.
pub(super) fn total(sums: &[Sums], rows: usize) -> Vec<Sums> {
    let mut totals = vec![Sums::default(); rows];
    for sums in sums.chunks(rows) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            total.first += sum.first;
            total.second += sum.second;
        }
    }
    totals
}

struct Multiply<'a, T, F> {
    parts: &'a [Part<'a, T>],
    tiles: &'a [Tiles],
    finish: &'a F,
    area: usize,
    task: Task<'a>,
}

impl<T: Source, F: Finish> WithSimd for Multiply<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, 8, 2>(simd);
        } else {
            self.run::<S, 4, 3>(simd);
        }
    }
}

impl<T: Source, F: Finish> Multiply<'_, T, F> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(mut self, simd: S) {
        let rows = self.task.sums.len();
        let mut sums = Scratch::new(rows * 2 * S::F32_LANES);
        sums.fill(0.0);
        let (sums, _) = S::as_mut_simd_f32s(&mut sums);
        let (sums, _) = sums.as_chunks_mut::<2>();
        for (part, tiles) in self.parts.iter().zip(self.tiles) {
            self.run_part::<S, ROWS, VECTORS>(simd, part, tiles, sums);
        }
        for (total, [first, second]) in self.task.sums.iter_mut().zip(sums) {
            *total = Sums {
                first: lane_sum::<S>(first),
                second: lane_sum::<S>(second),
            };
        }
    }

    #[inline(always)]
    fn run_part<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        part: &Part<'_, T>,
        tiles: &Tiles,
        sums: &mut [[S::f32s; 2]],
    ) {
        let (columns, lines) = (&part.columns, part.lines);
        let width = VECTORS * S::F32_LANES;
        let channels = 0..columns.channels;
        let images = self.task.images.clone();
        let total = images.len() * lines.per_image();
        let chunk = (CHUNK_LEN / (tiles.depth * width).max(1))
            .min(total.div_ceil(width))
            .max(1)
            * width;

        let panels_len = tiles.depth * chunk;
        let line_len = chunk + SLACK;
        let strip_len = columns.strip_len(images.len() * columns.channels);
        let mut scratch = Scratch::new(panels_len + line_len + strip_len);
        let (values, rest) = scratch.split_at_mut(panels_len);
        let (line, strip) = rest.split_at_mut(line_len);
        columns.prepare(simd, images.clone(), channels.clone(), strip);

        let (mut runs, mut places) = (Vec::new(), Vec::new());
        for first in (0..total).step_by(chunk) {
            let range = first..total.min(first + chunk);
            let mut panels = Panels {
                present: range.len(),
                depth: tiles.depth,
                width,
                line: &mut *line,
                values: &mut *values,
            };
            columns
                .block(
                    images.clone(),
                    channels.clone(),
                    range.clone(),
                    strip,
                    &mut runs,
                )
                .write(simd, &mut panels);
            for tile_row in (0..self.task.sums.len()).step_by(ROWS) {
                for panel_first in range.clone().step_by(width) {
                    let present = width.min(range.end - panel_first);
                    lines.runs(panel_first..panel_first + present, &mut places);
                    let panel = &values[(panel_first - first) * tiles.depth..];
                    let job = Tile {
                        tiles,
                        finish: self.finish,
                        lines,
                        area: self.area,
                        places: &places,
                        row: tile_row,
                    };
                    if present <= S::F32_LANES {
                        job.run::<S, ROWS, 1>(simd, panel, &mut self.task, sums);
                    } else {
                        job.run::<S, ROWS, VECTORS>(simd, panel, &mut self.task, sums);
                    }
                }
            }
        }
    }
}

pub(super) fn lane_sum<S: Simd>(vector: &S::f32s) -> f64 {
    let lanes: &[f32] = bytemuck::cast_slice(std::slice::from_ref(vector));
    lanes.iter().copied().map(f64::from).sum()
}

/// Values of the panels that are filled at once, about: so that a plane is read many lines of the cache at a time, and what
/// is read stays in the second level.
const CHUNK_LEN: usize = 96 * 1024;

/// Panels `[depth, width]`, one after the other; of the last, if it has that few columns, only the first vector.
struct Panels<'a> {
    present: usize,
    depth: usize,
    width: usize,
    line: &'a mut [f32],
    values: &'a mut [f32],
}

impl Rows for Panels<'_> {
    #[inline(always)]
    fn row(&mut self, _row: usize) -> &mut [f32] {
        self.line
    }

    #[inline(always)]
    fn written<S: Simd>(&mut self, row: usize) {
        let panels = self
            .values
            .chunks_exact_mut(self.depth * self.width)
            .zip(self.line.chunks_exact(self.width));
        let mut left = self.present;
        for (panel, values) in panels {
            if left == 0 {
                break;
            }
            let width = if left <= S::F32_LANES {
                S::F32_LANES
            } else {
                self.width
            };
            let (target, _) = S::as_mut_simd_f32s(&mut panel[row * width..][..width]);
            let (values, _) = S::as_simd_f32s(values);
            for (target, value) in target.iter_mut().zip(values) {
                *target = *value;
            }
            left -= left.min(self.width);
        }
    }
}

/// A tile of the weight, to be multiplied by a panel.
struct Tile<'a, F> {
    tiles: &'a Tiles,
    finish: &'a F,
    lines: Lines,
    area: usize,
    /// Where the panel's columns go.
    places: &'a [Run],
    /// The first, counted from the task's first.
    row: usize,
}

impl<F: Finish> Tile<'_, F> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        panel: &[f32],
        task: &mut Task<'_>,
        sums: &mut [[S::f32s; 2]],
    ) {
        let depth = self.tiles.depth;
        let (vectors, _) = S::as_simd_f32s(panel);
        let vectors = &vectors.as_chunks::<VECTORS>().0[..depth];
        let (tiles, _) = self.tiles.values.as_chunks::<ROWS>();
        let tile = &tiles[(task.first_row + self.row) / ROWS * depth..][..depth];
        let products = multiply_tile(simd, tile, vectors);

        let rows = ROWS.min(task.sums.len() - self.row);
        let whole = match self.places {
            [place] if self.lines.step == 1 && place.len == VECTORS * S::F32_LANES => Some(place),
            _ => None,
        };
        for (row, products) in products.iter().enumerate().take(rows) {
            let row = self.row + row;
            let channel = task.first_row + row;
            let shared = self.finish.channel(simd, channel);
            let plane = |image: usize| {
                ((task.images.start + image) * self.tiles.rows + channel) * self.area
            };
            let mut totals = sums[row];
            if let Some(place) = whole {
                let at = row * self.area + place.offset;
                let output = &mut task.output[place.image][at..][..place.len];
                let (output, _) = S::as_mut_simd_f32s(output);
                let at = plane(place.image) + place.offset;
                let beside = self.finish.beside().map(|beside| {
                    let (beside, _) = S::as_simd_f32s(&beside[at..][..place.len]);
                    beside
                });
                for (index, (&product, output)) in products.iter().zip(output).enumerate() {
                    let vectors = Vectors {
                        product,
                        beside: beside.map_or(product, |beside| beside[index]),
                        before: *output,
                    };
                    *output = self.finish.finish(simd, shared, vectors, None, &mut totals);
                }
            } else {
                let products: &[f32] = bytemuck::cast_slice(products);
                for place in self.places {
                    let output = &mut task.output[place.image][row * self.area..][..self.area];
                    let plane = plane(place.image);
                    for done in (0..place.len).step_by(S::F32_LANES) {
                        let lanes = Lanes {
                            offset: place.offset + done * self.lines.step,
                            step: self.lines.step,
                            count: S::F32_LANES.min(place.len - done),
                        };
                        let product = load(simd, products, place.column + done);
                        let vectors = Vectors {
                            product,
                            beside: self
                                .finish
                                .beside()
                                .map_or(product, |beside| lanes.load(simd, &beside[plane..])),
                            before: if self.finish.adds() {
                                lanes.load(simd, output)
                            } else {
                                product
                            },
                        };
                        let mask = simd.mask_between_m32s(0, lanes.count as u32).mask();
                        let mask = Some(mask);
                        let value = self.finish.finish(simd, shared, vectors, mask, &mut totals);
                        lanes.store(simd, output, value);
                    }
                }
            }
            sums[row] = totals;
        }
    }
}
