//! The settings of what happens to training photos.

use graft_shared::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What happens to training photos. Probabilities and shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Smallest share of the photo's area that a random crop keeps; 1 keeps the middle square of each photo.
    pub smallest_crop: f32,
    /// How much wider than high, or higher than wide, a crop may be before it is made square: 1 to 4.
    pub crop_stretch: f32,
    /// Probability that a photo is mirrored.
    pub mirror: f32,
    /// What may be done to a photo.
    pub operations: Vec<Operation>,
    /// How many of the operations, drawn one by one, are done to each photo.
    pub operations_per_photo: usize,
    /// How strongly, at most: 0 not at all, 1 as strongly as [`Operation`] says.
    pub magnitude: f32,
    /// Probability that a rectangle of a photo is erased.
    pub erasing: f32,
    /// Share of the photos that are mixed with another one of their batch.
    pub mixing: f32,
    /// Photos are mixed pixel by pixel, in shares drawn from Beta(`mixup`, `mixup`); 0 never, else 0.05 to 1.
    pub mixup: f32,
    /// A rectangle comes from the other photo, its share of the area drawn from Beta(`cutmix`, `cutmix`); 0 never, else
    /// 0.05 to 1. With `mixup`, each has one half of the mixed photos.
    pub cutmix: f32,
}

/// Something that may be done to a photo: evenly distributed up to the magnitude, in either direction where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Turned by up to 30 degrees.
    Rotate,
    /// Rows shifted against each other by up to 0.3 of their distance.
    ShearX,
    /// Columns shifted against each other by up to 0.3 of their distance.
    ShearY,
    /// Moved sideways by up to 0.3 of the width.
    TranslateX,
    /// Moved up or down by up to 0.3 of the height.
    TranslateY,
    /// All channels by a factor of up to 1.9, down to 0.1.
    Brightness,
    /// The distance to the mean colour by a factor of up to 1.9, down to 0.1.
    Contrast,
    /// The distance to grey by a factor of up to 1.9, down to 0.1.
    Saturation,
    /// Colours turned about the grey axis by up to 36 degrees.
    Hue,
    /// Each channel by a factor of its own of up to 1.3, down to 0.7: another white balance.
    Tint,
    /// Middle tones by an exponent of up to 2, down to 1/2.
    Gamma,
    /// Fewer tones: down to 2 bits a channel.
    Posterize,
    /// Bright tones inverted: from 255 down to all.
    Solarize,
}

impl Operation {
    /// Those that a photo may have met before it was taken: another light, another camera, another angle.
    pub const NATURAL: [Self; 11] = [
        Self::Rotate,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Brightness,
        Self::Contrast,
        Self::Saturation,
        Self::Hue,
        Self::Tint,
        Self::Gamma,
    ];
}

impl Augmentation {
    /// The middle of each photo as it is.
    #[must_use]
    pub fn none() -> Self {
        Self {
            smallest_crop: 1.0,
            crop_stretch: 1.0,
            mirror: 0.0,
            operations: Vec::new(),
            operations_per_photo: 0,
            magnitude: 0.0,
            erasing: 0.0,
            mixing: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
        }
    }

    /// For short trainings: crops, mirror images, small natural operations.
    #[must_use]
    pub fn light() -> Self {
        Self {
            smallest_crop: 0.35,
            crop_stretch: 4.0 / 3.0,
            mirror: 0.5,
            operations: Operation::NATURAL.to_vec(),
            operations_per_photo: 2,
            magnitude: 0.3,
            ..Self::none()
        }
    }

    /// For long trainings: all there is. E. Cubuk et al., "RandAugment", arXiv 1909.13719; Z. Zhong et al., "Random
    /// erasing", arXiv 1708.04896; H. Zhang et al., "mixup", arXiv 1710.09412; S. Yun et al., "CutMix", arXiv 1905.04899.
    #[must_use]
    pub fn strong() -> Self {
        let mut operations = Operation::NATURAL.to_vec();
        operations.extend([Operation::Posterize, Operation::Solarize]);
        Self {
            smallest_crop: 0.2,
            operations,
            magnitude: 0.6,
            erasing: 0.25,
            mixing: 0.8,
            mixup: 0.2,
            cutmix: 1.0,
            ..Self::light()
        }
    }

    /// Checks that the numbers make sense.
    ///
    /// # Errors
    /// One that is outside what its field says; smallest crops below 0.01; operations per photo without operations, or
    /// more than 100; mixing without mixup and cutmix.
    pub fn validate(&self) -> Result<()> {
        // A NaN is in no range.
        for (name, value, range) in [
            ("smallest_crop", self.smallest_crop, 0.01..=1.0),
            ("crop_stretch", self.crop_stretch, 1.0..=4.0),
            ("mirror", self.mirror, 0.0..=1.0),
            ("magnitude", self.magnitude, 0.0..=1.0),
            ("erasing", self.erasing, 0.0..=1.0),
            ("mixing", self.mixing, 0.0..=1.0),
        ] {
            if !range.contains(&value) {
                return Err(Error::new(format!(
                    "{name} of {value}; from {} to {} is possible",
                    range.start(),
                    range.end()
                )));
            }
        }
        for (name, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if value != 0.0 && !(0.05..=1.0).contains(&value) {
                return Err(Error::new(format!(
                    "{name} of {value}; 0 or from 0.05 to 1 is possible"
                )));
            }
        }
        if self.mixing > 0.0 && self.mixup == 0.0 && self.cutmix == 0.0 {
            return Err(Error::new("mixing needs mixup or cutmix above 0"));
        }
        let most = if self.operations.is_empty() { 0 } else { 100 };
        if self.operations_per_photo > most {
            return Err(Error::new(format!(
                "{} operations per photo; at most {most} of these {} are possible",
                self.operations_per_photo,
                self.operations.len()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        for augmentation in [
            Augmentation::none(),
            Augmentation::light(),
            Augmentation::strong(),
        ] {
            augmentation.validate().unwrap();
        }
        type Break = fn(&mut Augmentation);
        let broken: [(Break, &str); 6] = [
            (|broken| broken.smallest_crop = 0.0, "smallest_crop of 0;"),
            (|broken| broken.mirror = f32::NAN, "mirror of NaN;"),
            (|broken| broken.mixup = 0.01, "mixup of 0.01;"),
            (|broken| broken.operations.clear(), "2 operations per photo"),
            (|broken| broken.crop_stretch = 0.75, "crop_stretch of 0.75;"),
            (
                |broken| (broken.mixup, broken.cutmix) = (0.0, 0.0),
                "mixing needs",
            ),
        ];
        for (change, reason) in broken {
            let mut augmentation = Augmentation::strong();
            change(&mut augmentation);
            let error = augmentation.validate().unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
    }
}
