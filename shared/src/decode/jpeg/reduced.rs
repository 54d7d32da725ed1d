//! Sequential JPEGs at 1/2, 1/4 or 1/8 of their size: coded data -> RGB8.
//!
//! Only the coefficients that the smaller picture needs are kept. A component that is sampled half as densely as the
//! first is reduced half as far, so that none has to be enlarged. Beside the result, one row of MCUs is in memory.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::bits::Bits;
use super::colour;
use super::header::{Component, Header};
use super::huffman::BlockDecoder;
use super::inverse_dct::{flat, inverse_dct};
use crate::error::{Context, Result};

/// A component's samples of one row of MCUs.
struct Plane {
    decoder: BlockDecoder,
    /// Blocks in an MCU, horizontally and vertically.
    blocks: (usize, usize),
    /// Width and height of a block in samples.
    block: (usize, usize),
    /// The first coefficient of the block before.
    dc: i32,
    /// Row by row; the rows of all planes are equally long.
    samples: Vec<u8>,
}

/// The image at 1 / `scale`, which is 2, 4 or 8: RGB8, `[ceil(height / scale), ceil(width / scale), 3]`.
///
/// # Errors
/// When the coded data is damaged or cut off.
pub(super) fn decode(header: &Header<'_>, scale: usize) -> Result<Vec<u8>> {
    #[cfg(target_arch = "x86_64")]
    if let Some(decoded) = avx2::decode(header, scale) {
        return decoded;
    }
    decode_plain(header, scale)
}

/// [`decode`] for the instructions that the caller is compiled for.
#[inline(always)]
fn decode_plain(header: &Header<'_>, scale: usize) -> Result<Vec<u8>> {
    let most = |side: fn(&Component<'_>) -> usize| header.components.iter().map(side).max();
    let across = most(|component| component.horizontal).context("no component")?;
    let down = most(|component| component.vertical).context("no component")?;
    // Width and height of an MCU in pixels of the result.
    let (mcu_width, mcu_height) = (across * 8 / scale, down * 8 / scale);
    let (width, height) = (header.width.div_ceil(scale), header.height.div_ceil(scale));
    let mcus = width.div_ceil(mcu_width);
    let stride = mcus * mcu_width;
    let mut planes = header
        .components
        .iter()
        .map(|component| {
            let blocks = (component.horizontal, component.vertical);
            let block = (mcu_width / blocks.0, mcu_height / blocks.1);
            Ok(Plane {
                decoder: BlockDecoder::new(component, block.0, block.1)?,
                blocks,
                block,
                dc: 0,
                samples: vec![0; stride * mcu_height],
            })
        })
        .collect::<Result<Vec<_>>>()?;

    let mut data = vec![0; width * height * 3];
    let mut bits = Bits::new(header.coded);
    let mut mcu = 0;
    for output in data.chunks_mut(width * mcu_height * 3) {
        for column in 0..mcus {
            if header.restart_interval > 0 && mcu > 0 && mcu % header.restart_interval == 0 {
                bits.restart(mcu / header.restart_interval - 1)?;
                planes.iter_mut().for_each(|plane| plane.dc = 0);
            }
            let left = column * mcu_width;
            let mut decoded = Ok(());
            // No closure: it would not be compiled for the instructions of this function.
            for plane in &mut planes {
                if decoded.is_ok() {
                    decoded = plane.decode_mcu(&mut bits, left, stride);
                }
            }
            // Zeros behind the end are no data, whatever they decode to.
            bits.check().and(decoded)?;
            mcu += 1;
        }
        for (row, output) in output.chunks_exact_mut(width * 3).enumerate() {
            let samples = |plane| Plane::row(plane, row * stride, width);
            match planes.as_slice() {
                [first, second, third] if header.rgb => {
                    colour::from_rgb([first, second, third].map(samples), output);
                }
                [first, second, third] => {
                    colour::from_ycbcr([first, second, third].map(samples), output);
                }
                planes => planes
                    .iter()
                    .for_each(|grey| colour::from_grey(samples(grey), output)),
            }
        }
    }
    Ok(data)
}

impl Plane {
    /// The samples from `start` on, so many.
    fn row(&self, start: usize, width: usize) -> &[u8] {
        &self.samples[start..][..width]
    }

    /// Decodes the plane's blocks of the next MCU, to `left` in its rows.
    #[inline(always)]
    fn decode_mcu(&mut self, bits: &mut Bits<'_>, left: usize, stride: usize) -> Result<()> {
        for y in 0..self.blocks.1 {
            for x in 0..self.blocks.0 {
                let mut block = [0; 64];
                let any = self.decoder.decode(bits, &mut self.dc, &mut block)?;
                let start = y * self.block.1 * stride + left + x * self.block.0;
                let samples = &mut self.samples[start..];
                if any {
                    inverse_dct(self.block, &block, samples, stride);
                } else {
                    let sample = flat(block[0]);
                    for row in samples.chunks_mut(stride).take(self.block.1) {
                        row[..self.block.0].fill(sample);
                    }
                }
            }
        }
        Ok(())
    }
}
