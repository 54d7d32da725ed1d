//! Photos that show the same though their bytes differ: resized, compressed again, a frame later.
//!
//! A perceptual hash of 128 bits, the signs of the brightness differences to the right and downwards on a grid of nine by
//! nine (dHash, Krawetz, 2013, in both directions); candidates agree in one of eight bands of 16 bits and differ in at
//! most [`MAX_BITS`] bits, then the brightness of the grid must agree too.

use graft_shared::preprocess::Pixels;

use super::union::Union;

/// Cells of the grid on a side.
const GRID: usize = 9;
/// Bits in which two near-duplicates may differ: with one less than there are bands, one band always agrees.
const MAX_BITS: u32 = 7;
const BANDS: u32 = 8;
/// Mean difference in brightness of the cells, 0 to 255, of two near-duplicates.
const MAX_MEAN_DIFFERENCE: u32 = 8;
/// Photos that agree in a band are compared with so many neighbours, sorted by hash: blank photos all agree.
const MAX_NEIGHBOURS: usize = 200;

/// What a photo looks like, in few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    hash: u128,
    cells: [u8; GRID * GRID],
}

impl Look {
    /// Of preprocessed pixels, at least 9 x 9.
    pub(super) fn of(pixels: &Pixels) -> Self {
        let mut sums = [(0u64, 0u64); GRID * GRID];
        let rows = pixels.data.chunks_exact(3 * pixels.width.max(1));
        for (y, row) in rows.enumerate() {
            let cell_y = y * GRID / pixels.height.max(1);
            for (x, pixel) in row.as_chunks::<3>().0.iter().enumerate() {
                let cell = cell_y * GRID + x * GRID / pixels.width.max(1);
                if let Some((sum, count)) = sums.get_mut(cell) {
                    *sum += u64::from(brightness(pixel));
                    *count += 1;
                }
            }
        }
        let cells = sums.map(|(sum, count)| (sum / count.max(1)) as u8);
        let mut hash = 0;
        for y in 0..GRID - 1 {
            for x in 0..GRID - 1 {
                let cell = cells[y * GRID + x];
                hash = hash << 2
                    | u128::from(cell > cells[y * GRID + x + 1]) << 1
                    | u128::from(cell > cells[(y + 1) * GRID + x]);
            }
        }
        Self { hash, cells }
    }

    fn is_near(&self, other: &Self) -> bool {
        let difference: u32 = self
            .cells
            .iter()
            .zip(&other.cells)
            .map(|(a, b)| u32::from(a.abs_diff(*b)))
            .sum();
        (self.hash ^ other.hash).count_ones() <= MAX_BITS
            && difference <= MAX_MEAN_DIFFERENCE * (GRID * GRID) as u32
    }
}

/// Brightness of a pixel, 0 to 255 (ITU-R BT.601).
pub(super) fn brightness(&[red, green, blue]: &[u8; 3]) -> u8 {
    ((u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114) / 1000) as u8
}

/// Joins near-duplicates.
pub(super) fn join(looks: &[Look], union: &mut Union) {
    let mut order: Vec<usize> = (0..looks.len()).collect();
    for band in 0..BANDS {
        // Rotated so that the band leads: equal bands are neighbours, and among them similar hashes.
        let key = |index: usize| looks[index].hash.rotate_left(16 * band);
        order.sort_unstable_by_key(|&index| (key(index), index));
        for (position, &index) in order.iter().enumerate() {
            for &other in order[position + 1..].iter().take(MAX_NEIGHBOURS) {
                if key(index) >> 112 != key(other) >> 112 {
                    break;
                }
                if looks[index].is_near(&looks[other]) {
                    union.join(index, other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth noise from a seed, a little brighter by `lift`.
    fn picture(seed: u32, lift: u8, side: usize) -> Look {
        let cell = |x: usize, y: usize| {
            let mut h = seed
                .wrapping_mul(2_654_435_761)
                .wrapping_add((x * 31 + y * 17) as u32)
                .wrapping_mul(2_246_822_519);
            h ^= h >> 15;
            h = h.wrapping_mul(3_266_489_917);
            (h >> 16) as u8 / 2 + 40
        };
        let mut data = Vec::new();
        for y in 0..side {
            for x in 0..side {
                data.extend([cell(x * GRID / side, y * GRID / side) + lift; 3]);
            }
        }
        Look::of(&Pixels {
            width: side,
            height: side,
            data,
        })
    }

    #[test]
    fn copies_of_another_size_or_light_are_found_and_others_are_not() {
        let mut looks: Vec<Look> = (0..300).map(|seed| picture(seed, 0, 90)).collect();
        looks.extend((0..100).map(|seed| picture(seed, 5, 63)));
        let mut union = Union::new(looks.len());
        join(&looks, &mut union);
        let expected: Vec<Vec<usize>> = (0..100).map(|i| vec![i, 300 + i]).collect();
        assert_eq!(union.sets(), expected);
    }
}
