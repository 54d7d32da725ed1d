//! The right-hand matrix of a convolution, `[channels * taps, images * pixels]`: never stored, read from planes in blocks.
//!
//! Values are computed from what is stored on the way ([`Source`]). A kernel larger than 1x1 reads them many times, so they
//! are first written to a strip of padded planes; every tap of the kernel is then a shift of it ([`Window`]).

use std::ops::Range;

use pulp::Simd;

use super::training::{OutputGradient, Stored};
use super::{Size, rows};

/// Planes `[n, c, h, w]` whose values are computed as they are read.
pub(super) trait Source: Sync {
    /// What the values of a channel share, in registers.
    type Channel<S: Simd>: Copy;

    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Self::Channel<S>;

    /// Writes `len` values of a channel, from `offset` on, to the beginning of `target`; the last vector may bring more
    /// values, of no meaning.
    fn write<S: Simd>(
        &self,
        simd: S,
        channel: Self::Channel<S>,
        offset: usize,
        len: usize,
        target: &mut [f32],
    );
}

/// Writes `compute` of `len` values of each of `sources` to the beginning of `target`, the last vector as a whole.
#[inline(always)]
fn write_vectors<S: Simd, const SOURCES: usize>(
    simd: S,
    sources: [&[f32]; SOURCES],
    offset: usize,
    len: usize,
    target: &mut [f32],
    compute: impl Fn([S::f32s; SOURCES]) -> S::f32s,
) {
    let whole = len.next_multiple_of(S::F32_LANES);
    let inside = sources
        .iter()
        .all(|source| source.len() >= whole && source.len() - whole >= offset);
    if inside && target.len() >= whole {
        let sources = sources.map(|source| S::as_simd_f32s(&source[offset..][..whole]).0);
        let (target, _) = S::as_mut_simd_f32s(&mut target[..whole]);
        for (index, target) in target.iter_mut().enumerate() {
            *target = compute(sources.map(|source| source[index]));
        }
        return;
    }
    for done in (0..len).step_by(S::F32_LANES) {
        let vector = compute(sources.map(|source| load(simd, source, offset + done)));
        store(simd, target, done, vector);
    }
}

/// The vector that begins at `offset`, zeros beyond the end.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, values: &[f32], offset: usize) -> S::f32s {
    let values = values.get(offset..).unwrap_or_default();
    match S::as_simd_f32s(values).0.first() {
        Some(&vector) => vector,
        None => simd.partial_load_f32s(values),
    }
}

/// Writes a vector to `offset`, or as much of it as there is room for.
#[inline(always)]
fn store<S: Simd>(simd: S, values: &mut [f32], offset: usize, vector: S::f32s) {
    let values = values.get_mut(offset..).unwrap_or_default();
    match values.get_mut(..S::F32_LANES) {
        Some(whole) => S::as_mut_simd_f32s(whole).0[0] = vector,
        None => simd.partial_store_f32s(values, vector),
    }
}

/// Scale, shift, and bounds of a channel.
#[derive(Clone, Copy)]
pub(super) struct Affine<S: Simd>(S::f32s, S::f32s, S::f32s, S::f32s);

impl Source for Stored<'_> {
    type Channel<S: Simd> = Affine<S>;

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Affine<S> {
        Affine(
            simd.splat_f32s(self.scale[channel]),
            simd.splat_f32s(self.shift[channel]),
            simd.splat_f32s(self.low),
            simd.splat_f32s(self.high),
        )
    }

    #[inline(always)]
    fn write<S: Simd>(
        &self,
        simd: S,
        Affine(scale, shift, low, high): Affine<S>,
        offset: usize,
        len: usize,
        target: &mut [f32],
    ) {
        write_vectors(simd, [self.values], offset, len, target, |[value]| {
            let value = simd.mul_add_f32s(value, scale, shift);
            simd.min_f32s(high, simd.max_f32s(low, value))
        });
    }
}

/// The three factors of an [`OutputGradient`] for a channel.
#[derive(Clone, Copy)]
pub(super) struct Factors<S: Simd>(S::f32s, S::f32s, S::f32s);

impl Source for OutputGradient<'_> {
    type Channel<S: Simd> = Factors<S>;

    #[inline(always)]
    fn channel<S: Simd>(&self, simd: S, channel: usize) -> Factors<S> {
        Factors(
            simd.splat_f32s(self.by_gradient[channel]),
            simd.splat_f32s(self.by_value[channel]),
            simd.splat_f32s(self.constant[channel]),
        )
    }

    #[inline(always)]
    fn write<S: Simd>(
        &self,
        simd: S,
        Factors(by_gradient, by_value, constant): Factors<S>,
        offset: usize,
        len: usize,
        target: &mut [f32],
    ) {
        let sources = [self.gradient, self.values];
        write_vectors(simd, sources, offset, len, target, |[gradient, value]| {
            let rest = simd.mul_add_f32s(value, by_value, constant);
            simd.mul_add_f32s(gradient, by_gradient, rest)
        });
    }
}

/// Values that are read as they are.
struct Strip<'a>(&'a [f32]);

impl Source for Strip<'_> {
    type Channel<S: Simd> = ();

    #[inline(always)]
    fn channel<S: Simd>(&self, _simd: S, _channel: usize) {}

    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, (): (), offset: usize, len: usize, target: &mut [f32]) {
        write_vectors(simd, [self.0], offset, len, target, |[value]| value);
    }
}

/// How the pixels of an output lie in planes: lines, at a pitch, of neighbours (or every `step`-th).
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) length: usize,
    pub(super) count: usize,
    pub(super) pitch: usize,
    pub(super) first: usize,
    pub(super) step: usize,
}

/// Neighbouring columns within one line.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) image: usize,
    /// Offset of the first in its plane.
    pub(super) offset: usize,
    /// The first, counted from the block's first column.
    pub(super) column: usize,
    pub(super) len: usize,
}

impl Lines {
    /// A whole plane, taken as a single line.
    pub(super) fn plane(area: usize) -> Lines {
        Lines {
            length: area,
            count: 1,
            pitch: area,
            first: 0,
            step: 1,
        }
    }

    pub(super) fn per_image(&self) -> usize {
        self.length * self.count
    }

    /// Cuts a range of the columns of several images to `runs`.
    pub(super) fn runs(&self, columns: Range<usize>, runs: &mut Vec<Run>) {
        runs.clear();
        let mut at = columns.start;
        let (mut line, mut x) = (at / self.length, at % self.length);
        let (mut image, mut y) = (line / self.count, line % self.count);
        while at < columns.end {
            let len = (self.length - x).min(columns.end - at);
            runs.push(Run {
                image,
                offset: self.first + y * self.pitch + x * self.step,
                column: at - columns.start,
                len,
            });
            at += len;
            (line, x) = (y + 1, 0);
            (image, y) = if line == self.count {
                (image + 1, 0)
            } else {
                (image, line)
            };
        }
    }
}

/// What a kernel sees of a padded plane.
///
/// A strip's line holds the columns of each phase (column modulo stride) side by side, so that what a tap reads for
/// neighbouring outputs are neighbours.
#[derive(Clone)]
pub(super) struct Window {
    /// Zeros before the plane; where negative, lines and columns of it that are left out.
    pub(super) top: isize,
    pub(super) left: isize,
    pub(super) stride: usize,
    pub(super) kernel: Size,
    pub(super) output: Size,
}

impl Window {
    /// Of the padded plane, as far as it is read.
    fn size(&self) -> Size {
        Size {
            height: (self.output.height.max(1) - 1) * self.stride + self.kernel.height,
            width: (self.output.width.max(1) - 1) * self.stride + self.kernel.width,
        }
    }

    fn phase_width(&self) -> usize {
        self.size().width.div_ceil(self.stride)
    }

    fn pitch(&self) -> usize {
        self.phase_width() * self.stride
    }

    /// Length of a padded plane.
    fn plane(&self) -> usize {
        self.pitch() * self.size().height
    }

    fn tap(&self, tap: usize) -> usize {
        let (y, x) = (tap / self.kernel.width, tap % self.kernel.width);
        y * self.pitch() + x % self.stride * self.phase_width() + x / self.stride
    }

    fn lines(&self) -> Lines {
        Lines {
            length: self.output.width,
            count: self.output.height,
            pitch: self.pitch() * self.stride,
            first: 0,
            step: 1,
        }
    }
}

/// Room behind a block or strip for the last vector to reach beyond it.
pub(super) const SLACK: usize = 16;

/// A right-hand matrix. Without a window it is the planes themselves.
pub(super) struct Columns<T> {
    pub(super) source: T,
    pub(super) channels: usize,
    pub(super) plane: Size,
    pub(super) window: Option<Window>,
    taps: Vec<usize>,
}

impl<T: Source> Columns<T> {
    pub(super) fn new(source: T, channels: usize, plane: Size, window: Option<Window>) -> Self {
        let taps = match &window {
            None => vec![0],
            Some(window) => (0..window.kernel.area())
                .map(|tap| window.tap(tap))
                .collect(),
        };
        Columns {
            source,
            channels,
            plane,
            window,
            taps,
        }
    }

    /// Rows of the matrix for each channel.
    pub(super) fn taps(&self) -> usize {
        self.taps.len()
    }

    fn lines(&self) -> Lines {
        match &self.window {
            None => Lines::plane(self.plane.area()),
            Some(window) => window.lines(),
        }
    }

    /// Columns for each image.
    pub(super) fn per_image(&self) -> usize {
        self.lines().per_image()
    }

    /// Length of the strip of so many planes.
    pub(super) fn strip_len(&self, planes: usize) -> usize {
        match &self.window {
            None => 0,
            Some(window) => planes * window.plane() + SLACK + window.pitch() + SLACK,
        }
    }

    /// Fills the strip of some channels of some images.
    #[inline(always)]
    pub(super) fn prepare<S: Simd>(
        &self,
        simd: S,
        images: Range<usize>,
        channels: Range<usize>,
        strip: &mut [f32],
    ) {
        let Some(window) = &self.window else {
            return;
        };
        let (size, pitch) = (window.size(), window.pitch());
        let (line_at, line_len) = (strip.len() - pitch - SLACK, pitch + SLACK);
        let (strip, line) = strip.split_at_mut(line_at);
        let line = &mut line[..line_len];
        let before = window.left.max(0).unsigned_abs().min(size.width);
        let skipped = window.left.min(0).unsigned_abs();
        let inside = self
            .plane
            .width
            .saturating_sub(skipped)
            .min(size.width - before);
        let mut to = 0;
        for image in images {
            for channel in channels.clone() {
                let affine = self.source.channel(simd, channel);
                let plane = (image * self.channels + channel) * self.plane.area();
                for y in 0..size.height {
                    let y = y
                        .checked_add_signed(-window.top)
                        .filter(|&y| y < self.plane.height);
                    let (target, at) = if window.stride == 1 {
                        (&mut *strip, to)
                    } else {
                        (&mut *line, 0)
                    };
                    let inside = if y.is_some() { inside } else { 0 };
                    let from = plane + y.unwrap_or(0) * self.plane.width + skipped;
                    target[at..at + before].fill(0.0);
                    let target_line = &mut target[at + before..];
                    self.source.write(simd, affine, from, inside, target_line);
                    target[at + before + inside..at + pitch].fill(0.0);
                    if window.stride == 2 {
                        let phases = &mut strip[to..to + pitch];
                        let (evens, odds) = phases.split_at_mut(window.phase_width());
                        rows::split(&line[..pitch], evens, odds, |value| value);
                    } else if window.stride > 1 {
                        let phases = strip[to..to + pitch].chunks_exact_mut(window.phase_width());
                        for (phase, values) in phases.enumerate() {
                            let columns = line[phase..].iter().step_by(window.stride);
                            for (value, &column) in values.iter_mut().zip(columns) {
                                *value = column;
                            }
                        }
                    }
                    to += pitch;
                }
            }
        }
    }

    /// The block of a range of columns of `images` (counted from the first of them); `strip` is that of the same images
    /// and channels.
    pub(super) fn block<'a>(
        &'a self,
        images: Range<usize>,
        channels: Range<usize>,
        columns: Range<usize>,
        strip: &'a [f32],
        runs: &'a mut Vec<Run>,
    ) -> Block<'a, T> {
        self.lines().runs(columns, runs);
        let (plane, first_image, first_channel, image_channels) = match &self.window {
            None => (
                self.plane.area(),
                images.start,
                channels.start,
                self.channels,
            ),
            Some(window) => (window.plane(), 0, 0, channels.len()),
        };
        for run in runs.iter_mut() {
            run.offset += ((first_image + run.image) * image_channels + first_channel) * plane;
        }
        Block {
            columns: self,
            first_channel: channels.start,
            channels,
            strip,
            runs,
            plane,
        }
    }
}

/// Some channels and some columns of a right-hand matrix.
pub(super) struct Block<'a, T> {
    columns: &'a Columns<T>,
    channels: Range<usize>,
    /// Of the runs.
    first_channel: usize,
    strip: &'a [f32],
    runs: &'a [Run],
    plane: usize,
}

/// Where the rows of a block go.
pub(super) trait Rows {
    /// Where a row is written; the last vector may reach beyond its end.
    fn row(&mut self, row: usize) -> &mut [f32];

    /// Called when it is written.
    fn written<S: Simd>(&mut self, row: usize);
}

impl<T: Source> Block<'_, T> {
    /// Fewer of its channels.
    pub(super) fn channels(self, channels: Range<usize>) -> Self {
        Block { channels, ..self }
    }

    /// Writes all rows.
    #[inline(always)]
    pub(super) fn write<S: Simd>(&self, simd: S, rows: &mut impl Rows) {
        match &self.columns.window {
            None => self.write_from(simd, &self.columns.source, rows),
            Some(_) => self.write_from(simd, &Strip(self.strip), rows),
        }
    }

    #[inline(always)]
    fn write_from<S: Simd>(&self, simd: S, source: &impl Source, rows: &mut impl Rows) {
        let mut row = 0;
        for channel in self.channels.clone() {
            let index = channel - self.first_channel;
            let shared = source.channel(simd, channel);
            for tap in &self.columns.taps {
                let base = index * self.plane + tap;
                let target = rows.row(row);
                for run in self.runs {
                    let target = &mut target[run.column..];
                    source.write(simd, shared, base + run.offset, run.len, target);
                }
                rows.written::<S>(row);
                row += 1;
            }
        }
    }
}
