//! Which photo trains, which validates, which tests: stratified by class, decided by the contents of the files.

use std::collections::BTreeMap;

use graft_shared::error::{Error, Result};

use super::{Dataset, Split};

/// How much of each class is put aside, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Percentages {
    /// For validation.
    pub validation: u32,
    /// For testing.
    pub testing: u32,
}

/// Gives every photo its side. Sides that the list or the folders gave are kept: where any photo has one, photos without
/// train, and where none validates, a part of the training photos does. Within a class the photos are ordered by content
/// hash; the first part tests, the next validates, the rest trains: the same files get the same sides under any name, and
/// copies of one file share a side.
///
/// # Errors
/// When the percentages leave nothing to train on.
pub fn split(dataset: &mut Dataset, percentages: Percentages) -> Result<()> {
    if percentages.validation + percentages.testing >= 100 {
        return Err(Error::new(format!(
            "{} % for validation and {} % for testing leave nothing to train on",
            percentages.validation, percentages.testing
        ))
        .hint("`--validation-percentage` and `--testing-percentage` are 10 each by default"));
    }
    let given = dataset.photos.iter().any(|photo| photo.split.is_some());
    if given {
        dataset
            .photos
            .iter_mut()
            .for_each(|photo| photo.split = photo.split.or(Some(Split::Train)));
        if dataset.indices(Split::Validation).is_empty() {
            assign(
                dataset,
                Percentages {
                    testing: 0,
                    ..percentages
                },
            );
            dataset.warnings.push("the given split has no validation side: a part of the training photos takes its place".into());
        }
        if dataset.indices(Split::Test).is_empty() {
            dataset
                .warnings
                .push("the given split has no test side: no accuracy will be measured".into());
        }
    } else {
        assign(dataset, percentages);
    }
    Ok(())
}

/// Puts a part of the photos that train, or have no side yet, aside.
fn assign(dataset: &mut Dataset, percentages: Percentages) {
    let mut by_class: BTreeMap<usize, BTreeMap<[u8; 32], Vec<usize>>> = BTreeMap::new();
    for (index, photo) in dataset.photos.iter().enumerate() {
        if matches!(photo.split, None | Some(Split::Train)) {
            by_class
                .entry(photo.class)
                .or_default()
                .entry(photo.content_hash)
                .or_default()
                .push(index);
        }
    }
    for (class, by_hash) in by_class {
        let distinct = by_hash.len();
        let testing = part(distinct, percentages.testing, 2);
        let validation = part(
            distinct,
            percentages.validation,
            if testing > 0 { 3 } else { 2 },
        );
        if percentages.testing > 0 && testing == 0 {
            let label = dataset.labels.get(class).unwrap_or_default();
            dataset
                .warnings
                .push(format!("`{label}` has too few photos to test on"));
        }
        for (rank, copies) in by_hash.into_values().enumerate() {
            let side = if rank < testing {
                Split::Test
            } else if rank < testing + validation {
                Split::Validation
            } else {
                Split::Train
            };
            copies
                .into_iter()
                .for_each(|index| dataset.photos[index].split = Some(side));
        }
    }
}

/// The share of `count`, rounded, and at least one where the class has `least` photos and a share is wanted.
fn part(count: usize, percent: u32, least: usize) -> usize {
    let share = (count * percent as usize + 50) / 100;
    if percent > 0 && count >= least {
        share.max(1)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use graft_shared::labels::Labels;

    use super::super::Photo;
    use super::*;

    fn dataset(counts: &[usize]) -> Dataset {
        let mut photos = Vec::new();
        for (class, &count) in counts.iter().enumerate() {
            for i in 0..count {
                let content_hash = graft_shared::digest::sha256(format!("{class} {i}").as_bytes());
                photos.push(Photo {
                    path: PathBuf::from(format!("{class}/{i}")),
                    class,
                    content_hash,
                    split: None,
                });
            }
        }
        let labels =
            Labels::new((0..counts.len()).map(|c| format!("class {c}")).collect()).unwrap();
        Dataset {
            labels,
            photos,
            refused: Vec::new(),
            warnings: Vec::new(),
        }
    }

    const TEN: Percentages = Percentages {
        validation: 10,
        testing: 10,
    };

    #[test]
    fn every_class_is_on_every_side() {
        let mut data = dataset(&[3, 10, 100]);
        split(&mut data, TEN).unwrap();
        for (class, expected) in [(0, [1, 1, 1]), (1, [8, 1, 1]), (2, [80, 10, 10])] {
            let count = |side| {
                data.indices(side)
                    .iter()
                    .filter(|&&i| data.photos[i].class == class)
                    .count()
            };
            assert_eq!(
                [
                    count(Split::Train),
                    count(Split::Validation),
                    count(Split::Test)
                ],
                expected
            );
        }
    }

    #[test]
    fn copies_share_a_side_and_names_do_not_matter() {
        let mut data = dataset(&[40, 40]);
        let mut copy = data.photos[5].clone();
        copy.path = PathBuf::from("another name");
        data.photos.push(copy);
        split(&mut data, TEN).unwrap();
        assert_eq!(data.photos[5].split, data.photos[80].split);
    }

    #[test]
    fn given_sides_are_kept() {
        let mut data = dataset(&[40, 40]);
        data.photos[0].split = Some(Split::Test);
        data.photos[1].split = Some(Split::Validation);
        split(&mut data, TEN).unwrap();
        assert_eq!(
            (data.indices(Split::Test), data.indices(Split::Validation)),
            (vec![0], vec![1])
        );
        assert_eq!(data.indices(Split::Train).len(), 78);
    }

    #[test]
    fn nothing_left_to_train_on_is_an_error() {
        assert!(
            split(
                &mut dataset(&[4, 4]),
                Percentages {
                    validation: 50,
                    testing: 50
                }
            )
            .is_err()
        );
    }
}
