//! How pixels become the first activation of the quantized graph.

use super::Affine;

/// The code of the normalised pixels, and how they get there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelCode {
    /// How the first activation's bytes stand for normalised pixels.
    pub output: Affine,
    /// `None` where the pixel itself is the byte, which takes one integer mean and one deviation for all channels.
    pub normalisation: Option<Normalisation>,
}

/// `(pixel - mean) / std` per channel (red, green, blue), all in pixel units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Mean per channel.
    pub mean: [f32; 3],
    /// Standard deviation per channel, positive.
    pub std: [f32; 3],
}

impl PixelCode {
    /// The code of pixels that are normalised so.
    #[must_use]
    pub fn new(normalisation: Normalisation) -> Self {
        let Normalisation { mean, std } = normalisation;
        let alike = mean == [mean[0]; 3] && std == [std[0]; 3];
        if alike && mean[0].fract() == 0.0 && (0.0..=255.0).contains(&mean[0]) {
            return Self {
                output: Affine {
                    scale: 1.0 / std[0],
                    zero_point: mean[0] as u8,
                },
                normalisation: None,
            };
        }
        let ends = |pixel: f64| {
            let normalised = |c: usize| (pixel - f64::from(mean[c])) / f64::from(std[c]);
            [0, 1, 2].map(normalised)
        };
        let low = ends(0.0).into_iter().fold(0.0, f64::min);
        let high = ends(255.0).into_iter().fold(0.0, f64::max);
        Self {
            output: whole(low, high),
            normalisation: Some(normalisation),
        }
    }
}

/// The finest code in which nothing of [low, high], which holds 0, is clipped.
///
/// The zero point is a whole number, so that one end mostly has a byte to spare. Were the scale simply a 255th of the range,
/// pixels around a mean of 127.5 would all lie halfway between two bytes, and half of the bytes would stay unused.
fn whole(low: f64, high: f64) -> Affine {
    let ideal = -low / (high - low).max(1e-8) * 255.0;
    let scale = |zero_point: f64| {
        let below = if low < 0.0 { -low / zero_point } else { 0.0 };
        let above = if high > 0.0 {
            high / (255.0 - zero_point)
        } else {
            0.0
        };
        below.max(above)
    };
    let [down, up] =
        [ideal.floor(), ideal.ceil()].map(|zero_point| (scale(zero_point), zero_point));
    let (scale, zero_point) = if down.0 < up.0 { down } else { up };
    Affine {
        scale: scale.max(1e-8) as f32,
        zero_point: zero_point as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_mean_makes_the_pixel_the_byte() {
        let code = PixelCode::new(Normalisation {
            mean: [127.0; 3],
            std: [128.0; 3],
        });
        assert_eq!(code.normalisation, None);
        assert_eq!(
            (code.output.scale, code.output.zero_point),
            (1.0 / 128.0, 127)
        );
    }

    #[test]
    fn other_normalisations_keep_their_ends_and_their_levels() {
        let imagenet = Normalisation {
            mean: [123.675, 116.28, 103.53],
            std: [58.395, 57.12, 57.375],
        };
        let centred = Normalisation {
            mean: [127.5; 3],
            std: [127.5; 3],
        };
        for (normalisation, levels) in [(centred, 255), (imagenet, 200)] {
            let code = PixelCode::new(normalisation);
            assert_eq!(code.normalisation, Some(normalisation));
            let Affine { scale, zero_point } = code.output;
            for channel in 0..3 {
                let byte = |pixel: u8| {
                    let real = (f32::from(pixel) - normalisation.mean[channel])
                        / normalisation.std[channel];
                    (real / scale).round_ties_even() + f32::from(zero_point)
                };
                assert!(byte(0) >= 0.0 && byte(255) <= 255.0, "channel {channel}");
                let different = (0..255)
                    .filter(|&pixel| byte(pixel) != byte(pixel + 1))
                    .count();
                assert!(different + 1 >= levels, "channel {channel}: {different}");
            }
        }
    }
}
