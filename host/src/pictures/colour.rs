//! Tone and colour of a training picture: a table for each channel's values, and an affine map of its colours.

/// What each value of a channel becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tones([u8; 256]);

impl Tones {
    /// 255 (v / 255)^`exponent`.
    pub(super) fn gamma(exponent: f64) -> Self {
        Self::of(|value| ((f64::from(value) / 255.0).powf(exponent) * 255.0 + 0.5) as u8)
    }

    /// The upper `bits` bits, from 1 to 8.
    pub(super) fn posterize(bits: u32) -> Self {
        Self::of(|value| value & (255 << (8 - bits)) as u8)
    }

    /// Values from `threshold` on inverted: at 256 none.
    pub(super) fn solarize(threshold: u16) -> Self {
        Self::of(|value| {
            if u16::from(value) < threshold {
                value
            } else {
                255 - value
            }
        })
    }

    fn of(tone: impl Fn(u8) -> u8) -> Self {
        let mut tones = [0; 256];
        for (value, output) in (0..=255).zip(&mut tones) {
            *output = tone(value);
        }
        Self(tones)
    }

    /// Replaces each value.
    pub(super) fn apply(&self, values: &mut [u8]) {
        for value in values {
            *value = self.0[usize::from(*value)];
        }
    }
}

/// An affine map of colours in pixel units: each channel of the result is the sum of red, green, blue and 1, each times
/// its factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colours([[f32; 4]; 3]);

/// How bright red, green and blue are (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl Colours {
    pub(super) const IDENTITY: Self = Self([
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0],
    ]);

    /// What a colour becomes, within 0..=255.
    #[inline(always)]
    pub(super) fn of(&self, [red, green, blue]: [f32; 3]) -> [f32; 3] {
        self.0.map(|factors| {
            let sum = factors[0] * red + factors[1] * green + factors[2] * blue + factors[3];
            sum.clamp(0.0, 255.0)
        })
    }

    /// Each channel by its factor.
    pub(super) fn scale(factors: [f32; 3]) -> Self {
        let mut colours = Self::IDENTITY;
        for (channel, factor) in factors.into_iter().enumerate() {
            colours.0[channel][channel] = factor;
        }
        colours
    }

    /// The distance to `middle` by `factor`.
    pub(super) fn contrast(factor: f32, middle: [f32; 3]) -> Self {
        let mut colours = Self::scale([factor; 3]);
        for (row, middle) in colours.0.iter_mut().zip(middle) {
            row[3] = middle - factor * middle;
        }
        colours
    }

    /// The distance to the grey of the same brightness by `factor`.
    pub(super) fn saturation(factor: f32) -> Self {
        let mut colours = Self::scale([factor; 3]);
        for row in &mut colours.0 {
            for (value, luma) in row.iter_mut().zip(LUMA) {
                *value += (1.0 - factor) * luma;
            }
        }
        colours
    }

    /// Turned about the grey axis (Rodrigues' formula for the axis (1, 1, 1)).
    pub(super) fn hue(degrees: f64) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let even = (1.0 - cosine) / 3.0;
        let odd = sine / 3.0_f64.sqrt();
        let [same, next, last] = [even + cosine, even - odd, even + odd].map(|value| value as f32);
        Self([
            [same, next, last, 0.0],
            [last, same, next, 0.0],
            [next, last, same, 0.0],
        ])
    }

    /// This one, and of its result `next`.
    pub(super) fn then(self, next: Self) -> Self {
        Self(next.0.map(|[red, green, blue, one]| {
            let mut row = [0.0, 0.0, 0.0, one];
            for (factor, source) in [red, green, blue].into_iter().zip(self.0) {
                for (value, source) in row.iter_mut().zip(source) {
                    *value += factor * source;
                }
            }
            row
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: [f32; 3], expected: [f32; 3]) {
        for (found, value) in found.iter().zip(expected) {
            assert!((found - value).abs() < 1e-3, "{found}, not {expected:?}");
        }
    }

    #[test]
    fn colours_become_what_they_should() {
        let colour = [200.0, 100.0, 50.0];
        let applied = |colours: Colours, colour| colours.of(colour);
        near(applied(Colours::IDENTITY, colour), colour);
        near(
            applied(Colours::scale([0.5; 3]), colour),
            [100.0, 50.0, 25.0],
        );
        let contrast = Colours::contrast(0.5, [100.0, 100.0, 0.0]);
        near(applied(contrast, colour), [150.0, 100.0, 25.0]);
        let grey = 0.299 * 200.0 + 0.587 * 100.0 + 0.114 * 50.0;
        near(applied(Colours::saturation(0.0), colour), [grey; 3]);
        near(applied(Colours::saturation(1.0), colour), colour);
        near(applied(Colours::hue(120.0), colour), [50.0, 200.0, 100.0]);
        near(applied(Colours::hue(77.0), [90.0; 3]), [90.0; 3]);
        let both = Colours::hue(120.0).then(contrast);
        near(
            applied(both, colour),
            applied(contrast, [50.0, 200.0, 100.0]),
        );
    }

    #[test]
    fn tones_become_what_they_should() {
        let mut values = [0, 3, 64, 128, 200, 255];
        Tones::solarize(128).apply(&mut values);
        assert_eq!(values, [0, 3, 64, 127, 55, 0]);
        Tones::posterize(2).apply(&mut values);
        assert_eq!(values, [0, 0, 64, 64, 0, 0]);
        Tones::gamma(0.5).apply(&mut values);
        assert_eq!(values, [0, 0, 128, 128, 0, 0]);
    }
}
