//! Convolution over all input channels (a backbone's stem): a matrix product with patches gathered on the way.

use super::matrix::{Columns, PackedWeight};
use super::{Epilogue, Geometry};

/// Weight `[out, in, kh, kw]`, input `[n, in, h, w]`; returns `[n, out, h', w']`.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let depth = geometry.input_channels * geometry.kernel.area();
    let image_len = geometry.input_channels * geometry.input.area();
    PackedWeight::new(weight, geometry.output_channels, depth).multiply_images(
        geometry.images,
        |image| Patches {
            data: &input[image * image_len..][..image_len],
            geometry,
        },
        geometry.output.area(),
        epilogue,
    )
}

/// The matrix of an image's patches (im2col), `[in * kh * kw, h' * w']`, never stored as a whole.
struct Patches<'a> {
    data: &'a [f32],
    geometry: &'a Geometry,
}

impl Columns for Patches<'_> {
    #[inline(always)]
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]) {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            padding,
            ..
        } = *self.geometry;
        let (channel, tap) = (row / kernel.area(), row % kernel.area());
        let (tap_y, tap_x) = (tap / kernel.width, tap % kernel.width);
        let plane = &self.data[channel * input.area()..][..input.area()];
        let (mut y, mut x) = (first / output.width, first % output.width);
        let mut panel = panel;
        while !panel.is_empty() {
            let (line, rest) = panel.split_at_mut(panel.len().min(output.width - x));
            let source = (y * stride + tap_y)
                .checked_sub(padding.top)
                .and_then(|source_y| plane.chunks_exact(input.width).nth(source_y));
            gather(line, source, (x * stride + tap_x, padding.left), stride);
            panel = rest;
            (y, x) = (y + 1, 0);
        }
    }
}

/// Fills `line` with every `stride`-th value of `source`, which begins after `before` zeros, from position `first` on;
/// zeros beyond its end, and everywhere without a source.
#[inline(always)]
fn gather(
    line: &mut [f32],
    source: Option<&[f32]>,
    (first, before): (usize, usize),
    stride: usize,
) {
    let zeros = before
        .saturating_sub(first)
        .div_ceil(stride)
        .min(line.len());
    let (left, inside) = line.split_at_mut(zeros);
    left.fill(0.0);
    let values = source
        .and_then(|source| source.get((first + zeros * stride).saturating_sub(before)..))
        .unwrap_or_default();
    let (inside, right) = inside.split_at_mut(inside.len().min(values.len().div_ceil(stride)));
    for (value, &source) in inside.iter_mut().zip(values.iter().step_by(stride)) {
        *value = source;
    }
    right.fill(0.0);
}
