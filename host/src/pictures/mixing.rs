//! Mixup and cutmix: photos of a batch mixed in pairs, targets with them.
//!
//! H. Zhang et al., "mixup", arXiv 1710.09412; S. Yun et al., "CutMix", arXiv 1905.04899.

use graft_shared::resize::Window;

use super::augmentation::Augmentation;
use super::geometry::rectangle;
use crate::random::{Purpose, Random};

/// What happens to a pair of photos: both keep the same share of themselves and get the rest from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mix {
    /// Every pixel keeps that share.
    Blend(f32),
    /// That part changes places.
    Swap(Window),
}

/// Mixes the photos of a batch in pairs: the first with the last, the second with the last but one.
///
/// `input` is f32 `[n, 3, size, size]`, `targets` f32 `[n, classes]`. The one in the middle of an odd number stays.
pub(super) fn mix(
    augmentation: &Augmentation,
    (seed, step): (u64, u64),
    size: usize,
    input: &mut [f32],
    targets: &mut [f32],
    photos: usize,
) {
    if photos == 0 {
        return;
    }
    let (values, classes) = (input.len() / photos, targets.len() / photos);
    let (first, last) = input.split_at_mut(photos.div_ceil(2) * values);
    let (first_targets, last_targets) = targets.split_at_mut(photos.div_ceil(2) * classes);
    let pictures = first
        .chunks_exact_mut(values)
        .zip(last.chunks_exact_mut(values).rev());
    let targets = first_targets
        .chunks_exact_mut(classes)
        .zip(last_targets.chunks_exact_mut(classes).rev());
    for (pair, ((one, other), targets)) in pictures.zip(targets).enumerate() {
        let mut random = Random::new(seed, Purpose::Mixing, [step, pair as u64]);
        match draw(augmentation, size, &mut random) {
            None => {}
            Some(Mix::Blend(kept)) => {
                blend(one, other, kept);
                blend(targets.0, targets.1, kept);
            }
            Some(Mix::Swap(window)) => {
                swap(one, other, size, window);
                let swapped = (window.width * window.height) as f32 / (size * size) as f32;
                blend(targets.0, targets.1, 1.0 - swapped);
            }
        }
    }
}

fn draw(augmentation: &Augmentation, size: usize, random: &mut Random) -> Option<Mix> {
    if !random.chance(augmentation.mixing) {
        return None;
    }
    let blends = match (augmentation.mixup > 0.0, augmentation.cutmix > 0.0) {
        (true, true) => random.chance(0.5),
        (mixup, _) => mixup,
    };
    Some(if blends {
        Mix::Blend(random.beta(augmentation.mixup) as f32)
    } else {
        let share = random.beta(augmentation.cutmix);
        Mix::Swap(rectangle(size, share, 1.0, random))
    })
}

fn blend(one: &mut [f32], other: &mut [f32], kept: f32) {
    let given = 1.0 - kept;
    for (one, other) in one.iter_mut().zip(other) {
        (*one, *other) = (kept * *one + given * *other, kept * *other + given * *one);
    }
}

fn swap(one: &mut [f32], other: &mut [f32], size: usize, window: Window) {
    let planes = one
        .chunks_exact_mut(size * size)
        .zip(other.chunks_exact_mut(size * size));
    for (one, other) in planes {
        for y in window.top..window.top + window.height {
            let start = y * size + window.left;
            one[start..][..window.width].swap_with_slice(&mut other[start..][..window.width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 6;
    const PHOTOS: usize = 5;

    /// A batch of photos each of one value, its class's number, mixed.
    fn mixed(augmentation: &Augmentation, step: u64) -> (Vec<f32>, Vec<f32>) {
        let values = 3 * SIZE * SIZE;
        let mut input: Vec<f32> = (0..PHOTOS * values)
            .map(|index| (index / values) as f32)
            .collect();
        let mut targets = vec![0.0; PHOTOS * PHOTOS];
        for photo in 0..PHOTOS {
            targets[photo * PHOTOS + photo] = 1.0;
        }
        mix(
            augmentation,
            (9, step),
            SIZE,
            &mut input,
            &mut targets,
            PHOTOS,
        );
        (input, targets)
    }

    fn both() -> Augmentation {
        Augmentation {
            mixing: 1.0,
            ..Augmentation::strong()
        }
    }

    #[test]
    fn targets_are_the_shares_of_the_pixels_and_sum_to_one() {
        let (mut blended, mut swapped) = (0, 0);
        for step in 0..200 {
            let (input, targets) = mixed(&both(), step);
            for (photo, (pixels, targets)) in input
                .chunks_exact(3 * SIZE * SIZE)
                .zip(targets.chunks_exact(PHOTOS))
                .enumerate()
            {
                assert!((targets.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                let partner = PHOTOS - 1 - photo;
                for (class, target) in targets.iter().enumerate() {
                    assert!(*target == 0.0 || class == photo || class == partner);
                }
                // The mean of the classes' numbers, by targets and by pixels.
                let by_targets: f32 = targets
                    .iter()
                    .zip(0_u8..)
                    .map(|(t, c)| t * f32::from(c))
                    .sum();
                let by_pixels = pixels.iter().sum::<f32>() / pixels.len() as f32;
                assert!((by_targets - by_pixels).abs() < 1e-4);
                if photo == 0 {
                    let whole = pixels.iter().all(|value| value.fract() == 0.0);
                    *(if whole { &mut swapped } else { &mut blended }) += 1;
                }
            }
        }
        assert!(blended > 50 && swapped > 50, "{blended} {swapped}");
    }

    #[test]
    fn the_settings_say_which_and_how_often() {
        let (unmixed, _) = mixed(&Augmentation::none(), 1);
        let is_unmixed = |augmentation: &Augmentation, step| mixed(augmentation, step).0 == unmixed;
        assert!((0..50).all(|step| is_unmixed(&Augmentation::light(), step)));
        let only_cutmix = Augmentation {
            mixup: 0.0,
            ..both()
        };
        let only_mixup = Augmentation {
            cutmix: 0.0,
            ..both()
        };
        for step in 0..50 {
            let (input, _) = mixed(&only_cutmix, step);
            assert!(input.iter().all(|value| value.fract() == 0.0));
            let (input, _) = mixed(&only_mixup, step);
            assert!(
                input[..3 * SIZE * SIZE]
                    .windows(2)
                    .all(|pair| pair[0] == pair[1])
            );
        }
        assert_ne!(mixed(&both(), 1), mixed(&both(), 2));
    }
}
