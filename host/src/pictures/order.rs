//! Which photo comes when: in every epoch each photo once, or each class as often as the balance says.
//!
//! The place of a photo is computed, not kept: an epoch's order is a permutation by a Feistel network with cycle walking
//! (J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

use graft_shared::error::{Error, Result};

use crate::random::{Purpose, Random, mixed};

/// The order of the photos of a training.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    /// Photos, and so positions of an epoch.
    photos: usize,
    /// Classes with at least one photo.
    classes: Vec<Class>,
}

/// The photos of a class.
#[derive(Clone, Debug)]
struct Class {
    photos: Vec<usize>,
    /// Positions that it has in each epoch.
    quota: usize,
    /// Positions of the classes before it.
    before: usize,
}

impl Order {
    /// The order of the photos whose classes are `classes`.
    ///
    /// A class of n photos has a share of each epoch in proportion to n^`frequency_power`: at 1 each photo comes once, at
    /// 0 each class equally often. Also where photos of a class come several times, each of them comes equally often.
    ///
    /// # Errors
    /// No photos, or a power outside 0..=1.
    pub fn new(classes: &[usize], frequency_power: f32, seed: u64) -> Result<Self> {
        if classes.is_empty() {
            return Err(Error::new("there is no photo to train on"));
        }
        if !(0.0..=1.0).contains(&frequency_power) {
            return Err(Error::new(format!(
                "a power of the class frequency of {frequency_power}; from 0 to 1 is possible"
            )));
        }
        let mut members = vec![Vec::new(); classes.iter().max().map_or(0, |most| most + 1)];
        for (photo, &class) in classes.iter().enumerate() {
            members[class].push(photo);
        }
        members.retain(|photos| !photos.is_empty());
        let quotas = quotas(&members, classes.len(), f64::from(frequency_power));
        let mut before = 0;
        let classes = members.into_iter().zip(quotas).map(|(photos, quota)| {
            let class = Class {
                photos,
                quota,
                before,
            };
            before += quota;
            class
        });
        Ok(Self {
            seed,
            classes: classes.collect(),
            photos: before,
        })
    }

    /// Positions of an epoch: as many as there are photos.
    #[must_use]
    pub fn epoch_len(&self) -> usize {
        self.photos
    }

    /// The photo at a position, counted from the beginning of the training over all epochs.
    #[must_use]
    pub fn at(&self, position: u64) -> usize {
        let (epoch, index) = divided(position, self.photos);
        let key = Random::new(self.seed, Purpose::Epoch, [epoch, 0]).bits();
        let slot = permuted(index, self.photos, key);
        let class_index = self.classes.partition_point(|class| class.before <= slot) - 1;
        let class = &self.classes[class_index];
        // Over all epochs the class's own positions are counted on, and every round of its photos is shuffled anew.
        let turn = epoch * class.quota as u64 + (slot - class.before) as u64;
        let (round, index) = divided(turn, class.photos.len());
        let key = Random::new(self.seed, Purpose::Class, [class_index as u64, round]).bits();
        class.photos[permuted(index, class.photos.len(), key)]
    }
}

fn divided(number: u64, by: usize) -> (u64, usize) {
    (number / by as u64, (number % by as u64) as usize)
}

/// Shares of `total` in proportion to each class's size to the `power`, by largest remainders.
fn quotas(classes: &[Vec<usize>], total: usize, power: f64) -> Vec<usize> {
    let weights: Vec<f64> = classes
        .iter()
        .map(|photos| (photos.len() as f64).powf(power))
        .collect();
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights
        .iter()
        .map(|weight| total as f64 * weight / sum)
        .collect();
    let mut quotas: Vec<usize> = shares.iter().map(|&share| share as usize).collect();
    let missing = total - quotas.iter().sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..classes.len()).collect();
    by_remainder.sort_by(|&one, &other| shares[other].fract().total_cmp(&shares[one].fract()));
    for &class in &by_remainder[..missing] {
        quotas[class] += 1;
    }
    quotas
}

const ROUNDS: u64 = 8;

/// Where a permutation of `0..len`, one for each key, puts `index`, which is below `len`.
fn permuted(index: usize, len: usize, key: u64) -> usize {
    let bits = usize::BITS - (len - 1).leading_zeros();
    let half_bits = bits.div_ceil(2).max(1);
    let mask = (1 << half_bits) - 1;
    let mut value = index as u64;
    loop {
        let (mut left, mut right) = (value >> half_bits, value & mask);
        for round in 0..ROUNDS {
            let noise = mixed(mixed(key ^ round) ^ right) & mask;
            (left, right) = (right, left ^ noise);
        }
        value = left << half_bits | right;
        if value < len as u64 {
            return value as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn epoch(order: &Order, epoch: usize) -> Vec<usize> {
        let len = order.epoch_len();
        (epoch * len..(epoch + 1) * len)
            .map(|position| order.at(position as u64))
            .collect()
    }

    #[test]
    fn every_epoch_has_each_photo_once_in_an_order_of_its_own() {
        for len in [1, 2, 3, 40, 257] {
            let classes: Vec<usize> = (0..len).map(|photo| photo * photo % 5).collect();
            let order = Order::new(&classes, 1.0, 3).unwrap();
            let epochs: Vec<Vec<usize>> = (0..20).map(|number| epoch(&order, number)).collect();
            for photos in &epochs {
                let mut sorted = photos.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..len).collect::<Vec<_>>());
            }
            assert!(len < 40 || epochs.windows(2).all(|pair| pair[0] != pair[1]));
            let other_seed = Order::new(&classes, 1.0, 4).unwrap();
            assert!(len < 40 || epoch(&other_seed, 0) != epochs[0]);
        }
    }

    #[test]
    fn balance_gives_each_class_its_share_and_each_of_its_photos_the_same() {
        // 90 photos of class 0, 9 of class 2, 1 of class 3; none of class 1.
        let classes: Vec<usize> = (0..100)
            .map(|photo| match photo {
                0..90 => 0,
                90..99 => 2,
                _ => 3,
            })
            .collect();
        for (power, shares) in [(1.0, [90, 9, 1]), (0.5, [70, 22, 8]), (0.0, [34, 33, 33])] {
            let order = Order::new(&classes, power, 1).unwrap();
            let mut counts = [0; 100];
            for number in 0..9 {
                for photo in epoch(&order, number) {
                    counts[photo] += 1;
                }
            }
            for (range, share) in [0..90, 90..99, 99..100].into_iter().zip(shares) {
                let counts = &counts[range];
                assert_eq!(counts.iter().sum::<usize>(), 9 * share, "power {power}");
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 1, "power {power}: {counts:?}");
            }
        }
    }

    #[test]
    fn small_permutations_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for key in 0..24_000 {
            let permutation = [0, 1, 2, 3].map(|index| permuted(index, 4, mixed(key)));
            *counts.entry(permutation).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        assert!(
            counts.values().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn refuses_what_makes_no_order() {
        assert!(Order::new(&[], 1.0, 0).is_err());
        assert!(Order::new(&[0], 1.5, 0).is_err());
        assert!(Order::new(&[0], f32::NAN, 0).is_err());
    }
}
