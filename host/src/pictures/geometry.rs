//! Where the pixels of a training picture come from: crops, and small turns and shifts.

use graft_shared::resize::{Area, Window};

use crate::random::Random;

/// Draws of a crop before the middle is taken instead.
const ATTEMPTS: usize = 10;

/// A random crop of an image of that size: from `smallest` of its area to all of it, its shape from 1 / `stretch` to
/// `stretch`, logarithmically even; the middle square where none fits.
///
/// The random resized crop of C. Szegedy et al., "Going deeper with convolutions", arXiv 1409.4842, section 6.
pub(super) fn crop(
    width: usize,
    height: usize,
    smallest: f32,
    stretch: f32,
    random: &mut Random,
) -> Area {
    let (width, height) = (width as f64, height as f64);
    let (smallest, stretch) = (f64::from(smallest), f64::from(stretch));
    for _ in 0..ATTEMPTS {
        let area = width * height * random.between(smallest, 1.0);
        let shape = stretch.powf(random.between(-1.0, 1.0));
        let crop_width = (area * shape).sqrt();
        let crop_height = area / crop_width;
        if crop_width <= width && crop_height <= height {
            return Area {
                left: exact(random.between(0.0, width - crop_width)),
                top: exact(random.between(0.0, height - crop_height)),
                width: exact(crop_width),
                height: exact(crop_height),
            };
        }
    }
    let side = width.min(height);
    Area {
        left: (width - side) / 2.0,
        top: (height - side) / 2.0,
        width: side,
        height: side,
    }
}

/// Rounded down to 256ths, so that sums of positions are exact and none reaches outside.
fn exact(position: f64) -> f64 {
    (position * 256.0).floor() / 256.0
}

/// A random rectangle of that share of a square of side `size`, as wide for its height as `shape`, its middle anywhere:
/// what lies outside is cut off. At least one pixel.
pub(super) fn rectangle(size: usize, share: f64, shape: f64, random: &mut Random) -> Window {
    let side = size as f64;
    let mut span = |length: f64| {
        let middle = random.between(0.0, side);
        // Conversion to an integer saturates below at 0.
        let start = ((middle - length / 2.0) as usize).min(size - 1);
        let end = ((middle + length / 2.0).ceil() as usize).clamp(start + 1, size);
        (start, end - start)
    };
    let (left, width) = span(side * (share * shape).sqrt());
    let (top, height) = span(side * (share / shape).sqrt());
    Window {
        left,
        top,
        width,
        height,
    }
}

/// An affine map of the plane, from a pixel of the result to where it comes from; the origin is the middle of the
/// picture, the unit half its side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Warp {
    /// The factors of x, y and 1 that make x.
    x: [f64; 3],
    /// Those that make y.
    y: [f64; 3],
}

impl Warp {
    pub(super) const IDENTITY: Self = Self {
        x: [1.0, 0.0, 0.0],
        y: [0.0, 1.0, 0.0],
    };

    pub(super) fn rotation(degrees: f64) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        Self {
            x: [cosine, -sine, 0.0],
            y: [sine, cosine, 0.0],
        }
    }

    pub(super) fn shear(x: f64, y: f64) -> Self {
        Self {
            x: [1.0, x, 0.0],
            y: [y, 1.0, 0.0],
        }
    }

    /// Shares of the picture's sides.
    pub(super) fn translation(x: f64, y: f64) -> Self {
        Self {
            x: [1.0, 0.0, 2.0 * x],
            y: [0.0, 1.0, 2.0 * y],
        }
    }

    /// This one, and of its result `next`.
    pub(super) fn then(self, next: Self) -> Self {
        let row = |[x, y, one]: [f64; 3]| {
            let at = |index: usize| x * self.x[index] + y * self.y[index];
            [at(0), at(1), at(2) + one]
        };
        Self {
            x: row(next.x),
            y: row(next.y),
        }
    }

    /// Row `y` of the warped picture. Between pixels it is linear in both directions.
    #[inline(always)]
    pub(super) fn row(&self, canvas: &Canvas, y: usize, row: &mut [[u8; 3]]) {
        let half = canvas.size as f64 / 2.0;
        let from_middle = y as f64 + 0.5 - half;
        // Of the first pixel, counted from the middle of the border's first one, and from pixel to pixel.
        let position = |[x, y, one]: [f64; 3]| {
            let start = x * (0.5 - half) + y * from_middle + (one + 1.0) * half - 0.5;
            (fixed(start + BORDER as f64), fixed(x))
        };
        let (mut source_x, step_x) = position(self.x);
        let (mut source_y, step_y) = position(self.y);
        let stride = canvas.size + 2 * BORDER;
        // Further out there is but border.
        let last = stride as i64 - 2;
        for output in row {
            let column = (source_x >> FIXED_BITS).clamp(0, last) as usize;
            let line = (source_y >> FIXED_BITS).clamp(0, last) as usize;
            let first = line.wrapping_mul(stride).wrapping_add(column);
            let pixels = &canvas.pixels[first..][..stride + 2];
            let right = fraction(source_x);
            let upper = between(pixels[0], pixels[1], right);
            let lower = between(pixels[stride], pixels[stride + 1], right);
            let [red, _, green, _, blue, ..] =
                between(upper, lower, fraction(source_y)).to_le_bytes();
            *output = [red, green, blue];
            source_x = source_x.wrapping_add(step_x);
            source_y = source_y.wrapping_add(step_y);
        }
    }
}

/// A square picture with a border all around, as [`Warp::row`] reads it.
pub(super) struct Canvas {
    /// Red, green and blue of each pixel, border included, 16 bits each.
    pixels: Vec<u64>,
    /// Pixels along a side, border left out.
    size: usize,
}

/// Pixels of the border: so many that two beside each other may both be outside.
const BORDER: usize = 2;

impl Canvas {
    /// Of a picture of `size` x `size` pixels and the colour of what is outside.
    pub(super) fn new(picture: &[[u8; 3]], size: usize, outside: [u8; 3]) -> Self {
        let stride = size + 2 * BORDER;
        let mut pixels = vec![spread(outside); stride * stride];
        let rows = pixels.chunks_exact_mut(stride).skip(BORDER);
        for (row, source) in rows.zip(picture.chunks_exact(size)) {
            for (pixel, source) in row[BORDER..].iter_mut().zip(source) {
                *pixel = spread(*source);
            }
        }
        Self { pixels, size }
    }
}

fn spread([red, green, blue]: [u8; 3]) -> u64 {
    u64::from(red) | u64::from(green) << 16 | u64::from(blue) << 32
}

/// Two pixels, `share` 256ths of the second and the rest of the first, each channel rounded.
#[inline(always)]
fn between(first: u64, second: u64, share: u64) -> u64 {
    const HALF: u64 = 0x0080_0080_0080;
    const LOWER: u64 = 0x00ff_00ff_00ff;
    // No channel reaches beyond its 16 bits: 255 * 256 + 128 is less than 2^16.
    let sum = first
        .wrapping_mul(256_u64.wrapping_sub(share))
        .wrapping_add(second.wrapping_mul(share))
        .wrapping_add(HALF);
    (sum >> 8) & LOWER
}

/// Bits after the point of a position.
const FIXED_BITS: u32 = 32;

fn fixed(position: f64) -> i64 {
    (position * (1_i64 << FIXED_BITS) as f64) as i64
}

/// What of a position is behind the point, in 256ths.
#[inline(always)]
fn fraction(position: i64) -> u64 {
    (position >> (FIXED_BITS - 8)) as u64 & 255
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::random::Purpose;

    fn random(number: u64) -> Random {
        Random::new(5, Purpose::Change, [number, 0])
    }

    #[test]
    fn crops_are_inside_and_have_their_areas_and_shapes() {
        let mut areas = Vec::new();
        for number in 0..2_000 {
            let mut random = random(number);
            let (width, height) = (1 + random.below(400), 1 + random.below(400));
            let crop = crop(width, height, 0.35, 4.0 / 3.0, &mut random);
            assert!(crop.left >= 0.0 && crop.top >= 0.0 && crop.width > 0.0);
            assert!(crop.left + crop.width <= width as f64, "{crop:?}");
            assert!(crop.top + crop.height <= height as f64, "{crop:?}");
            let shape = crop.width / crop.height;
            assert!(crop.width < 20.0 || (0.749..1.335).contains(&shape));
            if width > 50 && (0.75..1.33).contains(&(width as f64 / height as f64)) {
                areas.push(crop.width * crop.height / (width * height) as f64);
            }
        }
        assert!(areas.iter().all(|area| (0.345..=1.0).contains(area)));
        assert!(areas.iter().any(|area| *area < 0.4));
        assert!(areas.iter().any(|area| *area > 0.9));
        let whole = crop(30, 20, 1.0, 1.0, &mut random(0));
        assert_eq!((whole.left, whole.top), (5.0, 0.0));
        assert_eq!((whole.width, whole.height), (20.0, 20.0));
    }

    #[test]
    fn rectangles_are_inside() {
        for number in 0..2_000 {
            let mut random = random(number);
            let size = 1 + random.below(50);
            let share = random.share();
            let shape = random.between(0.3, 3.3);
            let window = rectangle(size, share, shape, &mut random);
            assert!(window.width >= 1 && window.left + window.width <= size);
            assert!(window.height >= 1 && window.top + window.height <= size);
        }
    }

    fn warped(warp: Warp, picture: &[[u8; 3]], size: usize) -> Vec<[u8; 3]> {
        let canvas = Canvas::new(picture, size, [9; 3]);
        let mut result = vec![[0; 3]; size * size];
        for (y, row) in result.chunks_exact_mut(size).enumerate() {
            warp.row(&canvas, y, row);
        }
        result
    }

    #[test]
    fn warps_are_where_they_should_be() {
        let size = 8;
        let picture: Vec<[u8; 3]> = (0..64)
            .map(|index| [index, 255 - index, index * 3])
            .collect();
        assert_eq!(warped(Warp::IDENTITY, &picture, size), picture);
        let moved = warped(Warp::translation(0.25, -0.125), &picture, size);
        for y in 0..size {
            for x in 0..size {
                let expected = if x + 2 < size && y >= 1 {
                    picture[(y - 1) * size + x + 2]
                } else {
                    [9; 3]
                };
                assert_eq!(moved[y * size + x], expected, "{x} {y}");
            }
        }
        let turned = warped(Warp::rotation(90.0), &picture, size);
        for y in 0..size {
            for x in 0..size {
                // x comes from -y, y from x.
                let expected = picture[x * size + (size - 1 - y)];
                let found = turned[y * size + x];
                for (found, expected) in found.iter().zip(expected) {
                    assert!(found.abs_diff(expected) <= 1, "{x} {y}");
                }
            }
        }
        // Halfway between each pixel and the one to its right, or the outside.
        let halfway = warped(Warp::translation(0.5 / 8.0, 0.0), &picture, size);
        for (index, found) in halfway.iter().enumerate() {
            for (channel, found) in found.iter().enumerate() {
                let right = match index % size {
                    7 => 9,
                    _ => u32::from(picture[index + 1][channel]),
                };
                let mean = (u32::from(picture[index][channel]) + right).div_ceil(2);
                assert_eq!(u32::from(*found), mean);
            }
        }
        let far = Warp::translation(3.0, -40.0);
        assert!(
            warped(far, &picture, size)
                .iter()
                .all(|pixel| *pixel == [9; 3])
        );
        let there_and_back = Warp::shear(0.2, 0.0).then(Warp::shear(-0.2, 0.0));
        assert_eq!(there_and_back, Warp::IDENTITY);
        let order = Warp::rotation(90.0).then(Warp::translation(0.5, 0.0));
        assert!((order.x[2] - 1.0).abs() < 1e-12 && order.y[2].abs() < 1e-12);
    }
}
