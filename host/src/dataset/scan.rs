//! Finds the photos of a folder or list and hashes their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graft_engine::label::Picture;
use graft_engine::listing;
use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use graft_shared::labels::Labels;
use rayon::prelude::*;

use super::{Dataset, Photo, Refused, Split};
use crate::progress::Progress;

/// Below this many photos a class is warned about: its accuracy is guesswork.
const FEW_PHOTOS: usize = 20;

/// Lists the photos of `source` (label folders, or a TSV) and hashes them. A file that can't be read is refused, never
/// fatal; whether it decodes shows when its bottleneck is computed.
///
/// # Errors
/// When `source` can't be listed, holds fewer than two labels, or a split name is unknown.
pub fn scan(source: &Path, progress: &Progress) -> Result<Dataset> {
    let listed = listing::list(source)?;
    let names: BTreeSet<&str> = listed.iter().map(|photo| photo.label.as_str()).collect();
    if names.len() < 2 {
        let found = names
            .first()
            .map_or("none".to_owned(), |name| format!("only `{name}`"));
        return Err(Error::new(format!(
            "`{}` has to hold at least two labels, found {found}",
            source.display()
        ))
        .hint("put the photos into one folder per label: photos/cat/1.jpg, photos/dog/2.jpg"));
    }
    let labels = Labels::new(names.iter().map(|name| (*name).to_owned()).collect())?;

    let bar = progress.stage("reading photos", listed.len());
    let hashes: Vec<Result<[u8; 32], String>> = listed
        .par_iter()
        .map(|photo| {
            let hash = Picture::File(photo.path.clone())
                .read()
                .map(|bytes| sha256(&bytes))
                .map_err(|error| error.line());
            bar.advance(1);
            hash
        })
        .collect();
    bar.finish();

    let mut dataset = Dataset {
        labels,
        photos: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
    };
    for (photo, hash) in listed.into_iter().zip(hashes) {
        let split = match &photo.split {
            None => None,
            Some(name) => Some(Split::parse(name).ok_or_else(|| {
                Error::new(format!(
                    "`{}` is on side `{name}` of the split",
                    photo.path.display()
                ))
                .hint("a split is one of `train`, `val` and `test`")
            })?),
        };
        let class = dataset
            .labels
            .index_of(&photo.label)
            .context("a label that was just listed")?;
        match hash {
            Ok(content_hash) => dataset.photos.push(Photo {
                path: photo.path,
                class,
                content_hash,
                split,
            }),
            Err(reason) => dataset.refused.push(Refused {
                path: photo.path,
                reason,
            }),
        }
    }
    Ok(dataset)
}

impl Dataset {
    /// Moves the photos that `reasons` names by index to the refused ones, the reason on one line, then warns about what is left: few photos,
    /// files that are there twice, one file under two labels.
    ///
    /// A label that keeps no photo is left out.
    ///
    /// # Errors
    /// When fewer than two labels keep a photo.
    pub fn refuse(&mut self, reasons: Vec<(usize, Error)>) -> Result<()> {
        let reasons: BTreeMap<usize, String> = reasons
            .into_iter()
            .map(|(index, error)| (index, error.line()))
            .collect();
        let photos = std::mem::take(&mut self.photos);
        for (index, photo) in photos.into_iter().enumerate() {
            match reasons.get(&index) {
                Some(reason) => self.refused.push(Refused {
                    path: photo.path,
                    reason: reason.clone(),
                }),
                None => self.photos.push(photo),
            }
        }
        self.warn_about_duplicates();
        let mut counts = vec![0usize; self.labels.len()];
        self.photos
            .iter()
            .for_each(|photo| counts[photo.class] += 1);
        for (label, count) in self
            .labels
            .iter()
            .zip(&counts)
            .filter(|(_, n)| (1..FEW_PHOTOS).contains(*n))
        {
            self.warnings.push(format!(
                "`{label}` has {count} photos; fewer than {FEW_PHOTOS} make its accuracy guesswork"
            ));
        }
        if counts.contains(&0) {
            self.drop_empty_labels(&counts)?
        }
        Ok(())
    }

    /// Takes out the labels without a usable photo.
    fn drop_empty_labels(&mut self, counts: &[usize]) -> Result<()> {
        let (kept, dropped): (Vec<usize>, Vec<usize>) =
            (0..counts.len()).partition(|&class| counts[class] > 0);
        let name = |class: &usize| self.labels.get(*class).unwrap_or_default().to_owned();
        let dropped: Vec<String> = dropped.iter().map(name).collect();
        if kept.len() < 2 {
            let first = self.refused.first().map_or(String::new(), |r| {
                format!("; {}: {}", r.path.display(), r.reason)
            });
            return Err(Error::new(format!(
                "no usable photo of {}, and two labels are needed{first}",
                dropped.join(", ")
            ))
            .hint("replace the photos that can't be read"));
        }
        self.warnings.push(format!(
            "left out for lack of a usable photo: {}",
            dropped.join(", ")
        ));
        self.labels = Labels::new(kept.iter().map(name).collect())?;
        let mut new_class = vec![0; counts.len()];
        kept.iter()
            .enumerate()
            .for_each(|(new, &old)| new_class[old] = new);
        self.photos
            .iter_mut()
            .for_each(|photo| photo.class = new_class[photo.class]);
        Ok(())
    }

    /// Files with the same bytes: under one label they are counted, under two labels each is named.
    fn warn_about_duplicates(&mut self) {
        let mut by_hash: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
        for (index, photo) in self.photos.iter().enumerate() {
            by_hash.entry(photo.content_hash).or_default().push(index);
        }
        let (mut copies, mut leaks) = (0, 0);
        for same in by_hash.values().filter(|same| same.len() > 1) {
            let photos: Vec<&Photo> = same.iter().map(|&index| &self.photos[index]).collect();
            copies += photos.len() - 1;
            leaks += usize::from(
                photos
                    .iter()
                    .any(|p| p.split.is_some() && p.split != photos[0].split),
            );
            if let Some(other) = photos.iter().find(|photo| photo.class != photos[0].class) {
                self.warnings.push(format!(
                    "one photo under two labels: {} and {}",
                    photos[0].path.display(),
                    other.path.display()
                ));
            }
        }
        if copies > 0 {
            self.warnings
                .push(format!("{copies} photos are exact copies of another"));
        }
        if leaks > 0 {
            self.warnings.push(format!(
                "{leaks} photos are on two sides of the given split: the accuracy is flattered"
            ));
        }
    }
}
