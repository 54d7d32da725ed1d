//! Planes read in blocks of channels, with zeros around them.

use std::ops::Range;

use pulp::Simd;

use super::super::transpose::transpose;
use super::{BLOCK, Size, Source};

/// Planes `[n, c, h, w]` and the zeros before them.
pub(super) struct Planes<T> {
    pub(super) source: T,
    pub(super) channels: usize,
    pub(super) size: Size,
    pub(super) top: usize,
    pub(super) left: usize,
}

impl<T: Source> Planes<T> {
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Writes a block of an image's channels to `target`, `[padded height, padded width, BLOCK]`: zeros around the plane, and in
    /// the lanes beyond the last channel.
    #[inline(always)]
    pub(super) fn write<S: Simd>(
        &self,
        simd: S,
        image: usize,
        block: usize,
        padded: Size,
        target: &mut [[f32; BLOCK]],
    ) {
        let Size { height, width } = self.size;
        for (y, line) in target.chunks_exact_mut(padded.width).enumerate() {
            if (self.top..self.top + height).contains(&y) {
                line[..self.left].fill([0.0; BLOCK]);
                line[self.left + width..].fill([0.0; BLOCK]);
            } else {
                line.fill([0.0; BLOCK]);
            }
        }
        let first = block * BLOCK;
        let channels: Range<usize> = first..self.channels.min(first + BLOCK);
        let area = self.size.area();
        let mut at = self.top * padded.width + self.left;
        let mut x = 0;
        for pixel in (0..area).step_by(BLOCK) {
            let count = BLOCK.min(area - pixel);
            let mut square = [[0.0; BLOCK]; BLOCK];
            for (values, channel) in square.iter_mut().zip(channels.clone()) {
                let shared = self.source.channel(simd, channel);
                let offset = (image * self.channels + channel) * area + pixel;
                self.source.write(simd, shared, offset, count, values);
            }
            transpose(&mut square);
            for values in &square[..count] {
                target[at] = *values;
                (at, x) = (at + 1, x + 1);
                if x == width {
                    (at, x) = (at + padded.width - width, 0);
                }
            }
        }
    }
}
