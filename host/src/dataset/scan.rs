//! Finds the photos of a folder or list and hashes their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use graft_engine::label::Picture;
use graft_engine::listing;
use graft_shared::digest::sha256;
use graft_shared::error::{Context, Error, Result};
use graft_shared::labels::Labels;
use rayon::prelude::*;

use super::alike::refuse_alike;
use super::index_cache::{Entry, IndexCache, Stamp};
use super::{Dataset, Photo, Refused, Split};
use crate::progress::Progress;

/// SHA-256 of a file, or why there is none, on one line.
type Hashed = Result<[u8; 32], String>;

/// Below this many photos a class is warned about: its accuracy is guesswork.
const FEW_PHOTOS: usize = 20;

/// Lists the photos of `source` (label folders, or a TSV) and hashes them; those that did not change since the index in
/// `cache` was made are not read again. A file that can't be read is refused, never fatal; whether it decodes shows when
/// its bottleneck is computed.
///
/// # Errors
/// When `source` can't be listed, holds fewer than two labels or two that print alike, or a split name is unknown.
pub fn scan(source: &Path, cache: Option<&Path>, progress: &Progress) -> Result<Dataset> {
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
    let mut dataset = Dataset {
        warnings: refuse_alike(names.iter().copied())?,
        labels: Labels::new(names.iter().map(|name| (*name).to_owned()).collect())?,
        photos: Vec::with_capacity(listed.len()),
        refused: Vec::new(),
        is_list: source.is_file(),
    };
    let hashes = hash(&listed, source, cache, progress)?;
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
                listed_group: photo.group,
                group: content_hash,
            }),
            Err(reason) => dataset.refused.push(Refused {
                path: photo.path,
                reason,
            }),
        }
    }
    Ok(dataset)
}

/// SHA-256 of each file, or why there is none.
fn hash(
    listed: &[listing::Photo],
    source: &Path,
    cache: Option<&Path>,
    progress: &Progress,
) -> Result<Vec<Hashed>> {
    let folder = std::env::current_dir().context("the current folder")?;
    let mut cache = cache.map(|cache| IndexCache::open(cache, source));
    let stage = progress.stage("reading photos", listed.len());
    let hashed: Vec<(Hashed, Option<Entry>)> = listed
        .par_iter()
        .map(|photo| {
            let hashed = hash_file(&photo.path, &folder, cache.as_ref());
            stage.advance(1);
            match hashed {
                Ok((hash, entry)) => (Ok(hash), entry),
                Err(error) => (Err(error.line()), None),
            }
        })
        .collect();
    stage.finish();
    if let Some(cache) = &mut cache {
        let entries = hashed.iter().filter_map(|(_, entry)| *entry).collect();
        if let Err(error) = cache.replace(entries) {
            progress.say(&format!(
                "warning: the next run will read all photos again: {}",
                error.line()
            ));
        }
    }
    Ok(hashed.into_iter().map(|(hash, _)| hash).collect())
}

fn hash_file(
    path: &PathBuf,
    folder: &Path,
    cache: Option<&IndexCache>,
) -> Result<([u8; 32], Option<Entry>)> {
    let breaks_lines = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r');
    if path.as_os_str().as_encoded_bytes().iter().any(breaks_lines) {
        return Err(Error::new("its path holds a tab or a line break").hint("rename the file"));
    }
    let stamp = cache.and_then(|_| Stamp::of(&folder.join(path), &fs::metadata(path).ok()?));
    let known = stamp.and_then(|stamp| cache?.get(&stamp).copied());
    if let Some(entry) = known {
        return Ok((entry.content_hash, Some(entry)));
    }
    let hash = sha256(&Picture::File(path.clone()).read()?);
    Ok((hash, stamp.and_then(|stamp| stamp.entry(hash))))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(root: &Path, name: &str, content: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn folders_that_print_alike_are_an_error_that_names_both() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "caf\u{e9}/1.jpg", b"1");
        write(root.path(), "cafe\u{301}/2.jpg", b"2");
        let report = scan(root.path(), None, &Progress::new(true))
            .unwrap_err()
            .report();
        assert!(
            report.contains("caf\\u{e9}") && report.contains("cafe\\u{301}"),
            "{report}"
        );
    }

    #[test]
    fn odd_files_are_refused_and_the_others_stay() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "cat/1.jpg",
            "cat/new\nline.jpg",
            "dog/2.jpg",
            "dog/sub/3.jpg",
        ] {
            write(root.path(), name, name.as_bytes());
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", root.path().join("dog/broken.jpg")).unwrap();
        let data = scan(root.path(), None, &Progress::new(true)).unwrap();
        assert_eq!(data.photos.len(), 3);
        assert!(data.refused[0].reason.contains("line break"));
        #[cfg(unix)]
        assert!(data.refused[1].reason.contains("can't open"));
        assert_eq!(data.photos[2].listed_group.as_deref(), Some("sub"));
    }

    #[test]
    fn the_index_spares_reading_what_did_not_change() {
        let root = tempfile::tempdir().unwrap();
        let (photos, cache) = (root.path().join("photos"), root.path().join("cache"));
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let age = |name: &str| {
            let file = fs::File::options()
                .write(true)
                .open(photos.join(name))
                .unwrap();
            file.set_modified(past).unwrap();
        };
        let names = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"];
        for name in names {
            write(&photos, name, name.as_bytes());
            age(name);
        }
        let hashes = || -> Vec<[u8; 32]> {
            let data = scan(&photos, Some(&cache), &Progress::new(true)).unwrap();
            data.photos.iter().map(|photo| photo.content_hash).collect()
        };
        let expected: Vec<[u8; 32]> = names.iter().map(|name| sha256(name.as_bytes())).collect();
        assert_eq!(hashes(), expected);
        // Same size and time, so the index answers; another size, so it does not.
        write(&photos, "cat/1.jpg", b"CAT/1.JPG");
        age("cat/1.jpg");
        assert_eq!(hashes(), expected);
        write(&photos, "cat/1.jpg", b"other");
        age("cat/1.jpg");
        assert_eq!(hashes()[0], sha256(b"other"));
        assert_eq!(hashes()[1..], expected[1..]);
    }
}
