//! A step's number -> its batch.

use std::sync::Arc;

use graft_shared::error::{Error, Result};
use graft_shared::preprocess::Filter;

use super::augmentation::Augmentation;
use super::change::Change;
use super::mixing::mix;
use super::order::Order;
use super::render::{Normalisation, render};
use super::store::Pictures;
use crate::random::{Purpose, Random};

/// What one step of training takes in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The step that it is for.
    pub step: u64,
    /// Photos.
    pub len: usize,
    /// Height and width of a photo in pixels.
    pub size: usize,
    /// f32 `[len, 3, size, size]`, normalised.
    pub input: Vec<f32>,
    /// f32 `[len, classes]`: how much of each photo is of which class; each row sums to 1.
    pub targets: Vec<f32>,
}

/// Makes batches of photos.
#[derive(Debug)]
pub struct Loader {
    pictures: Arc<Pictures>,
    /// The class of each photo.
    classes: Vec<usize>,
    settings: Settings,
    order: Order,
}

/// What batches depend on beside the photos.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Classes that there are.
    pub classes: usize,
    /// Photos of a batch.
    pub batch_len: usize,
    /// What happens to the photos.
    pub augmentation: Augmentation,
    /// How often the photos of a class come: [`Order::new`].
    pub frequency_power: f32,
    /// The filter that the model's preprocessing resizes with.
    pub filter: Filter,
    /// What the model expects of its input.
    pub normalisation: Normalisation,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl Loader {
    /// A loader of all `pictures`, whose classes are `classes`.
    ///
    /// # Errors
    /// Settings that make no sense, no photos, and classes that don't match the photos.
    pub fn new(pictures: Arc<Pictures>, classes: Vec<usize>, settings: Settings) -> Result<Self> {
        settings.augmentation.validate()?;
        if settings.batch_len == 0 {
            return Err(Error::new("a batch has at least one photo"));
        }
        if classes.len() != pictures.len() {
            return Err(Error::new(format!(
                "the classes of {} photos for {} photos",
                classes.len(),
                pictures.len()
            )));
        }
        if let Some(class) = classes.iter().find(|class| **class >= settings.classes) {
            return Err(Error::new(format!(
                "class {class} of {}, counted from 0",
                settings.classes
            )));
        }
        let order = Order::new(&classes, settings.frequency_power, settings.seed)?;
        Ok(Self {
            pictures,
            classes,
            settings,
            order,
        })
    }

    /// Steps that it takes until every photo was seen once, the last of them perhaps with some of the next epoch.
    #[must_use]
    pub fn epoch_steps(&self) -> u64 {
        self.order.epoch_len().div_ceil(self.settings.batch_len) as u64
    }

    /// The batch of a step, of pictures of `size` x `size` pixels, into `batch`, whose memory is used again.
    ///
    /// Batches follow each other without a gap: each is full, and one may end an epoch and begin the next.
    ///
    /// # Errors
    /// A size of 0, and decoded photos that can't be read.
    pub fn fill(&self, step: u64, size: usize, batch: &mut Batch) -> Result<()> {
        let Settings {
            classes,
            batch_len,
            ref augmentation,
            filter,
            ref normalisation,
            seed,
            ..
        } = self.settings;
        let values = 3 * size * size;
        if values == 0 {
            return Err(Error::new("pictures of 0 pixels"));
        }
        batch.step = step;
        batch.len = batch_len;
        batch.size = size;
        batch.input.resize(batch_len * values, 0.0);
        batch.targets.clear();
        batch.targets.resize(batch_len * classes, 0.0);
        let rows = batch
            .input
            .chunks_exact_mut(values)
            .zip(batch.targets.chunks_exact_mut(classes));
        for (position, (planes, targets)) in (step * batch_len as u64..).zip(rows) {
            let photo = self.order.at(position);
            let picture = self.pictures.get(photo)?;
            let mut random = Random::new(seed, Purpose::Change, [position, 0]);
            let change = Change::draw(
                augmentation,
                (picture.width, picture.height),
                size,
                normalisation.mean,
                &mut random,
            );
            render(
                &picture,
                &change,
                size,
                filter,
                normalisation,
                &mut random,
                planes,
            )?;
            targets[self.classes[photo]] = 1.0;
        }
        mix(
            augmentation,
            (seed, step),
            size,
            &mut batch.input,
            &mut batch.targets,
            batch_len,
        );
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing {
    #![allow(clippy::unwrap_used)]

    use graft_shared::preprocess::Pixels;

    use super::*;

    /// 11 photos of 3 classes in batches of 4, with everything that can happen to them.
    pub(crate) fn loader(seed: u64) -> Loader {
        let pixels = |photo: usize| Pixels {
            width: 20 + photo,
            height: 25,
            data: (0..(20 + photo) * 25 * 3)
                .map(|index| (index * (photo + 3) % 251) as u8)
                .collect(),
        };
        let settings = Settings {
            classes: 3,
            batch_len: 4,
            augmentation: Augmentation::strong(),
            frequency_power: 0.5,
            filter: Filter::Bicubic,
            normalisation: Normalisation {
                mean: [124.0, 116.0, 104.0],
                std: [58.0, 57.0, 57.5],
            },
            seed,
        };
        let pictures = Arc::new(Pictures::from((0..11).map(pixels).collect::<Vec<_>>()));
        let classes = (0..11).map(|photo| photo % 4 % 3).collect();
        Loader::new(pictures, classes, settings).unwrap()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn batch(loader: &Loader, step: u64, size: usize) -> Batch {
        let mut batch = Batch::default();
        loader.fill(step, size, &mut batch).unwrap();
        batch
    }

    #[test]
    fn a_batch_depends_on_seed_step_and_size_alone() {
        let loader = testing::loader(3);
        let mut used = batch(&loader, 9, 16);
        loader.fill(5, 8, &mut used).unwrap();
        assert_eq!(used, batch(&testing::loader(3), 5, 8));
        assert_ne!(used.input, batch(&testing::loader(4), 5, 8).input);
        assert_ne!(used.input, batch(&loader, 6, 8).input);
        assert_eq!(loader.epoch_steps(), 3);
    }

    #[test]
    fn batches_have_their_shapes_and_finite_values() {
        let loader = testing::loader(1);
        for step in 0..40 {
            let size = 8 + step as usize % 5;
            let batch = batch(&loader, step, size);
            assert_eq!((batch.step, batch.len, batch.size), (step, 4, size));
            assert_eq!(batch.input.len(), 4 * 3 * size * size);
            assert!(batch.input.iter().all(|value| value.abs() < 3.0));
            assert_eq!(batch.targets.len(), 4 * 3);
            for row in batch.targets.chunks_exact(3) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(row.iter().all(|target| (0.0..=1.0).contains(target)));
            }
        }
    }

    #[test]
    fn without_augmentation_each_photo_comes_once_with_its_class() {
        let mut loader = testing::loader(1);
        loader.settings.augmentation = Augmentation::none();
        loader.order = Order::new(&loader.classes, 1.0, 1).unwrap();
        let mut counts = [0.0; 3];
        for step in 0..11 {
            let batch = batch(&loader, step, 8);
            for row in batch.targets.chunks_exact(3) {
                for (count, target) in counts.iter_mut().zip(row) {
                    *count += target;
                }
            }
        }
        // 4 epochs of 5, 3 and 3 photos.
        assert_eq!(counts, [20.0, 12.0, 12.0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let loader = testing::loader(1);
        let new = |classes: Vec<usize>, change: fn(&mut Settings)| {
            let mut settings = loader.settings.clone();
            change(&mut settings);
            Loader::new(Arc::clone(&loader.pictures), classes, settings).map(drop)
        };
        new(vec![2; 11], |_| ()).unwrap();
        assert!(new(vec![0; 10], |_| ()).is_err());
        assert!(new(vec![3; 11], |_| ()).is_err());
        assert!(new(vec![0; 11], |settings| settings.batch_len = 0).is_err());
        assert!(new(vec![0; 11], |settings| settings.frequency_power = -1.0).is_err());
        let nonsense = |settings: &mut Settings| settings.augmentation.mirror = 2.0;
        assert!(new(vec![0; 11], nonsense).is_err());
        assert!(loader.fill(0, 0, &mut Batch::default()).is_err());
    }
}
