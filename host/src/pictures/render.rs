//! One photo and its change -> normalised planes.

use graft_shared::error::Result;
use graft_shared::preprocess::{Filter, Pixels};
use graft_shared::resize::{Window, resize};
use pulp::Arch;

use super::change::Change;
use super::colour::Colours;
use super::geometry::Canvas;
use crate::random::Random;

/// Mean and standard deviation of each channel (red, green, blue), in pixel units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// What becomes 0.
    pub mean: [f32; 3],
    /// What becomes 1, above the mean.
    pub std: [f32; 3],
}

impl Normalisation {
    /// `(pixel - mean) / std` of a picture, f32 `[3, height, width]`, into `planes`.
    pub fn planes(&self, picture: &Pixels, planes: &mut [f32]) {
        let (pixels, _) = picture.data.as_chunks();
        let (red, rest) = planes.split_at_mut(pixels.len());
        let (green, blue) = rest.split_at_mut(pixels.len());
        Arch::new().dispatch(|| self.row(pixels, None, [red, green, blue]));
    }

    /// Pixels as values of three planes, their colours changed before.
    #[inline(always)]
    fn row(&self, pixels: &[[u8; 3]], colours: Option<Colours>, planes: [&mut [f32]; 3]) {
        let [red, green, blue] = planes;
        let outputs = red.iter_mut().zip(&mut *green).zip(&mut *blue);
        for (((red, green), blue), pixel) in outputs.zip(pixels) {
            [*red, *green, *blue] = pixel.map(f32::from);
        }
        if let Some(colours) = colours {
            let values = red.iter_mut().zip(&mut *green).zip(&mut *blue);
            for ((red, green), blue) in values {
                [*red, *green, *blue] = colours.of([*red, *green, *blue]);
            }
        }
        for ((plane, mean), std) in [red, green, blue].into_iter().zip(self.mean).zip(self.std) {
            for value in plane {
                *value = (*value - mean) / std;
            }
        }
    }

    /// The mean as the colour of a pixel.
    fn mean_colour(&self) -> [u8; 3] {
        // Conversion to an integer saturates.
        self.mean.map(|mean| (mean + 0.5) as u8)
    }
}

/// A picture of `size` x `size` pixels, f32 `[3, size, size]`, into `planes`. What is outside the photo gets the mean
/// colour, what is erased noise of mean 0 and variance 1.
///
/// # Errors
/// A crop that is not inside the photo.
pub(super) fn render(
    photo: &Pixels,
    change: &Change,
    size: usize,
    filter: Filter,
    normalisation: &Normalisation,
    random: &mut Random,
    planes: &mut [f32],
) -> Result<()> {
    let window = Window::whole(size, size);
    let mut picture = resize(photo, change.crop, size, size, filter, window)?;
    for tones in &change.tones {
        tones.apply(&mut picture.data);
    }
    let (pixels, _) = picture.data.as_chunks();
    let warp = change.warp.map(|warp| {
        let canvas = Canvas::new(pixels, size, normalisation.mean_colour());
        (warp, canvas)
    });
    let mut line = vec![[0; 3]; size];
    Arch::new().dispatch(|| {
        let (red, rest) = planes.split_at_mut(size * size);
        let (green, blue) = rest.split_at_mut(size * size);
        let rows = red
            .chunks_exact_mut(size)
            .zip(green.chunks_exact_mut(size))
            .zip(blue.chunks_exact_mut(size));
        for (y, ((red, green), blue)) in rows.enumerate() {
            match &warp {
                None => line.copy_from_slice(&pixels[y * size..][..size]),
                Some((warp, canvas)) => warp.row(canvas, y, &mut line),
            }
            if change.mirror {
                line.reverse();
            }
            normalisation.row(&line, change.colours, [red, green, blue]);
        }
    });
    if let Some(window) = change.erased {
        erase(planes, size, window, random);
    }
    Ok(())
}

/// Noise, evenly distributed with mean 0 and variance 1, in a window of every plane.
fn erase(planes: &mut [f32], size: usize, window: Window, random: &mut Random) {
    let most = 3.0_f64.sqrt();
    for plane in planes.chunks_exact_mut(size * size) {
        for row in plane
            .chunks_exact_mut(size)
            .skip(window.top)
            .take(window.height)
        {
            for value in &mut row[window.left..][..window.width] {
                *value = random.between(-most, most) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use graft_shared::resize::Area;

    use super::super::colour::Tones;
    use super::super::geometry::Warp;
    use super::*;
    use crate::random::Purpose;

    const NORMALISATION: Normalisation = Normalisation {
        mean: [100.0, 110.0, 120.0],
        std: [50.0, 60.0, 70.0],
    };

    fn photo() -> Pixels {
        Pixels {
            width: 12,
            height: 10,
            data: (0..360).map(|index| (index * 37 % 256) as u8).collect(),
        }
    }

    fn unchanged() -> Change {
        Change {
            crop: Area {
                left: 2.0,
                top: 1.0,
                width: 8.0,
                height: 8.0,
            },
            tones: Vec::new(),
            warp: None,
            mirror: false,
            colours: None,
            erased: None,
        }
    }

    fn rendered(change: &Change) -> Vec<f32> {
        let mut planes = vec![f32::NAN; 3 * 64];
        let mut random = Random::new(1, Purpose::Change, [0, 0]);
        let photo = photo();
        let filter = Filter::Bilinear;
        render(
            &photo,
            change,
            8,
            filter,
            &NORMALISATION,
            &mut random,
            &mut planes,
        )
        .unwrap();
        planes
    }

    /// The planes of the crop, from a function of pixel and position.
    fn expected(value: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        (0..3 * 64)
            .map(|index| {
                let channel = index / 64;
                let value = value(index % 8, index / 8 % 8, channel);
                (value - NORMALISATION.mean[channel]) / NORMALISATION.std[channel]
            })
            .collect()
    }

    fn pixel(x: usize, y: usize, channel: usize) -> f32 {
        f32::from(photo().data[((y + 1) * 12 + x + 2) * 3 + channel])
    }

    #[test]
    fn planes_are_the_changed_crop() {
        assert_eq!(rendered(&unchanged()), expected(pixel));
        let identity = Change {
            warp: Some(Warp::IDENTITY),
            colours: Some(Colours::IDENTITY),
            ..unchanged()
        };
        assert_eq!(rendered(&identity), expected(pixel));
        let mirrored = Change {
            mirror: true,
            ..unchanged()
        };
        let from_right = |x, y, channel| pixel(7 - x, y, channel);
        assert_eq!(rendered(&mirrored), expected(from_right));
        let inverted = Change {
            tones: vec![Tones::solarize(0)],
            colours: Some(Colours::scale([2.0, 1.0, 0.0])),
            ..unchanged()
        };
        let brighter = |x, y, channel| {
            let value = 255.0 - pixel(x, y, channel);
            [(value * 2.0).min(255.0), value, 0.0][channel]
        };
        assert_eq!(rendered(&inverted), expected(brighter));
    }

    #[test]
    fn outside_is_the_mean_colour_and_erased_is_noise() {
        let moved = Change {
            warp: Some(Warp::translation(0.25, 0.0)),
            ..unchanged()
        };
        let value = |x, y, channel| {
            if x < 6 {
                pixel(x + 2, y, channel)
            } else {
                NORMALISATION.mean[channel]
            }
        };
        assert_eq!(rendered(&moved), expected(value));
        let window = Window {
            left: 3,
            top: 2,
            width: 4,
            height: 5,
        };
        let erased = rendered(&Change {
            erased: Some(window),
            ..unchanged()
        });
        for (index, (found, before)) in erased.iter().zip(expected(pixel)).enumerate() {
            let (x, y) = (index % 8, index / 8 % 8);
            let inside = (3..7).contains(&x) && (2..7).contains(&y);
            assert_eq!(*found == before, !inside);
            assert!(!inside || found.abs() < 1.7321);
        }
    }
}
