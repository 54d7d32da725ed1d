//! Which photos have to be on one side of the split: a test photo that was taken a second after a training photo tests
//! nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use graft_shared::error::Result;
use graft_shared::exif;
use rayon::prelude::*;

use super::clusters::{self, Thresholds};
use super::union::Union;
use super::{Dataset, Photo, Split};
use crate::features::Bottlenecks;

/// What retrain.py ignores in a file name, together with all that follows.
const NO_HASH: &str = "_nohash_";
/// Photos of one camera this near in time are of one burst.
const BURST_SECONDS: i64 = 60;
/// EXIF data of a photo lie near its beginning: what is behind this is not read.
const HEAD_BYTES: u64 = 1 << 18;
/// From this share of photos on, those in groups are warned about.
const WORTH_A_WARNING: f64 = 0.1;

/// A group that the user knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupBy {
    /// None but those that are found.
    #[default]
    #[value(skip)]
    Nothing,
    /// Photos in sub-folders of one name, inside the label folders.
    Folder,
    /// Photos that one camera took within a minute.
    ExifBurst,
}

impl GroupBy {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Folder => "folder",
            Self::ExifBurst => "exif-burst",
        }
    }
}

/// Sets each photo's group. Photos are one group when they are copies, when the list or `group_by` says so, when their
/// names differ only behind `_nohash_`, and when their bottlenecks are so near that they are of one occasion. A group's
/// name is its smallest content hash: file names and order don't matter.
///
/// A split that was given is kept, so there only what crosses it is told.
///
/// # Errors
/// When the bottlenecks can't be read.
pub fn group(dataset: &mut Dataset, group_by: GroupBy, bottlenecks: &Bottlenecks) -> Result<()> {
    let photos = &dataset.photos;
    let given = photos.iter().any(|photo| photo.split.is_some());
    let mut union = Union::new(photos.len());
    union.join_equal(keys(photos, |photo| Some(photo.content_hash)));
    let is_list = dataset.is_list;
    union.join_equal(keys(photos, |photo| match &photo.listed_group {
        Some(group) => (is_list || group_by == GroupBy::Folder).then(|| group.clone().into()),
        // A list knows no label folder: there the folder of the file counts.
        None if is_list && group_by == GroupBy::Folder => {
            Some(photo.path.parent()?.as_os_str().to_owned())
        }
        None => None::<std::ffi::OsString>,
    }));
    union.join_equal(keys(photos, nohash));
    if group_by == GroupBy::ExifBurst {
        join_bursts(photos, &mut union, &mut dataset.warnings);
    }
    // What the user knows is not what has to be warned about.
    let known: BTreeSet<(usize, usize)> = (0..photos.len())
        .map(|index| (index, union.find(index)))
        .collect();

    let mut order: Vec<usize> = (0..photos.len()).collect();
    order.sort_unstable_by_key(|&index| photos[index].content_hash);
    let classes: Vec<usize> = photos.iter().map(|photo| photo.class).collect();
    if let Some(thresholds) = clusters::thresholds(bottlenecks, &classes, &order)? {
        let thresholds = Thresholds {
            occasion: if given {
                thresholds.same
            } else {
                thresholds.occasion
            },
            ..thresholds
        };
        let mut by_class = vec![Vec::new(); dataset.labels.len()];
        order
            .iter()
            .for_each(|&index| by_class[classes[index]].push(index));
        for members in &by_class {
            clusters::join(bottlenecks, members, thresholds, &mut union)?;
        }
    }

    let sets = union.sets();
    let found = sets
        .iter()
        .filter(|set| set.iter().any(|&index| !known.contains(&(index, set[0]))));
    let (groups, grouped) = found.fold((0, 0), |(groups, grouped), set| {
        (groups + 1, grouped + set.len())
    });
    let crossing: usize = sets
        .iter()
        .filter(|set| {
            set.iter()
                .any(|&index| photos[index].split == Some(Split::Train))
        })
        .flatten()
        .filter(|&&index| photos[index].split == Some(Split::Test))
        .count();
    let tested = dataset.indices(Split::Test).len();
    if given && crossing > 0 {
        dataset.warnings.push(format!(
            "leak: {crossing} of {tested} test photos are near-duplicates of training photos; the given split is kept, and the accuracy is flattered"
        ));
    }
    if !given && grouped as f64 >= WORTH_A_WARNING * photos.len() as f64 {
        dataset.warnings.push(format!(
            "leak avoided: {grouped} of {} photos look like another of their label from the same occasion (a burst, one visit); \
             these {groups} groups are each kept on one side of the split, or the accuracy would be flattered. \
             It will differ on photos from other places: test on some of those",
            photos.len()
        ));
    }
    for set in sets {
        let first = set
            .iter()
            .map(|&index| dataset.photos[index].content_hash)
            .min();
        for index in set {
            dataset.photos[index].group = first.unwrap_or_default();
        }
    }
    Ok(())
}

fn keys<'a, K>(
    photos: &'a [Photo],
    key: impl Fn(&'a Photo) -> Option<K> + 'a,
) -> impl Iterator<Item = (usize, K)> + 'a {
    photos
        .iter()
        .enumerate()
        .filter_map(move |(index, photo)| Some((index, key(photo)?)))
}

/// Folder and file name up to `_nohash_`.
fn nohash(photo: &Photo) -> Option<(Option<&Path>, String)> {
    let name = photo.path.file_name()?.to_string_lossy();
    let stem = name.split_once(NO_HASH)?.0.to_owned();
    Some((photo.path.parent(), stem))
}

/// The camera of a photo, and when it took it by its clock in seconds; `None` where the file says no time.
fn shot(path: &Path) -> Option<([String; 3], i64)> {
    let mut head = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .ok()?;
    Some((exif::camera(&head)?, exif::clock_seconds(&head)?))
}

fn join_bursts(photos: &[Photo], union: &mut Union, warnings: &mut Vec<String>) {
    let mut shots: Vec<([String; 3], i64, usize)> = photos
        .par_iter()
        .enumerate()
        .filter_map(|(index, photo)| {
            let (camera, seconds) = shot(&photo.path)?;
            Some((camera, seconds, index))
        })
        .collect();
    if shots.len() < photos.len() {
        warnings.push(format!(
            "{} of {} photos say no time in their EXIF data: `--group-by exif-burst` does not see them",
            photos.len() - shots.len(),
            photos.len()
        ));
    }
    shots.sort_unstable();
    for pair in shots.windows(2) {
        if let [(camera, earlier, i), (other, later, j)] = pair
            && camera == other
            && later - earlier <= BURST_SECONDS
        {
            union.join(*i, *j);
        }
    }
}
