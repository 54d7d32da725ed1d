//! The image as its EXIF orientation says to show it (EXIF 2.32, tag 0x0112).

use image::metadata::Orientation;

use crate::error::Result;
use crate::preprocess::Pixels;

/// Whether width and height change places.
pub(super) fn turns(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH
    )
}

/// Turns and mirrors `data`, RGB8 of that size.
///
/// # Errors
/// When the data does not match the size.
pub(super) fn oriented(
    width: u32,
    height: u32,
    data: Vec<u8>,
    orientation: Orientation,
) -> Result<Pixels> {
    let (width, height) = (width as usize, height as usize);
    let image = Pixels {
        width,
        height,
        data,
    };
    image.validate()?;
    // Which pixel becomes the first, and which way its neighbours in the row and in the column are taken from.
    let (last_column, last_row) = (width - 1, (height - 1) * width);
    let (across, down) = (1, width as isize);
    let (first, right, below) = match orientation {
        Orientation::NoTransforms => return Ok(image),
        Orientation::FlipHorizontal => (last_column, -across, down),
        Orientation::Rotate180 => (last_row + last_column, -across, -down),
        Orientation::FlipVertical => (last_row, across, -down),
        Orientation::Rotate90FlipH => (0, down, across),
        Orientation::Rotate90 => (last_row, -down, across),
        Orientation::Rotate270FlipH => (last_row + last_column, -down, -across),
        Orientation::Rotate270 => (last_column, down, -across),
    };
    let (width, height) = if turns(orientation) {
        (height, width)
    } else {
        (width, height)
    };
    // By tiles, so that what is read stays in the cache also where rows become columns.
    const TILE: usize = 32;
    let source = image.data.as_chunks::<3>().0;
    let mut data = vec![0; image.data.len()];
    let output = data.as_chunks_mut::<3>().0;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for y in top..height.min(top + TILE) {
                let mut from = first
                    .wrapping_add_signed(y as isize * below)
                    .wrapping_add_signed(left as isize * right);
                for pixel in &mut output[y * width..][left..width.min(left + TILE)] {
                    *pixel = source[from];
                    from = from.wrapping_add_signed(right);
                }
            }
        }
    }
    Ok(Pixels {
        width,
        height,
        data,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pixel(image: &Pixels, x: usize, y: usize) -> &[u8] {
        &image.data[(y * image.width + x) * 3..][..3]
    }

    /// Orientation by its definition, on an image larger than a tile.
    #[test]
    fn every_pixel_is_where_its_orientation_says() {
        let (width, height) = (75_usize, 43_usize);
        let data: Vec<u8> = (0..width * height * 3)
            .map(|index| (index * 7 / 3) as u8)
            .collect();
        let stored = Pixels {
            width,
            height,
            data: data.clone(),
        };
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number).unwrap();
            let shown = oriented(75, 43, data.clone(), orientation).unwrap();
            for y in 0..shown.height {
                for x in 0..shown.width {
                    let (column, row) = match number {
                        1 => (x, y),
                        2 => (width - 1 - x, y),
                        3 => (width - 1 - x, height - 1 - y),
                        4 => (x, height - 1 - y),
                        5 => (y, x),
                        6 => (y, height - 1 - x),
                        7 => (width - 1 - y, height - 1 - x),
                        _ => (width - 1 - y, x),
                    };
                    assert_eq!(pixel(&shown, x, y), pixel(&stored, column, row));
                }
            }
        }
    }
}
