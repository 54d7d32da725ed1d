//! Which photo trains, which validates, which tests: whole groups, stratified by class, decided by the contents of the
//! files.

use std::collections::{BTreeMap, BTreeSet};

use graft_shared::error::{Error, Result};

use super::{Dataset, Earlier, Split};

/// How much of each class is put aside, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Percentages {
    /// For validation.
    pub validation: u32,
    /// For testing.
    pub testing: u32,
}

/// Gives every photo its side. Sides that the list or the folders gave are kept: where any photo has one, photos without
/// train, and where none validates, a part of the training photos does.
///
/// Otherwise a photo that had a side `earlier` keeps it, and its group joins it. New groups are taken in the order of
/// their names, which are content hashes: within a class the first that fit test, the next validate, the rest trains. The
/// same files get the same sides under any name, and a group is never parted but by earlier sides.
///
/// # Errors
/// When the percentages leave nothing to train on.
pub fn split(dataset: &mut Dataset, percentages: Percentages, earlier: &Earlier) -> Result<()> {
    if percentages.validation + percentages.testing >= 100 {
        return Err(Error::new(format!(
            "{} % for validation and {} % for testing leave nothing to train on",
            percentages.validation, percentages.testing
        ))
        .hint("`--validation-percentage` and `--testing-percentage` are 10 each by default"));
    }
    if dataset.photos.iter().all(|photo| photo.split.is_none()) {
        keep_earlier(dataset, earlier);
        assign(dataset, percentages, None);
        return Ok(());
    }
    dataset
        .photos
        .iter_mut()
        .for_each(|photo| photo.split = photo.split.or(Some(Split::Train)));
    if dataset.indices(Split::Validation).is_empty() {
        let no_test = Percentages {
            testing: 0,
            ..percentages
        };
        assign(dataset, no_test, Some(Split::Train));
        dataset.warnings.push(
            "the given split has no validation side: a part of the training photos takes its place"
                .into(),
        );
    }
    if dataset.indices(Split::Test).is_empty() {
        dataset
            .warnings
            .push("the given split has no test side: no accuracy will be measured".into());
    }
    Ok(())
}

/// Photos keep the sides they had; what is new in their groups joins them, or trains where they are on several.
fn keep_earlier(dataset: &mut Dataset, earlier: &Earlier) {
    let mut sides: BTreeMap<[u8; 32], BTreeSet<Split>> = BTreeMap::new();
    for photo in &dataset.photos {
        if let Some(side) = earlier.side(&photo.content_hash) {
            sides.entry(photo.group).or_default().insert(side);
        }
    }
    for photo in &mut dataset.photos {
        photo.split = earlier.side(&photo.content_hash).or_else(|| {
            let sides = sides.get(&photo.group)?;
            let only = sides.first().filter(|_| sides.len() == 1);
            Some(only.copied().unwrap_or(Split::Train))
        });
    }
    let torn = sides.values().filter(|sides| sides.len() > 1).count();
    if torn > 0 {
        dataset.warnings.push(format!(
            "{torn} groups of photos that belong together are on two sides of the split, since the earlier run put them there"
        ));
    }
}

/// Photos of one group that have no side yet.
#[derive(Default)]
struct Group {
    photos: Vec<usize>,
    /// Distinct contents by class: copies don't count.
    contents: BTreeMap<usize, BTreeSet<[u8; 32]>>,
}

impl Group {
    fn size(&self, class: usize) -> usize {
        self.contents.get(&class).map_or(0, BTreeSet::len)
    }
}

/// Puts a part of the groups whose photos are on the side `from`, or have none, aside; the rest of those without trains.
fn assign(dataset: &mut Dataset, percentages: Percentages, from: Option<Split>) {
    let mut groups: BTreeMap<[u8; 32], Group> = BTreeMap::new();
    // Contents on each side, by class.
    let mut taken: BTreeMap<(usize, Option<Split>), BTreeSet<[u8; 32]>> = BTreeMap::new();
    for (index, photo) in dataset.photos.iter().enumerate() {
        if photo.split == from {
            let group = groups.entry(photo.group).or_default();
            group.photos.push(index);
            let contents = group.contents.entry(photo.class).or_default();
            contents.insert(photo.content_hash);
        } else {
            let side = taken.entry((photo.class, photo.split)).or_default();
            side.insert(photo.content_hash);
        }
    }
    let mut counts: BTreeMap<(usize, Option<Split>), usize> = taken
        .into_iter()
        .map(|(key, contents)| (key, contents.len()))
        .collect();
    let mut names: Vec<Vec<[u8; 32]>> = vec![Vec::new(); dataset.labels.len()];
    for (name, group) in &groups {
        for &class in group.contents.keys() {
            names[class].push(*name);
        }
    }
    for (class, names) in names.iter().enumerate() {
        let count =
            |counts: &BTreeMap<_, usize>, side| counts.get(&(class, side)).copied().unwrap_or(0);
        let open: usize = names
            .iter()
            .filter_map(|name| groups.get(name))
            .map(|g| g.size(class))
            .sum();
        let total = open
            + [Split::Train, Split::Validation, Split::Test]
                .into_iter()
                .filter(|&side| from != Some(side))
                .map(|side| count(&counts, Some(side)))
                .sum::<usize>();
        let testing = part(total, percentages.testing, 2);
        let validation = part(
            total,
            percentages.validation,
            if testing > 0 { 3 } else { 2 },
        );
        for (side, wanted, percent) in [
            (Split::Test, testing, percentages.testing),
            (Split::Validation, validation, percentages.validation),
        ] {
            let mut have = count(&counts, Some(side));
            for name in names {
                let size = groups.get(name).map_or(0, |group| group.size(class));
                if have < wanted && size > 0 && have + size <= wanted + wanted / 2 {
                    have += size;
                    take(dataset, &mut groups, name, side, &mut counts);
                }
            }
            let left = || names.iter().filter(|name| groups.contains_key(*name));
            let trained = count(&counts, Some(Split::Train));
            if have == 0 && wanted > 0 && left().count() + trained.min(1) > 1 {
                // Each group is larger than the side should be: the first that leaves most of the class will do.
                let fits = |name: &&[u8; 32]| {
                    groups
                        .get(*name)
                        .is_some_and(|group| 2 * group.size(class) <= total)
                };
                if let Some(name) = left().find(fits).copied() {
                    have += groups.get(&name).map_or(0, |group| group.size(class));
                    take(dataset, &mut groups, &name, side, &mut counts);
                }
            }
            if have == 0 && percent > 0 {
                let label = dataset.labels.get(class).unwrap_or_default();
                let doing = if side == Split::Test {
                    "test"
                } else {
                    "validate"
                };
                let why = if wanted == 0 {
                    "it has too few photos"
                } else {
                    "too many of its photos belong together"
                };
                if side == Split::Test || wanted > 0 {
                    dataset
                        .warnings
                        .push(format!("`{label}` has nothing to {doing} on: {why}"));
                }
            }
        }
    }
    for photo in &mut dataset.photos {
        photo.split = photo.split.or(Some(Split::Train));
    }
}

/// Puts a group on a side.
fn take(
    dataset: &mut Dataset,
    groups: &mut BTreeMap<[u8; 32], Group>,
    name: &[u8; 32],
    side: Split,
    counts: &mut BTreeMap<(usize, Option<Split>), usize>,
) {
    if let Some(group) = groups.remove(name) {
        for (class, contents) in group.contents {
            *counts.entry((class, Some(side))).or_default() += contents.len();
        }
        for index in group.photos {
            dataset.photos[index].split = Some(side);
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
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::path::PathBuf;

    use graft_shared::digest::sha256;
    use graft_shared::labels::Labels;

    use super::super::Photo;
    use super::super::clusters::tests::bursts;
    use super::super::group::{GroupBy, group};
    use super::*;

    pub(in super::super) fn photo(class: usize, number: usize) -> Photo {
        let content_hash = sha256(format!("{class} {number}").as_bytes());
        Photo {
            path: PathBuf::from(format!("{class}/{number}")),
            class,
            content_hash,
            split: None,
            listed_group: None,
            group: content_hash,
        }
    }

    pub(in super::super) fn dataset(counts: &[usize]) -> Dataset {
        let labels =
            Labels::new((0..counts.len()).map(|c| format!("class {c}")).collect()).unwrap();
        let photos = counts
            .iter()
            .enumerate()
            .flat_map(|(class, &count)| (0..count).map(move |i| photo(class, i)))
            .collect();
        Dataset {
            labels,
            photos,
            refused: Vec::new(),
            warnings: Vec::new(),
            is_list: false,
        }
    }

    const TEN: Percentages = Percentages {
        validation: 10,
        testing: 10,
    };

    fn fresh(data: &mut Dataset) {
        split(data, TEN, &Earlier::default()).unwrap();
    }

    fn sides(data: &Dataset) -> HashMap<[u8; 32], Split> {
        data.photos
            .iter()
            .map(|photo| (photo.content_hash, photo.split.unwrap()))
            .collect()
    }

    fn counts(data: &Dataset, class: usize) -> [usize; 3] {
        [Split::Train, Split::Validation, Split::Test].map(|side| {
            let photos = data.photos.iter();
            photos
                .filter(|photo| photo.class == class && photo.split == Some(side))
                .count()
        })
    }

    /// Groups by 5 of the bottlenecks of as many bursts as fill the dataset.
    fn group_bursts(data: &mut Dataset, group_by: GroupBy) {
        let bottlenecks = bursts(data.photos.len() / 5, 5);
        group(data, group_by, &bottlenecks).unwrap();
    }

    #[test]
    fn every_class_is_on_every_side() {
        let mut data = dataset(&[3, 10, 100]);
        fresh(&mut data);
        for (class, expected) in [(0, [1, 1, 1]), (1, [8, 1, 1]), (2, [80, 10, 10])] {
            assert_eq!(counts(&data, class), expected);
        }
        assert_eq!(data.warnings, Vec::<String>::new());
    }

    #[test]
    fn copies_share_a_side_and_names_do_not_matter() {
        let mut data = dataset(&[40, 40]);
        let mut copy = data.photos[5].clone();
        copy.path = PathBuf::from("another name");
        data.photos.push(copy);
        fresh(&mut data);
        assert_eq!(data.photos[5].split, data.photos[80].split);
        let mut renamed = dataset(&[40, 40]);
        renamed.photos.reverse();
        for (number, photo) in renamed.photos.iter_mut().enumerate() {
            photo.path = PathBuf::from(format!("elsewhere/{number}"));
        }
        fresh(&mut renamed);
        assert_eq!(sides(&renamed), sides(&data));
    }

    #[test]
    fn given_sides_are_kept() {
        let mut data = dataset(&[40, 40]);
        data.photos[0].split = Some(Split::Test);
        data.photos[1].split = Some(Split::Validation);
        fresh(&mut data);
        assert_eq!(
            (data.indices(Split::Test), data.indices(Split::Validation)),
            (vec![0], vec![1])
        );
        assert_eq!(data.indices(Split::Train).len(), 78);

        let mut data = dataset(&[40, 40]);
        data.photos[0].split = Some(Split::Test);
        data.photos[1].split = Some(Split::Train);
        fresh(&mut data);
        assert_eq!(data.indices(Split::Test), [0]);
        assert_eq!(
            (counts(&data, 0), counts(&data, 1)),
            ([35, 4, 1], [36, 4, 0])
        );
    }

    #[test]
    fn nothing_left_to_train_on_is_an_error() {
        let halves = Percentages {
            validation: 50,
            testing: 50,
        };
        assert!(split(&mut dataset(&[4, 4]), halves, &Earlier::default()).is_err());
    }

    #[test]
    fn no_burst_crosses() {
        let mut data = dataset(&[250, 250]);
        group_bursts(&mut data, GroupBy::Nothing);
        assert!(
            data.warnings[0].starts_with("leak avoided: 500 of 500"),
            "{:?}",
            data.warnings
        );
        fresh(&mut data);
        for burst in data.photos.chunks(5) {
            assert!(burst.iter().all(|photo| photo.split == burst[0].split));
            assert!(burst.iter().all(|photo| photo.group == burst[0].group));
        }
        for class in 0..2 {
            assert_eq!(counts(&data, class), [200, 25, 25]);
        }
    }

    #[test]
    fn photos_keep_their_sides_when_others_are_added_moved_and_renamed() {
        let mut data = dataset(&[250, 250]);
        group_bursts(&mut data, GroupBy::Nothing);
        fresh(&mut data);
        let before = sides(&data);

        // 10 % more photos: half of them belong to old bursts; other names, other order.
        let mut grown = dataset(&[250, 250]);
        for (number, photo) in grown.photos.iter_mut().enumerate() {
            photo.group = data.photos[number].group;
            photo.path = PathBuf::from(format!("moved/{}", 1000 - number));
        }
        for number in 0..50 {
            let mut new = photo(number % 2, 1000 + number);
            if number < 25 {
                let burst = &data.photos[number % 2 * 250 + number * 5];
                new.group = burst.group.min(new.content_hash);
                let old = burst.group;
                let members = grown.photos.iter_mut().filter(|photo| photo.group == old);
                members.for_each(|photo| photo.group = new.group);
            }
            grown.photos.push(new);
        }
        grown.photos.reverse();
        split(&mut grown, TEN, &Earlier::of(before.clone())).unwrap();
        let after = sides(&grown);
        assert!(before.iter().all(|(hash, side)| after[hash] == *side));
        let mut by_group: BTreeMap<[u8; 32], BTreeSet<Split>> = BTreeMap::new();
        for photo in &grown.photos {
            by_group.entry(photo.group).or_default().extend(photo.split);
        }
        assert!(by_group.values().all(|sides| sides.len() == 1));
        for class in 0..2 {
            let [_, validation, test] = counts(&grown, class);
            assert!((25..=34).contains(&validation) && (25..=34).contains(&test));
        }
    }

    #[test]
    fn a_class_of_few_groups_takes_what_leaves_most_of_it() {
        let mut data = dataset(&[30, 30, 30]);
        // Three groups of ten; one of 28 and two alone; one of 30.
        for index in 0..30 {
            data.photos[index].group = data.photos[index / 10 * 10].content_hash;
            data.photos[30 + index].group = data.photos[30 + index.saturating_sub(27)].content_hash;
            data.photos[60 + index].group = data.photos[60].content_hash;
        }
        fresh(&mut data);
        assert_eq!(counts(&data, 0), [10, 10, 10]);
        assert_eq!(counts(&data, 1), [28, 0, 2]);
        assert_eq!(counts(&data, 2), [30, 0, 0]);
        assert_eq!(data.warnings.len(), 3, "{:?}", data.warnings);
        assert!(data.warnings[1].contains("`class 2` has nothing to test on"));
    }

    #[test]
    fn what_the_user_says_belongs_together_does() {
        let far = |data: &Dataset| {
            let n = data.photos.len();
            bursts(n, 1)
        };
        let groups = |data: &Dataset| {
            let distinct: BTreeSet<[u8; 32]> = data.photos.iter().map(|p| p.group).collect();
            distinct.len()
        };
        let mut data = dataset(&[20, 20]);
        for (number, photo) in data.photos.iter_mut().enumerate() {
            photo.listed_group = Some(format!("site {}", number % 8));
        }
        let bottlenecks = far(&data);
        group(&mut data, GroupBy::Nothing, &bottlenecks).unwrap();
        assert_eq!(groups(&data), 40);
        group(&mut data, GroupBy::Folder, &bottlenecks).unwrap();
        assert_eq!(groups(&data), 8);

        let mut data = dataset(&[20, 20]);
        for (number, photo) in data.photos.iter_mut().enumerate() {
            photo.path = PathBuf::from(format!(
                "{}/plant{}_nohash_{number}.jpg",
                photo.class,
                number % 5
            ));
        }
        group(&mut data, GroupBy::Nothing, &bottlenecks).unwrap();
        assert_eq!(groups(&data), 10);
    }

    /// The head of a JPEG with EXIF data: the camera's model, of more than three letters, and when it took the photo.
    fn photo_taken(model: &str, time: &str) -> Vec<u8> {
        const TEXTS: u32 = 56;
        let [model, time] = [model, time].map(|text| format!("{text}\0"));
        let entry = |tag: u16, kind: u16, count: u32, value: u32| {
            let places = [count, value].map(u32::to_be_bytes).concat();
            [[tag, kind].map(u16::to_be_bytes).concat(), places].concat()
        };
        let length = model.len() as u32;
        let tiff = [
            b"MM\0*\0\0\0\x08\0\x02".to_vec(),
            entry(0x0110, 2, length, TEXTS),
            entry(0x8769, 4, 1, 38),
            b"\0\0\0\0\0\x01".to_vec(),
            entry(0x9003, 2, time.len() as u32, TEXTS + length),
            vec![0; 4],
            model.into_bytes(),
            time.into_bytes(),
        ]
        .concat();
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe1];
        jpeg.extend((8 + tiff.len() as u16).to_be_bytes());
        jpeg.extend(b"Exif\0\0");
        jpeg.extend(tiff);
        jpeg.extend([0xff, 0xda, 0, 2]);
        jpeg
    }

    #[test]
    fn photos_of_one_camera_within_a_minute_are_a_burst() {
        let folder = tempfile::tempdir().unwrap();
        let mut data = dataset(&[12, 12]);
        for (number, photo) in data.photos.iter_mut().enumerate() {
            photo.path = folder.path().join(format!("{number}.jpg"));
            // Three photos 20 s apart every hour, from two cameras at once.
            let time = format!("2026:03:01 {:02}:00:{:02}", number / 6, number / 2 % 3 * 20);
            let bytes = photo_taken(["Trap A", "Trap B"][number % 2], &time);
            std::fs::write(&photo.path, bytes).unwrap();
        }
        let bottlenecks = bursts(24, 1);
        group(&mut data, GroupBy::ExifBurst, &bottlenecks).unwrap();
        for (i, a) in data.photos.iter().enumerate() {
            for (j, b) in data.photos.iter().enumerate() {
                assert_eq!(a.group == b.group, (i / 6, i % 2) == (j / 6, j % 2));
            }
        }
        assert!(data.warnings.is_empty(), "{:?}", data.warnings);
    }
}
