//! What happens to one photo, drawn by the settings.

use graft_shared::resize::{Area, Window};

use super::augmentation::{Augmentation, Operation};
use super::colour::{Colours, Tones};
use super::geometry::{Warp, crop, rectangle};
use crate::random::Random;

/// What happens to one photo, in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// The part of the photo that becomes the picture.
    pub(super) crop: Area,
    /// What its channels' values become, one table after the other.
    pub(super) tones: Vec<Tones>,
    pub(super) warp: Option<Warp>,
    pub(super) mirror: bool,
    pub(super) colours: Option<Colours>,
    /// What is erased, in pixels of the picture.
    pub(super) erased: Option<Window>,
}

impl Change {
    /// Draws the change of a photo of `width` x `height` pixels into a picture of `size` x `size`; `mean` is the mean
    /// colour in pixel units.
    pub(super) fn draw(
        augmentation: &Augmentation,
        (width, height): (usize, usize),
        size: usize,
        mean: [f32; 3],
        random: &mut Random,
    ) -> Self {
        let mut change = Self {
            crop: crop(
                width,
                height,
                augmentation.smallest_crop,
                augmentation.crop_stretch,
                random,
            ),
            tones: Vec::new(),
            warp: None,
            mirror: random.chance(augmentation.mirror),
            colours: None,
            erased: None,
        };
        for _ in 0..augmentation.operations_per_photo {
            let index = random.below(augmentation.operations.len());
            if let Some(&operation) = augmentation.operations.get(index) {
                change.add(operation, f64::from(augmentation.magnitude), mean, random);
            }
        }
        if random.chance(augmentation.erasing) {
            let share = random.between(SMALLEST_ERASED, LARGEST_ERASED);
            let shape = ERASED_STRETCH.powf(random.between(-1.0, 1.0));
            change.erased = Some(rectangle(size, share, shape, random));
        }
        change
    }

    fn add(&mut self, operation: Operation, magnitude: f64, mean: [f32; 3], random: &mut Random) {
        let mut signed = |most: f64| random.between(-most, most) * magnitude;
        match operation {
            Operation::Rotate => self.warp(Warp::rotation(signed(30.0))),
            Operation::ShearX => self.warp(Warp::shear(signed(0.3), 0.0)),
            Operation::ShearY => self.warp(Warp::shear(0.0, signed(0.3))),
            Operation::TranslateX => self.warp(Warp::translation(signed(0.3), 0.0)),
            Operation::TranslateY => self.warp(Warp::translation(0.0, signed(0.3))),
            Operation::Brightness => {
                let factor = 1.0 + signed(0.9) as f32;
                self.colours(Colours::scale([factor; 3]));
            }
            Operation::Contrast => {
                self.colours(Colours::contrast(1.0 + signed(0.9) as f32, mean));
            }
            Operation::Saturation => self.colours(Colours::saturation(1.0 + signed(0.9) as f32)),
            Operation::Hue => self.colours(Colours::hue(signed(36.0))),
            Operation::Tint => {
                let factors = [(); 3].map(|()| 1.0 + signed(0.3) as f32);
                self.colours(Colours::scale(factors));
            }
            Operation::Gamma => self.tones.push(Tones::gamma(2.0_f64.powf(signed(1.0)))),
            Operation::Posterize => {
                let bits = 8.0 - signed(6.0).abs();
                self.tones.push(Tones::posterize((bits + 0.5) as u32));
            }
            Operation::Solarize => {
                let threshold = 256.0 - signed(256.0).abs();
                self.tones.push(Tones::solarize(threshold as u16));
            }
        }
    }

    fn warp(&mut self, warp: Warp) {
        self.warp = Some(self.warp.unwrap_or(Warp::IDENTITY).then(warp));
    }

    fn colours(&mut self, colours: Colours) {
        self.colours = Some(self.colours.unwrap_or(Colours::IDENTITY).then(colours));
    }
}

/// Share of the picture that is erased, at least, before what lies outside is cut off.
const SMALLEST_ERASED: f64 = 0.02;
/// At most.
const LARGEST_ERASED: f64 = 0.33;
/// How much wider than high, or higher than wide, what is erased may be.
const ERASED_STRETCH: f64 = 3.3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn draw(augmentation: &Augmentation, number: u64) -> Change {
        let mut random = Random::new(1, Purpose::Change, [number, 0]);
        Change::draw(augmentation, (300, 280), 64, [127.0; 3], &mut random)
    }

    #[test]
    fn settings_say_how_often_something_happens() {
        let changes: Vec<Change> = (0..4_000)
            .map(|number| draw(&Augmentation::strong(), number))
            .collect();
        let share = |happens: fn(&Change) -> bool| {
            changes.iter().filter(|change| happens(change)).count() as f64 / 4_000.0
        };
        assert!((share(|change| change.mirror) - 0.5).abs() < 0.03);
        assert!((share(|change| change.erased.is_some()) - 0.25).abs() < 0.03);
        // 5 of 13 operations warp, 5 change colours, 3 tones; two draws.
        let two = |of: f64| 1.0 - (1.0 - of / 13.0) * (1.0 - of / 13.0);
        assert!((share(|change| change.warp.is_some()) - two(5.0)).abs() < 0.03);
        assert!((share(|change| change.colours.is_some()) - two(5.0)).abs() < 0.03);
        assert!((share(|change| !change.tones.is_empty()) - two(3.0)).abs() < 0.03);
        assert!(changes.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn without_augmentation_the_middle_stays_as_it_is() {
        let change = draw(&Augmentation::none(), 3);
        let middle = Area {
            left: 10.0,
            top: 0.0,
            width: 280.0,
            height: 280.0,
        };
        let expected = Change {
            crop: middle,
            tones: Vec::new(),
            warp: None,
            mirror: false,
            colours: None,
            erased: None,
        };
        assert_eq!(change, expected);
    }

    #[test]
    fn at_magnitude_zero_operations_do_nothing() {
        let augmentation = Augmentation {
            operations_per_photo: 20,
            magnitude: 0.0,
            ..Augmentation::strong()
        };
        for number in 0..50 {
            let change = draw(&augmentation, number);
            assert_eq!(change.warp.unwrap_or(Warp::IDENTITY), Warp::IDENTITY);
            for tones in change.tones {
                let mut values = [0, 1, 77, 128, 255];
                tones.apply(&mut values);
                assert_eq!(values, [0, 1, 77, 128, 255]);
            }
            let colour = [200.0, 3.0, 99.0];
            let found = change.colours.unwrap_or(Colours::IDENTITY).of(colour);
            for (found, value) in found.iter().zip(colour) {
                assert!((found - value).abs() < 1e-3);
            }
        }
    }
}
