//! A batch as one picture, for people.

use graft_shared::preprocess::Pixels;

use super::loader::Batch;
use super::render::Normalisation;

/// The photos of a batch side by side, `columns` in a row, as they look before normalisation.
#[must_use]
pub fn sheet(batch: &Batch, normalisation: &Normalisation, columns: usize) -> Pixels {
    let (size, columns) = (batch.size, columns.max(1));
    let (width, height) = (columns * size, batch.len.div_ceil(columns) * size);
    let mut data = vec![0; width * height * 3];
    for (index, plane) in batch.input.chunks_exact((size * size).max(1)).enumerate() {
        let (photo, channel) = (index / 3, index % 3);
        let (left, top) = (photo % columns * size, photo / columns * size);
        for (y, row) in plane.chunks_exact(size).enumerate() {
            let output = &mut data[((top + y) * width + left) * 3..][..size * 3];
            for (pixel, value) in output.as_chunks_mut::<3>().0.iter_mut().zip(row) {
                // Conversion to an integer saturates.
                pixel[channel] =
                    (value * normalisation.std[channel] + normalisation.mean[channel] + 0.5) as u8;
            }
        }
    }
    Pixels {
        width,
        height,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_stand_side_by_side() {
        let normalisation = Normalisation {
            mean: [10.0, 20.0, 30.0],
            std: [2.0; 3],
        };
        let batch = Batch {
            step: 0,
            len: 3,
            size: 2,
            // Each plane its number.
            input: (0_u8..36).map(|index| f32::from(index / 4)).collect(),
            targets: Vec::new(),
        };
        let sheet = sheet(&batch, &normalisation, 2);
        assert_eq!((sheet.width, sheet.height), (4, 4));
        let pixel = |x: usize, y: usize| &sheet.data[(y * 4 + x) * 3..][..3];
        assert_eq!(pixel(0, 1), [10, 22, 34]);
        assert_eq!(pixel(2, 0), [16, 28, 40]);
        assert_eq!(pixel(1, 3), [22, 34, 46]);
        assert_eq!(pixel(3, 3), [0, 0, 0]);
    }
}
