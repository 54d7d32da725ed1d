//! 1x1 convolution: a matrix product per image.

use super::matrix::{Columns, PackedWeight};
use super::{Epilogue, Geometry};

/// Weight `[out, in]`, input `[n, in, h, w]`; returns `[n, out, h, w]`.
pub(in crate::nn) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let pixels = geometry.input.area();
    let image_len = geometry.input_channels * pixels;
    PackedWeight::new(weight, geometry.output_channels, geometry.input_channels).multiply_images(
        geometry.images,
        |image| Planes {
            data: &input[image * image_len..][..image_len],
            pixels,
        },
        pixels,
        epilogue,
    )
}

/// An image's channels as the rows of a matrix.
struct Planes<'a> {
    data: &'a [f32],
    pixels: usize,
}

impl Columns for Planes<'_> {
    #[inline(always)]
    fn copy_row(&self, row: usize, first: usize, panel: &mut [f32]) {
        // Inlined loads and stores: a call of memcpy for each row of a panel costs more than the copy.
        let source = &self.data[row * self.pixels + first..][..panel.len()];
        let (blocks, rest) = panel.as_chunks_mut::<8>();
        let (source_blocks, source_rest) = source.as_chunks::<8>();
        for (block, source) in blocks.iter_mut().zip(source_blocks) {
            *block = *source;
        }
        rest.copy_from_slice(source_rest);
    }
}
