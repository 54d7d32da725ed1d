//! Photos of one label that were taken of the same thing on the same occasion, by the distance of their bottlenecks.
//!
//! Agglomerative clustering with average linkage (Sokal and Michener, 1958; nearest-neighbour chains, Murtagh, 1983) of
//! the cosine distances within a label, cut at a part of the median distance between photos of different labels: what is
//! that near is one occasion for this backbone, whatever the labels are.

use graft_shared::error::{Context, Result};
use rayon::prelude::*;

use super::union::Union;
use crate::features::Bottlenecks;

/// Clusters are cut at this part of the median distance between photos of different labels.
const OCCASION: f32 = 1.0 / 3.0;
/// Photos nearer than this part of it show the same: they stay together in any case.
const SAME: f32 = 0.1;
/// Where only the first rule joins them, photos of a label stay in at least so many clusters: below, a label would be
/// one occasion and could not be tested.
const MIN_CLUSTERS: usize = 5;
/// Photos that are clustered at once: their distances take 4 bytes a pair.
const MAX_CLUSTERED: usize = 4096;
/// Pairs whose median distance is taken.
const PAIRS: usize = 20_000;

/// Distances that count as one occasion, and as the same picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Thresholds {
    /// Cosine distance, average linkage.
    pub(super) occasion: f32,
    /// Cosine distance, average linkage.
    pub(super) same: f32,
}

/// Some bottlenecks, of unit length, so that a dot product is a cosine.
#[derive(Debug)]
struct Directions {
    values: Vec<f32>,
    len: usize,
}

impl Directions {
    /// Of the photos `indices`.
    fn of(bottlenecks: &Bottlenecks, indices: &[usize]) -> Result<Self> {
        let len = bottlenecks.length();
        let unit = |row: &mut [f32]| {
            let norm = dot(row, row).sqrt().max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value /= norm);
        };
        let values = bottlenecks.rows(indices, unit);
        let values = values.context("reading the bottlenecks")?;
        Ok(Self { values, len })
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.len..(index + 1) * self.len]
    }

    /// Cosine distance, 0 to 2.
    fn distance(&self, a: usize, b: usize) -> f32 {
        cosine_distance(self.row(a), self.row(b))
    }
}

fn cosine_distance(a: &[f32], b: &[f32]) -> f32 {
    (1.0 - dot(a, b)).max(0.0)
}

/// In eight sums of a fixed order: the same bits on every machine and with any number of threads.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a8.iter().zip(b8) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The thresholds for these photos: from pairs at a fixed stride through `order`, which does not depend on file names.
/// `None` where there are no two labels.
///
/// # Errors
/// Bottlenecks that can't be read.
pub(super) fn thresholds(
    bottlenecks: &Bottlenecks,
    classes: &[usize],
    order: &[usize],
) -> Result<Option<Thresholds>> {
    let n = order.len();
    let pairs: Vec<usize> = (1..n)
        .flat_map(|shift| (0..n).map(move |from| (from, (from + shift) % n)))
        .map(|(a, b)| [order[a], order[b]])
        .filter(|&[a, b]| classes[a] != classes[b])
        .take(PAIRS)
        .flatten()
        .collect();
    let mut distances = Vec::with_capacity(pairs.len() / 2);
    for pairs in pairs.chunks(MAX_CLUSTERED) {
        let directions = Directions::of(bottlenecks, pairs)?;
        let first = (0..pairs.len()).step_by(2);
        distances.extend(first.map(|first| directions.distance(first, first + 1)));
    }
    let middle = distances.len() / 2;
    if distances.is_empty() {
        return Ok(None);
    }
    let (_, median, _) = distances.select_nth_unstable_by(middle, f32::total_cmp);
    Ok(Some(Thresholds {
        occasion: *median * OCCASION,
        same: *median * SAME,
    }))
}

/// Joins photos of one class, given by their indices in an order that does not depend on file names.
///
/// # Errors
/// Bottlenecks that can't be read.
pub(super) fn join(
    bottlenecks: &Bottlenecks,
    members: &[usize],
    thresholds: Thresholds,
    union: &mut Union,
) -> Result<()> {
    let mut merges = Vec::new();
    for part in parts(bottlenecks, members.to_vec())? {
        merges.extend(
            linkage(&Directions::of(bottlenecks, &part)?, part.len())
                .into_iter()
                .map(|(a, b, height)| (height, part[a], part[b])),
        );
    }
    merges.retain(|(height, _, _)| *height <= thresholds.occasion);
    merges.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut distinct: Vec<usize> = members.iter().map(|&index| union.find(index)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let mut clusters = distinct.len();
    for (height, a, b) in merges {
        if height > thresholds.same && clusters <= MIN_CLUSTERS {
            break;
        }
        clusters -= usize::from(union.join(a, b));
    }
    Ok(())
}

/// Halves what is too large to cluster, by which of two far photos is nearer: photos of one occasion seldom part.
fn parts(bottlenecks: &Bottlenecks, members: Vec<usize>) -> Result<Vec<Vec<usize>>> {
    if members.len() <= MAX_CLUSTERED {
        return Ok(vec![members]);
    }
    let distances_from = |from: usize| -> Result<Vec<f32>> {
        let from = Directions::of(bottlenecks, &[from])?;
        let mut distances = Vec::with_capacity(members.len());
        for some in members.chunks(MAX_CLUSTERED) {
            let directions = Directions::of(bottlenecks, some)?;
            distances.par_extend(
                (0..some.len())
                    .into_par_iter()
                    .map(|index| cosine_distance(from.row(0), directions.row(index))),
            );
        }
        Ok(distances)
    };
    let farthest = |distances: &[f32]| {
        let far = distances
            .iter()
            .zip(&members)
            .max_by(|a, b| a.0.total_cmp(b.0).then(b.1.cmp(a.1)));
        far.map_or(members[0], |(_, &index)| index)
    };
    let a = farthest(&distances_from(members[0])?);
    let from_a = distances_from(a)?;
    let b = farthest(&from_a);
    let from_b = distances_from(b)?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for ((&index, from_a), from_b) in members.iter().zip(&from_a).zip(&from_b) {
        if from_a <= from_b {
            near.push(index);
        } else {
            far.push(index);
        }
    }
    let least = members.len() / 8;
    if near.len().min(far.len()) < least {
        // A lopsided cut would be repeated often: cut by number.
        near = members;
        far = near.split_off(near.len() / 2);
    }
    let mut found = parts(bottlenecks, near)?;
    found.extend(parts(bottlenecks, far)?);
    Ok(found)
}

/// All merges of average linkage of `n` directions: one of each side, and the distance.
fn linkage(directions: &Directions, n: usize) -> Vec<(usize, usize, f32)> {
    let mut distances: Vec<f32> = vec![0.0; n * n];
    distances
        .par_chunks_mut(n.max(1))
        .enumerate()
        .for_each(|(a, row)| {
            for (b, distance) in row.iter_mut().enumerate() {
                *distance = directions.distance(a, b);
            }
        });
    let mut sizes = vec![1.0f32; n];
    let mut active: Vec<usize> = (0..n).collect();
    let mut chain: Vec<usize> = Vec::new();
    let mut merges = Vec::with_capacity(n.saturating_sub(1));
    while active.len() > 1 {
        let Some(&top) = chain.last() else {
            chain.push(active[0]);
            continue;
        };
        let previous = chain.len().checked_sub(2).map(|i| chain[i]);
        // At equal distance the chain must turn back, or it would never end.
        let mut nearest = previous;
        let mut least = previous.map_or(f32::INFINITY, |p| distances[top * n + p]);
        for &other in &active {
            if other != top && distances[top * n + other] < least {
                least = distances[top * n + other];
                nearest = Some(other);
            }
        }
        match nearest {
            Some(other) if Some(other) == previous => {
                chain.truncate(chain.len() - 2);
                merges.push((top, other, least));
                let (kept, gone) = (top.min(other), top.max(other));
                let (kept_size, gone_size) = (sizes[kept], sizes[gone]);
                active.retain(|&index| index != gone);
                for &index in &active {
                    let mean = (kept_size * distances[kept * n + index]
                        + gone_size * distances[gone * n + index])
                        / (kept_size + gone_size);
                    distances[kept * n + index] = mean;
                    distances[index * n + kept] = mean;
                }
                sizes[kept] += gone_size;
            }
            Some(other) => chain.push(other),
            // Distances that are no numbers: nothing is near.
            None => break,
        }
    }
    merges
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `bursts` far directions, `each` photos near each of them.
    pub(in super::super) fn bursts(bursts: usize, each: usize) -> Bottlenecks {
        let len = bursts.next_power_of_two();
        let mut values = Vec::new();
        for burst in 0..bursts {
            for photo in 0..each {
                let mut row = vec![0.0; len];
                row[burst] = 1.0;
                row[(burst + photo + 1) % len] += 0.02 * photo as f32;
                values.extend(row);
            }
        }
        Bottlenecks::from_rows(values, len)
    }

    #[test]
    fn bursts_are_found_and_nothing_else() {
        let bottlenecks = bursts(40, 5);
        let members: Vec<usize> = (0..200).collect();
        let classes: Vec<usize> = members.iter().map(|i| i / 100).collect();
        let thresholds = thresholds(&bottlenecks, &classes, &members)
            .unwrap()
            .unwrap();
        let mut union = Union::new(200);
        join(&bottlenecks, &members[..100], thresholds, &mut union).unwrap();
        join(&bottlenecks, &members[100..], thresholds, &mut union).unwrap();
        let expected: Vec<Vec<usize>> = (0..40).map(|b| (b * 5..b * 5 + 5).collect()).collect();
        assert_eq!(union.sets(), expected);
    }

    #[test]
    fn a_label_keeps_some_clusters_unless_all_is_the_same() {
        let rows: Vec<f32> = (0..20)
            .flat_map(|i| [(i as f32 * 0.03).cos(), (i as f32 * 0.03).sin()])
            .collect();
        let bottlenecks = Bottlenecks::from_rows(rows, 2);
        let members: Vec<usize> = (0..20).collect();
        let mut union = Union::new(20);
        let loose = Thresholds {
            occasion: 1.0,
            same: 0.0,
        };
        join(&bottlenecks, &members, loose, &mut union).unwrap();
        assert_eq!(
            (0..20).filter(|&i| union.find(i) == i).count(),
            MIN_CLUSTERS
        );
        let all = Thresholds {
            occasion: 1.0,
            same: 1.0,
        };
        join(&bottlenecks, &members, all, &mut union).unwrap();
        assert_eq!(union.sets().len(), 1);
    }

    /// Average linkage by its definition.
    #[test]
    fn heights_are_those_of_the_definition() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let bottlenecks = Bottlenecks::from_rows((0..12 * 6).map(|_| random()).collect(), 6);
        let members: Vec<usize> = (0..12).collect();
        let directions = Directions::of(&bottlenecks, &members).unwrap();
        let mut heights: Vec<f32> = linkage(&directions, members.len())
            .iter()
            .map(|merge| merge.2)
            .collect();
        heights.sort_by(f32::total_cmp);
        let mut clusters: Vec<Vec<usize>> = members.iter().map(|&i| vec![i]).collect();
        for height in heights {
            let mut best = (f32::INFINITY, 0, 0);
            for a in 0..clusters.len() {
                for b in a + 1..clusters.len() {
                    let sum: f32 = clusters[a]
                        .iter()
                        .flat_map(|&x| clusters[b].iter().map(move |&y| (x, y)))
                        .map(|(x, y)| directions.distance(x, y))
                        .sum();
                    let mean = sum / (clusters[a].len() * clusters[b].len()) as f32;
                    if mean < best.0 {
                        best = (mean, a, b);
                    }
                }
            }
            assert!((height - best.0).abs() < 1e-5, "{height} {}", best.0);
            let gone = clusters.remove(best.2);
            clusters[best.1].extend(gone);
        }
        assert_eq!(clusters.len(), 1);
    }
}
